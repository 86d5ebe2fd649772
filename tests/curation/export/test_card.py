"""The card that lies beside an export."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from curation.export.card import text
from curation.export.rows import FIELDS
from flywheel.core.workspace import Workspace
from tests.curation.export.exporting import ROWS, export, snapshot


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    return snapshot(tmp_path_factory.mktemp("card"))


def test_it_states_origin_licences_columns_and_counts(workspace: Workspace, tmp_path: Path) -> None:
    exported = export(workspace, "hf", tmp_path / "out")
    card = (tmp_path / "out" / "README.md").read_text()
    assert card == text(exported, workspace)
    for line in (
        f"| CC0-1.0 | {ROWS} |",
        f"| unknown | {ROWS} |",
        "| snapshot | `5eed` |",
        "| entropy\\|x | 500 | 50 |",
    ):
        assert line in card
    assert all(f"| `{name}` |" in card for name in FIELDS.names)
    assert str(tmp_path) not in card  # it is published, and names no folder of this machine


@pytest.mark.parametrize(
    ("licences", "stated"),
    [
        ({"unknown": 3}, "unknown"),
        ({"CC0-1.0": 3}, "cc0-1.0"),
        ({"CC0-1.0": 3, "unknown": 1}, "other"),
        ({"x": 1}, "other"),
    ],
)
def test_its_front_matter_is_what_the_hub_reads(
    workspace: Workspace, tmp_path: Path, licences: dict, stated: str
) -> None:
    exported = export(workspace, "parquet", tmp_path / "out")
    object.__setattr__(exported, "licences", licences)
    front = yaml.safe_load(re.match(r"---\n(.*?)\n---", text(exported, workspace), re.S)[1])
    assert front["license"] == stated
    assert front["task_categories"] == ["text-to-image", "image-to-image"] and front["size_categories"] == ["n<1K"]
    assert front["configs"][0]["data_files"] == [{"split": "train", "path": "data/*.parquet"}]
