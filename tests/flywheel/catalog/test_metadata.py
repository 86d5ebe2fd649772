"""The metadata table: a row for each picture of the pool, null where nothing is known."""

from pathlib import Path

import pyarrow.parquet as pq
import pytest

from curation.decide.judge import judge
from curation.run import configure
from curation.sources.ingest import ingest
from flywheel.catalog.metadata import COLUMNS, export_metadata
from flywheel.core.errors import UsageError
from flywheel.core.exports import TABLES, remembered
from flywheel.core.workspace import Workspace
from tests.curation import one_stage
from tests.curation.corpus import encoded, texture, write_folder
from tests.flywheel.catalog.test_database import ENTROPY


def test_a_row_a_picture_with_the_names_of_coyo(tmp_path: Path) -> None:
    workspace, rule = Workspace(tmp_path / "w"), one_stage.policy(tmp_path, ENTROPY)
    files = {f"{n}.png": encoded(texture(n, 60, 50)) for n in range(3)}
    about = {"caption": 'a cup  that says "tea"', "license": "CC0-1.0", "url": "https://example.org/0.png"}
    ingest(workspace, write_folder(tmp_path / "src", files, {"0.png": about}))
    one_stage.scored(workspace, rule)
    judge(workspace, rule, configure(rule)[0])
    path = tmp_path / "it's" / "a?b.parquet"
    assert export_metadata(workspace, path) == 3
    rows = sorted(pq.read_table(path).to_pylist(), key=lambda r: r["source_uri"])
    assert list(rows[0]) == list(COLUMNS) and len({r["id"] for r in rows}) == 3
    first, second = rows[:2]
    assert (first["text"], first["text_length"], first["word_count"]) == (about["caption"], 22, 5)
    assert (first["width"], first["height"], first["license"], first["url"]) == (60, 50, "CC0-1.0", about["url"])
    assert len(first["image_phash"]) == 16 and int(first["image_phash"], 16) != int(second["image_phash"], 16)
    assert second["text_length"] is None and first["nsfw_score_opennsfw2"] is None and first["outcome"] is None
    assert [place for place, _ in remembered(workspace, TABLES)] == [path]


def test_an_empty_pool_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="pool is empty"):
        export_metadata(Workspace(tmp_path / "w"), tmp_path / "m.parquet")
    assert not (tmp_path / "m.parquet").exists()
