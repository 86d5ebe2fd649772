"""A damaged workspace: every damage is reported, and nothing else."""

from __future__ import annotations

import shutil
from pathlib import Path

from flywheel.core.workspace import Workspace
from flywheel.operate.fsck import fsck


def first(workspace: Path, pattern: str) -> Path:
    return sorted(workspace.glob(pattern))[0]


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 3] ^= 1
    path.write_bytes(data)


DAMAGES = {
    "pool/*/00000.parquet": flip,
    "scores/header@*/*.parquet": flip,
    "snapshots/*/decisions.parquet": flip,
    "shards/*/*.parquet": Path.unlink,
    "remedies/*/*/*.parquet": lambda path: path.write_bytes(path.read_bytes()[:-100]),
    "checkpoints/*/final/ema.safetensors": flip,
    "ledger/case_events/*.parquet": flip,
    "rounds/round-0001/result.json": Path.unlink,
    "samples/*/*.png": flip,
}


def test_fsck_finds_each_damage_and_nothing_else(micro_run: tuple[Path, dict], tmp_path: Path):
    assert fsck(Workspace(micro_run[0])).findings == ()
    copy = tmp_path / "copy"
    shutil.copytree(micro_run[0], copy)
    damaged = {str(first(copy, pattern).relative_to(copy)): damage for pattern, damage in DAMAGES.items()}
    for name, damage in damaged.items():
        damage(copy / name)
    report = fsck(Workspace(copy))
    assert {f.path for f in report.findings if f.severity == "error"} == set(damaged)
    assert not report.sound and all(f.advice for f in report.findings)
