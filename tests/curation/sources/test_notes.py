"""What is said of what is not read."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from curation.sources import open_source
from curation.sources.notes import not_read
from tests.curation.corpus import encoded, texture, write_folder
from tests.curation.sources.pooled import write_tar


def test_parquet_without_captions_and_fields_of_a_tar_are_named_once(tmp_path: Path) -> None:
    picture = encoded(texture(1))
    source = write_folder(tmp_path / "s", {"a.png": picture})
    assert not_read(open_source(source)) == ()
    for name in ("p1", "p2"):
        pq.write_table(pa.table({"image": [picture], "author": ["x"], "n": [1]}), source / f"{name}.parquet")
        write_tar(source / f"{name}x.tar", {"0.png": picture, "0.clip.npy": b"n", "0.cls": b"7", "0.mask.png": picture})
    pq.write_table(pa.table({"image": [picture], "text": ["x"]}), source / "p0.parquet")
    assert not_read(open_source(source)) == (
        "p1x.tar: fields that are not read: .clip.npy, .mask.png",
        "p1.parquet has no caption column: its columns are image, author, n",
    )
    pq.write_table(pa.table({"image": [picture], "Text": ["x"]}), tmp_path / "said.parquet")
    assert not_read(open_source(tmp_path / "said.parquet")) == ()
