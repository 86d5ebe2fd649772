"""Pictures that were fetched and are not in the pool are erased as those in it are."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pyarrow as pa
import pytest

from curation.sources.ingest import ingest
from curation.sources.urls.store import ANSWERS, Store
from flywheel.core.errors import UsageError
from flywheel.core.files import write_parquet
from flywheel.core.workspace import Workspace
from flywheel.operate.erase import erase
from flywheel.operate.fsck import fsck
from tests.curation.corpus import encoded, texture, write_folder

WHO = {"by": "ada", "why": "asked by its author"}
PICTURES = {f"http://h.org/{n}.png": encoded(texture(n, 48, 40)) for n in range(4)}
FIRST, SECOND, THIRD, FOURTH = PICTURES


def fetched(root: Path, pictures: dict[str, bytes]) -> Workspace:
    """A workspace into which these were fetched from their URLs, after a redirect."""
    workspace = Workspace(root)
    empty = {"reason": "", "code": 200, "attempts": 1, "content_type": "image/png", "directives": []}
    rows = [
        empty | {"uri": u, "status": "fetched", "final_url": u + "?x=1", "size": len(d), "image": d}
        for u, d in pictures.items()
    ]
    rows.append(empty | {"uri": "http://h.org/none", "status": "failed", "final_url": "", "size": 0, "image": None})
    batch = workspace.path("fetched", "00001-abc")
    write_parquet(batch / "plan.parquet", pa.table({"uri": [r["uri"] for r in rows]}))
    write_parquet(batch / "00000.parquet", pa.Table.from_pylist(rows, schema=ANSWERS), row_group_size=2)
    return workspace


def held(workspace: Workspace) -> list[str]:
    with Store(workspace).connect() as con:
        return [u for (u,) in con.execute("select uri from latest where status = 'fetched' order by uri").fetchall()]


def sound(workspace: Workspace) -> bool:
    return not [f for f in fsck(workspace).findings if "erased" in f.problem]


def test_by_url_before_and_after_redirects_and_by_id(tmp_path: Path) -> None:
    workspace = fetched(tmp_path / "w", PICTURES)
    third = hashlib.sha256(PICTURES[THIRD]).hexdigest()
    (erased,) = erase(workspace, [FIRST, SECOND + "?x=1", third], **WHO)
    assert set(erased.images) == {hashlib.sha256(PICTURES[u]).hexdigest() for u in (FIRST, SECOND, THIRD)}
    assert held(workspace) == [FOURTH] and sound(workspace)
    with pytest.raises(UsageError, match="no picture of the pool is meant by 'http://h.org/none'"):
        erase(workspace, ["http://h.org/none"], **WHO)


def test_the_same_bytes_under_another_url(tmp_path: Path) -> None:
    workspace = fetched(tmp_path / "w", PICTURES)
    ingest(workspace, write_folder(tmp_path / "s", {"mine.png": PICTURES[SECOND]}))
    (erased,) = erase(workspace, ["mine.png"], **WHO)
    assert erased.rows == 1 and held(workspace) == [FIRST, THIRD, FOURTH] and sound(workspace)
