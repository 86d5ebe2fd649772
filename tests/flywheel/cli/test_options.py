"""A checkpoint, or a workspace whose promoted one is taken."""

from __future__ import annotations

from pathlib import Path

import pytest

from flywheel.cli.options import checkpoint_or_promoted, require_suffix
from flywheel.core.errors import UsageError
from tests.flywheel.rounds.verdicts import finished_rounds


def test_exactly_one_of_both(tmp_path: Path) -> None:
    workspace = finished_rounds(tmp_path / "w", "PROMOTE", "HOLD")
    assert checkpoint_or_promoted(Path("mine"), None) == Path("mine")
    assert checkpoint_or_promoted(None, workspace.root) == workspace.path("checkpoints/1")
    for both_or_none in ((None, None), (Path("mine"), workspace.root)):
        with pytest.raises(UsageError, match="give either --checkpoint DIR or --workspace W"):
            checkpoint_or_promoted(*both_or_none)
    with pytest.raises(UsageError, match="no workspace at"):
        checkpoint_or_promoted(None, tmp_path / "none")


def test_a_name_says_what_is_written() -> None:
    for name in ("a.parquet", "a.PARQUET", "a"):
        require_suffix("--output", Path(name), "a Parquet file", ".parquet")
    with pytest.raises(UsageError, match=r"--output a.csv gets a Parquet file: give it a name that ends in .parquet"):
        require_suffix("--output", Path("a.csv"), "a Parquet file", ".parquet")
