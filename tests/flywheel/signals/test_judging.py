"""Verifiers come from the preset; without them their checks are not applied."""

from dataclasses import replace
from pathlib import Path

import pytest

from flywheel.core.errors import UsageError
from flywheel.core.scorer import Item
from flywheel.core.workspace import Workspace
from flywheel.presets import Evaluation
from flywheel.signals.judging import Verifiers, judge_images
from tests.flywheel.signals.test_benchmarks import GENEVAL, suite_of, thing


class Detector:
    """A detector of one's own: every picture shows one cat."""

    name, version, fields = "detector", "1", ()

    def score(self, items: list[Item]) -> list[dict]:
        return [{"detections": [thing("cat")]} for _ in items]


def test_a_preset_names_the_detector_and_without_one_nothing_is_judged(tmp_path: Path):
    suite, workspace = suite_of(tmp_path, "geneval", GENEVAL), Workspace(tmp_path / "w")
    settings = Evaluation(suite="demo", side=64, steps=1, cfg=1.0)
    unjudged = judge_images(suite, [b""] * 4, by=Verifiers.of(workspace, settings))
    assert [o[0].passed for o in unjudged] == [None] * 4
    named = replace(settings, scorers={"detector": {"scorer": f"{__name__}:Detector"}})
    judged = judge_images(suite, [b""] * 4, by=Verifiers.of(workspace, named))
    assert [o[0].passed for o in judged] == [True, False, False, False]
    with pytest.raises(UsageError, match="evaluation.scorers: weights not reachable"):
        Verifiers.of(workspace, replace(settings, scorers={"clip": {}}))
    with pytest.raises(UsageError, match="give url, model"):
        Verifiers.of(workspace, replace(settings, judge={"address": "http://x/v1"}))
