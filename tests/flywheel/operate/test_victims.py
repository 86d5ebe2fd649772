"""What the names of an erasure mean."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from curation.sources.ingest import ingest
from flywheel.core.errors import UsageError
from flywheel.core.workspace import Workspace
from flywheel.operate.victims import alike, find, look_of
from tests.curation.corpus import encoded, texture, write_folder
from tests.curation.sources.pooled import write_tar

PICTURES = {f"{n}.png": encoded(texture(n, 60, 60)) for n in range(4)}
ADDRESS = "https://a.example/one?x=1"


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    root = tmp_path_factory.mktemp("victims")
    workspace = Workspace(root / "w")
    stated = {"caption": "zero", "source_url": ADDRESS}
    pair = {"caption": "make it two", "references": ["1.png"]}
    notes: dict[str, object] = {"0.png": stated, "1.png": "one", "2.png": pair}
    ingest(workspace, write_folder(root / "src", {k: PICTURES[k] for k in ("0.png", "1.png", "2.png")}, notes))
    ingest(workspace, write_tar(root / "t.tar", {"3.png": PICTURES["3.png"], "copy.png": PICTURES["0.png"]}))
    return workspace


def sha(name: str) -> str:
    return hashlib.sha256(PICTURES[name]).hexdigest()


@pytest.mark.parametrize("name", ["src/0.png", ADDRESS, sha("0.png"), sha("0.png")[:10], "copy.png"])
def test_a_picture_by_file_address_id_or_member_in_all_its_rows(workspace: Workspace, name: str) -> None:
    victims = find(workspace, [name])
    assert victims.images == (sha("0.png"),) and len(victims.rows) == 2


def test_edits_that_show_it_go_too_but_not_their_targets(workspace: Workspace) -> None:
    victims = find(workspace, ["1.png"])
    assert victims.images == (sha("1.png"),)
    assert sorted(r.image_id == sha("1.png") for r in victims.rows) == [False, True]
    target = find(workspace, ["2.png"])  # of the pair alone: its reference stays
    assert [r.reference_ids for r in target.rows] == [(sha("1.png"),)]


@pytest.mark.parametrize("name", ["nowhere", "png", "0.pn", "%", "'; drop table pool; --"])
def test_a_name_that_means_nothing_is_refused(workspace: Workspace, name: str) -> None:
    with pytest.raises(UsageError, match="no picture of the pool is meant"):
        find(workspace, [name])


def test_an_empty_pool_knows_no_name_but_a_whole_id(tmp_path: Path) -> None:
    empty = Workspace(tmp_path / "w")
    with pytest.raises(UsageError, match="no picture"):
        find(empty, ["a.png"])
    assert find(empty, ["a" * 64]).images == ("a" * 64,)


def test_pictures_that_look_alike() -> None:
    picture = texture(5, 200, 150)
    smaller = picture.resize((100, 75), Image.Resampling.LANCZOS)
    noisy = Image.fromarray(np.clip(np.asarray(picture).astype(int) + 2, 0, 255).astype(np.uint8))
    same = look_of([encoded(picture), encoded(smaller, "JPEG", quality=70), encoded(noisy)])
    (other,) = look_of([encoded(texture(6, 200, 150))])
    assert all(alike(same[0], look) for look in same) and not alike(same[0], other)  # type: ignore[arg-type]
    assert look_of([b"not a picture"]) == [None]
