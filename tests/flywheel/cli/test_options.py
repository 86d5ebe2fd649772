"""A checkpoint, or a workspace whose promoted one is taken."""

from __future__ import annotations

from pathlib import Path

import pytest

from flywheel.cli.options import checkpoint_or_promoted
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
