"""The pool's suite: drawn from sound rows, in proportion, with the checks that separate."""

from __future__ import annotations

from pathlib import Path

import pytest

from curation.sources.ingest import ingest
from flywheel.core.errors import UsageError
from flywheel.core.image import decode
from flywheel.core.workspace import Workspace
from flywheel.demo.photographs import crops
from flywheel.presets import Evaluation
from flywheel.signals import pinned, pool_suite
from flywheel.signals.calibration import load_separations
from flywheel.signals.judged_pictures import judge_folder
from flywheel.signals.nulls import damaged, encode
from tests.curation.corpus import write_folder
from tests.curation.one_stage import policy, scored

SHARP = '\n[S1.filters.image_quality]\nscore = "pixels.sharpness"\nmin = 80.0\nbucket = 64\n'
SETTINGS = Evaluation(suite="pool", side=64, steps=1, cfg=1.0, held_out=4)


def test_defects_are_never_held_out_and_nulls_never_pass(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(pool_suite, "TYPOGRAPHY", 0)
    files, captions = {}, {}
    for n, (crop, caption) in enumerate(crops(60, seed="pool")):
        picture = encode(crop)
        files[f"{n:02d}.png"] = damaged("blur", picture) if n % 6 == 0 else picture
        captions[f"{n:02d}.png"] = f"{caption}, number {n}"
    workspace, rules = Workspace(tmp_path / "w"), policy(tmp_path, SHARP)
    ingest(workspace, write_folder(tmp_path / "source", files, captions))
    scored(workspace, rules)
    calibration = pool_suite.write(workspace, rules, SETTINGS, seed=1)
    suite = pinned.load_own(workspace)
    assert {p.prompt_id.partition("-")[0] for p in suite} == {"photo", "edit"}
    assert {c.name for c in load_separations(workspace.suite) if not c.left_out} == {
        "photo/photorealism", "change/photo_editing",
    }  # fmt: skip
    assert all(decode(p.read_bytes()).size == (64, 64) for p in workspace.suite.parent.glob("*/*.png"))
    blurred = {f for f in files if int(f[:2]) % 6 == 0}
    assert not {p.text.rpartition(" ")[2].zfill(2) + ".png" for p in suite if p.task == "t2i"} & blurred
    assert len(pinned.held_out(workspace).ids) <= SETTINGS.held_out and calibration.checks
    own = judge_folder(suite, workspace.suite.parent / "pictures")
    assert all(r["passed"] for r in own)
    for prompt in (p for p in suite if p.references):
        (tmp_path / f"{prompt.prompt_id}.png").write_bytes(prompt.reference_bytes()[0])
    assert not any(r["passed"] for r in judge_folder([p for p in suite if p.references], tmp_path))


def test_too_few_sound_pictures_are_said(tmp_path: Path):
    workspace, rules = Workspace(tmp_path / "w"), policy(tmp_path, SHARP)
    crop = encode(next(crops(1, seed="0"))[0])
    ingest(workspace, write_folder(tmp_path / "source", {"a.png": crop}, {"a.png": "a roof"}))
    with pytest.raises(UsageError, match="the pool has 1 captioned pictures"):
        pool_suite.write(scored(workspace, rules), rules, SETTINGS, seed=0)
