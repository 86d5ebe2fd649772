"""A suite is drawn in batches, and what is drawn already is kept."""

from __future__ import annotations

from pathlib import Path

import pytest

from flywheel.presets import Evaluation
from flywheel.signals.drawing import BATCH, batched, picture_name, sample_suite
from flywheel.signals.suite import Prompt
from tests.flywheel.signals.plain_generator import PlainGenerator

SETTINGS = Evaluation(suite="pool", side=8, steps=1, cfg=1.0)


def prompts(count: int, references: tuple[Path, ...] = ()) -> list[Prompt]:
    return [Prompt(f"p{len(references)}-{n}", f"card {n}", "t2i", references, ()) for n in range(count)]


def test_batches_hold_prompts_with_equally_many_references():
    suite = [*prompts(2, (Path("a.png"),)), *prompts(BATCH + 1)]
    groups = batched(suite)
    assert [len(g) for g in groups] == [BATCH, 1, 2] and groups[0][0] == 2 and groups[2] == [0, 1]
    assert sorted(i for g in groups for i in g) == list(range(len(suite)))


@pytest.mark.parametrize("independent", [True, False])
def test_only_what_is_missing_is_drawn_unless_pictures_depend_on_their_batch(tmp_path: Path, independent: bool):
    suite, generator = prompts(3), PlainGenerator(independent=independent)
    first = sample_suite(suite, generator, tmp_path, settings=SETTINGS, seed=1)
    (tmp_path / picture_name("p0-1")).unlink()
    assert sample_suite(suite, generator, tmp_path, settings=SETTINGS, seed=1) == first
    assert sample_suite(suite, generator, tmp_path, settings=SETTINGS, seed=1) == first
    assert generator.asked[1:] == [["card 1"] if independent else ["card 0", "card 1", "card 2"]]


@pytest.mark.parametrize("odd", ["../up", "a/b", "", "x" * 300, "ä\n"])
def test_an_id_that_is_no_file_name_stands_as_its_digest(odd: str):
    assert picture_name("two cats-1.b") == "two cats-1.b.png"
    assert len(picture_name(odd)) == 36 and "/" not in picture_name(odd) != picture_name(odd + "2")
