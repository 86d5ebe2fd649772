"""A look at a source."""

from __future__ import annotations

import os
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curation.sources import tar
from curation.sources.files import find
from curation.sources.survey import Part, is_picture, shortened, survey
from flywheel.core.storage import located
from tests.curation.corpus import encoded, texture, write_folder
from tests.curation.sources.kinds import compressed, tar_members, write_kinds, zipped
from tests.curation.sources.pooled import write_tar

PICTURE = encoded(texture(1, 48, 40))


def only(address: str | Path, **options: float) -> Part:
    (part,) = survey(address, **options).parts  # type: ignore[arg-type]
    return part


def test_columns_and_why(tmp_path: Path) -> None:
    table = {"pixels": [PICTURE], "Caption": ["x"], "width": [3], "mask": [PICTURE]}
    pq.write_table(pa.table(table), tmp_path / "s.parquet")
    part = only(tmp_path / "s.parquet")
    assert part.columns == (
        ("image", "pixels", "the first column of pictures"),
        ("mask", "mask", "by its name"),
        ("caption", "Caption", "by its name"),
    )
    assert part.ignored == ("width",) and (part.rows, part.at_least) == (1, False)
    (tmp_path / "list.tsv").write_text("a long caption\thttps://h.org/a.jpg\n")
    part = only(tmp_path / "list.tsv")
    assert part.columns[0] == ("url", "column 2", "by what it holds: the list has no header")


def test_faults_are_named(tmp_path: Path) -> None:
    files = {"a.png": PICTURE, "a.json": b"{", "b.png": b"", "table.csv": b"x,y\n1,2\n", "broken.zip": b"x"}
    found = survey(write_folder(tmp_path / "s", files))
    told = " ".join(f"{n}: {why}" for n, why in found.not_understood)
    assert "unreadable caption file a.json" in told and "without a column of URLs" in told
    assert "not a readable zip" in told
    assert {r["picture"] for r in found.parts[0].first} == {
        "quarantined: unreadable caption file a.json: Expecting property name enclosed in double quotes: line 1 column"
        " 2 (char 1)",
        "quarantined: zero bytes",
        "quarantined: a table without a column of URLs or pictures",
    }
    many = shortened(survey(write_folder(tmp_path / "m", {"a.png": PICTURE} | {f"{n}.csv": b"x\n" for n in range(50)})))
    assert len(many.not_understood) == 21 and many.not_understood[-1][0] == "… and 30 more"


def test_a_look_reads_only_beginnings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tar, "_HEAD_BYTES", 2_000_000)
    filler = {f"{n:04d}.png": np.random.default_rng(n).bytes(2_000) for n in range(1200)}
    path = write_tar(tmp_path / "s.tar", {**tar_members(), "0.npy": b"numbers", **filler})
    (tmp_path / "s.tar.gz").write_bytes(compressed(path.read_bytes(), "gz"))
    for name in ("s.tar", "s.tar.gz"):
        part = only(tmp_path / name)
        assert part.at_least and 500 <= part.rows <= 1000 and part.ignored == (".npy",)
        assert "damaged" not in str(part) and part.first[0]["caption"] == "picture 0"
    for number in range(300):
        (tmp_path / "many" / str(number)).mkdir(parents=True)
        (tmp_path / "many" / str(number) / "a.png").write_bytes(PICTURE)
    began = time.monotonic()
    found = survey(tmp_path / "many", seconds=0.0)
    assert not found.whole and found.files < 300 and time.monotonic() - began < 5


def test_s3_is_not_asked_for_all(s3: str) -> None:
    bucket = located(s3)
    bucket.fs.pipe({f"{s3}/in/{n:04d}.png": PICTURE for n in range(12)} | {f"{s3}/in2/x.png": PICTURE})
    assert len(list(find(f"{s3}/in", most=5))) == 5
    assert survey(f"{s3}/in").files == 12
    first = survey(f"{s3}/in").parts[0].first[0]
    assert first["uri"] == f"{s3}/in/0000.png" and first["picture"].startswith("PNG")


def test_one_picture_is_looked_into(tmp_path: Path) -> None:
    write_kinds(tmp_path / "in")
    (tmp_path / "a.bin").write_bytes(PICTURE)
    (tmp_path / "b.bin").write_bytes(zipped({"a": b"x"}))
    assert is_picture(str(tmp_path / "a.bin")) and not is_picture(str(tmp_path / "b.bin"))
    assert not is_picture(str(tmp_path / "in")) and not is_picture("s3://bucket/a.png")


def test_a_file_that_cannot_be_read_does_not_hide_the_others(tmp_path: Path) -> None:
    write_folder(tmp_path, {"a.tar": b"", "a.zip": b"", "a#line=2.png": PICTURE})
    os.mkfifo(tmp_path / "0.tar")
    write_tar(tmp_path / "b.tar", tar_members())
    (tmp_path / "b.zip").write_bytes(zipped(tar_members()))
    found = survey(tmp_path)
    assert {p.kind: (p.files, p.rows) for p in found.parts} == {"folder": (1, 1), "tar": (1, 4), "zip": (1, 4)}
    assert {name for name, _ in found.not_understood} == {"0.tar", "a.tar", "a.zip"}


def test_addresses_in_a_list_that_are_none(tmp_path: Path) -> None:
    urls = ["http://[::1/x.jpg", "http://h.org/a.jpg", "not an address", "http://h.org:99999/a.jpg"]
    (tmp_path / "list.csv").write_text("url\n" + "\n".join(urls))
    part = only(tmp_path / "list.csv")
    assert part.rows == 4 and "h.org (1), h.org:99999 (1)" in part.notes and "no host (2)" in part.notes
