"""Every format is opened by its own library, in a process without our code, by the lines that its card prints."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from curation.export.formats import FORMATS
from flywheel.core.workspace import Workspace
from tests.curation.export.exporting import ROWS, export, peer, snapshot


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    return snapshot(tmp_path_factory.mktemp("formats"))


def card_lines(folder: Path) -> str:
    return re.search(r"```python\n(.*?)```", (folder / "README.md").read_text(), re.S)[1]


# What a stranger asks of all samples after the card's three lines; each prints rows, tasks, licences and sizes.
ALL = {
    "webdataset": """
import json
rows = list(wds.WebDataset({names}, shardshuffle=False).decode("pil"))
pairs = [r for r in rows if r["json"]["task"] == "ti2i"]
assert all("reference0.png" in r and r["txt"] == r["json"]["text"] for r in pairs)
out = [(r["json"]["task"], r["json"]["license"], r["png"].size) for r in rows]
""",
    "hf": """
rows = list(data)
pairs = [r for r in rows if r["task"] == "ti2i"]
assert all(len(r["references"]) == 1 and r["references"][0].size == r["image"].size for r in pairs)
assert load_dataset(__import__("os").getcwd(), split="train").num_rows == len(rows)  # by its card alone
out = [(r["task"], r["license"], r["image"].size) for r in rows]
""",
    "imagefolder": """
rows = list(data)
assert all(len(r["references"]) == 1 for r in rows if r["task"] == "ti2i")
out = [(r["task"], r["license"], r["image"].size) for r in rows]
""",
    "parquet": """
import io
import torch
from PIL import Image

class Rows(torch.utils.data.IterableDataset):  # plain PyTorch
    def __iter__(self):
        for batch in pyarrow.dataset.dataset("data", format="parquet").to_batches(batch_size=64):
            yield from batch.to_pylist()

rows = [r for batch in torch.utils.data.DataLoader(Rows(), batch_size=8, collate_fn=list) for r in batch]
assert all(len(r["references"]) == 1 for r in rows if r["task"] == "ti2i")
out = [(r["task"], r["license"], Image.open(io.BytesIO(r["image"])).size) for r in rows]
""",
}


@pytest.mark.parametrize("name", ALL)
def test_a_peer_opens_it_by_the_lines_of_its_card(workspace: Workspace, tmp_path: Path, name: str) -> None:
    exported = export(workspace, name, tmp_path / "out")
    assert exported.parts > 1 and exported.rows == 3 * ROWS
    lines = card_lines(tmp_path / "out")
    assert len(lines.splitlines()) == 3 and lines.splitlines() == list(exported.load)
    names = re.search(r'"train-.*?tar"', lines)
    code = ALL[name].replace("{names}", names[0] if names else "")
    told = json.loads(peer(f"{lines}{code}\nimport json\nprint(json.dumps(out))", tmp_path / "out").splitlines()[-1])
    assert len(told) == 3 * ROWS
    assert sum(task == "ti2i" for task, _, _ in told) == ROWS
    assert {licence for _, licence, _ in told} == {"CC0-1.0", None, "CC-BY-4.0"}
    assert {tuple(size) for _, _, size in told} == {(64, 64), (96, 48)}


def read_mds(folder: Path) -> list[dict]:
    """The samples of an MDS data set, as its format is documented: an index, and per shard a table of offsets."""
    index = json.loads((folder / "index.json").read_text())
    assert index["version"] == 2
    rows = []
    for shard in index["shards"]:
        assert (shard["format"], shard["compression"], shard["zip_data"]) == ("mds", None, None)
        data = (folder / shard["raw_data"]["basename"]).read_bytes()
        assert len(data) == shard["raw_data"]["bytes"]
        count = int(np.frombuffer(data, np.uint32, 1)[0])
        assert count == shard["samples"]
        offsets = np.frombuffer(data, np.uint32, count + 1, 4)
        own = json.loads(data[4 + 4 * (count + 1) : offsets[0]])
        assert own["column_names"] == shard["column_names"] == sorted(own["column_names"])
        for start, end in zip(offsets, offsets[1:]):
            names = own["column_names"]
            sizes, place, row = np.frombuffer(data, np.uint32, len(names), start), start + 4 * len(names), {}
            for name, kind, size in zip(names, own["column_encodings"], sizes):
                value = data[place : place + size]
                row[name] = {"bytes": bytes, "str": bytes.decode, "json": json.loads}[kind](value)
                place += size
            assert place == end
            rows.append(row)
        assert offsets[-1] == len(data)
    return rows


def test_mds_is_what_its_format_says(workspace: Workspace, tmp_path: Path) -> None:
    exported = export(workspace, "mds", tmp_path / "out")
    rows = read_mds(tmp_path / "out")
    assert len(rows) == exported.rows and exported.parts > 1
    assert [r["text"] for r in rows] == [r["fields"]["text"] for r in rows]
    pairs = [r for r in rows if r["fields"]["task"] == "ti2i"]
    assert len(pairs) == ROWS and all(Image.open(io.BytesIO(r["reference_0"])).size == (64, 64) for r in pairs)
    assert all(r["reference_0"] == b"" for r in rows if r["fields"]["task"] == "t2i")


def test_mds_is_opened_by_its_own_library(workspace: Workspace, tmp_path: Path) -> None:
    pytest.importorskip("streaming", reason="mosaicml-streaming does not resolve beside numpy 2.2 and transformers 5")
    export(workspace, "mds", tmp_path / "out")
    lines = card_lines(tmp_path / "out")
    assert peer(f"{lines}\nprint(len(data), type(picture).__name__)", tmp_path / "out").split() == ["450", "bytes"]


def test_every_format_has_a_test() -> None:
    assert FORMATS.keys() == ALL.keys() | {"mds"}
