"""The classifier of the train extra, and the names of its classes."""

from __future__ import annotations

import pytest

from curation.scorers import load
from curation.scorers.imagenet import MOST, labels
from flywheel.core.image import BadImage
from flywheel.core.scorer import Item
from tests.curation.corpus import encoded, texture


def test_classes_come_best_first_and_a_bad_picture_costs_its_own_row() -> None:
    pictures = (b"", encoded(texture(1)), encoded(texture(1, 600, 9)))
    broken, row, thin = load("imagenet").score([Item(p) for p in pictures])
    assert isinstance(broken, BadImage)
    for values in (row, thin):
        assert len(values["classes"]) == len(values["probabilities"]) == MOST
        assert values["probabilities"] == sorted(values["probabilities"], reverse=True)
        assert 0 < sum(values["probabilities"]) <= 1


def test_a_picture_scores_alike_alone_and_in_a_batch() -> None:
    items = [Item(encoded(texture(n))) for n in range(3)]
    alone, together = load("imagenet").score(items[1:2])[0], load("imagenet").score(items)[1]
    assert alone["probabilities"] == pytest.approx(together["probabilities"], abs=1e-5)


def test_every_class_has_a_name() -> None:
    assert len(labels()) == 1000 and all(n for names in labels() for n in names)
    assert labels()[0][0] == "tench" and "toilet tissue" in labels()[999]
