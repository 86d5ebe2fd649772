"""Local files opened for reads by row group; S3 is in `test_loader.py`."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from training.data.files import READ_ERRORS, parquet, read, record_batches, sizes


def test_what_is_there_is_read(tmp_path):
    table = pa.table({"a": [1, 2, 3]})
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=2)
    with pa.ipc.new_file(str(tmp_path / "a.arrow"), table.schema) as file:
        file.write_table(table, max_chunksize=2)
    (tmp_path / "a.json").write_bytes(b"{}")
    assert parquet(tmp_path / "a.parquet").read_row_group(1)["a"].to_pylist() == [3]
    assert record_batches(tmp_path / "a.arrow").get_batch(1)["a"].to_pylist() == [3]
    assert read(tmp_path / "a.json") == b"{}"
    assert sizes([tmp_path / "a.json", tmp_path / "none"]) == [2, None]


@pytest.mark.parametrize("content", [None, b"", b"PAR1 and no more", b"{}"])
def test_a_missing_or_torn_file_raises_what_readers_catch(tmp_path, content):
    path = tmp_path / "file"
    if content is not None:
        path.write_bytes(content)
    for opened in (parquet, record_batches):
        with pytest.raises(READ_ERRORS):
            opened(path)
