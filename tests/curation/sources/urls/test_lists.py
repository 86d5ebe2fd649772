"""Lists in every form, with the column names of the well-known data sets."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curation.sources.files import state
from curation.sources.urls.lists import is_text_list, pages, url_columns
from flywheel.core.errors import UsageError

URL = "https://h.org/{}.jpg"


def rows(path: Path) -> list[dict[str, Any]]:
    return [row for page in pages(state(str(path))) for row in page.to_pylist()]


def table(names: list[str], count: int = 2) -> dict[str, list[Any]]:
    """`count` rows; what looks like a URL column has URLs."""
    made: dict[str, list[Any]] = {}
    for name in names:
        is_url = "url" in name.lower() and "license" not in name.lower()
        made[name] = [URL.format(n) if is_url else f"{name} {n}" for n in range(count)]
    return made


# Columns of the data set, then those that are url, caption and licence.
KNOWN = {
    "laion-2b": (["SAMPLE_ID", "URL", "TEXT", "HEIGHT", "WIDTH", "LICENSE", "NSFW", "similarity"], "URL TEXT LICENSE"),
    "relaion": (
        ["url", "caption", "key", "status", "error_message", "width", "height", "original_width"],
        "url caption",
    ),
    "coyo-700m": (["id", "url", "text", "width", "height", "image_phash", "watermark_score"], "url text"),
    "datacomp": (["uid", "url", "text", "original_width", "clip_b32_similarity_score", "sha256"], "url text"),
    "wit": (["language", "page_url", "image_url", "caption"], "image_url caption"),
    "unsplash": (["photo_id", "photo_url", "photo_image_url", "description"], "photo_image_url description"),
    "licensed": (["Url", "alt_text", "license_url", "consent"], "Url alt_text license_url"),
}


@pytest.mark.parametrize("form", ["parquet", "csv", "tsv", "jsonl", "csv.gz"])
@pytest.mark.parametrize("name", KNOWN)
def test_known_columns_in_every_form(tmp_path: Path, name: str, form: str) -> None:
    names, chosen = KNOWN[name]
    values, path = table(names), tmp_path / f"list.{form}"
    write(path, values)
    columns = url_columns(state(str(path)))
    assert (
        columns is not None
        and [c for c in (columns.url, *columns.captions[:1], columns.license) if c] == chosen.split()
    )
    url, caption, *licence = chosen.split()
    assert [(r["uri"], r["captions"], r["row"], r["fault"]) for r in rows(path)] == [
        (values[url][n], [values[caption][n]], n, None) for n in range(2)
    ]
    assert [r["license"] for r in rows(path)] == (values[licence[0]] if licence else [None, None])


def write(path: Path, values: dict[str, list[Any]]) -> None:
    names = list(values)
    lines = [dict(zip(names, row)) for row in zip(*values.values())]
    if path.suffix == ".parquet":
        pq.write_table(pa.table(values), path)
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    else:
        mark = "\t" if path.suffix == ".tsv" else ","
        text = "\n".join([mark.join(names), *(mark.join(line.values()) for line in lines)]) + "\n"
        path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())


def test_lists_without_a_header(tmp_path: Path) -> None:
    (tmp_path / "cc.tsv").write_text("a very big dog\thttp://h/1.jpg\nhi\thttp://h/2.jpg\n")
    assert [(r["uri"], r["captions"]) for r in rows(tmp_path / "cc.tsv")] == [
        ("http://h/1.jpg", ["a very big dog"]), ("http://h/2.jpg", ["hi"]),
    ]  # fmt: skip
    (tmp_path / "list.txt").write_text(
        "# ours\nhttp://h/1.jpg\n\n  http://h/2.jpg\ta caption\nhttp://h/3.jpg some words\n"
    )
    assert is_text_list(state(str(tmp_path / "list.txt")))  # behind a comment
    (tmp_path / "list.txt").write_text("# ours\nno address\n")
    assert not is_text_list(state(str(tmp_path / "list.txt")))
    (tmp_path / "list.txt").write_text("http://h/1.jpg\n\n  http://h/2.jpg\ta caption\nhttp://h/3.jpg some words\n")
    assert is_text_list(state(str(tmp_path / "list.txt")))
    assert [(r["uri"], r["captions"]) for r in rows(tmp_path / "list.txt")] == [
        ("http://h/1.jpg", []), ("http://h/2.jpg", ["a caption"]), ("http://h/3.jpg", ["some words"]),
    ]  # fmt: skip


@pytest.mark.parametrize(
    "text",
    [
        "url;text\nhttp://h/1;a dog, running\n",
        "sep=;\r\nurl;text\r\nhttp://h/1;a dog, running\r\n",
        "\n\nurl\ttext\n\nhttp://h/1\ta dog, running\n",
        "sep=;\nhttp://h/1;a dog, running\n",
        '\n\nhttp://h/1,"a dog, running"\n',
    ],
)
def test_lists_that_say_their_delimiter(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.csv").write_bytes(text.encode("utf-8-sig"))
    assert [(r["uri"], r["captions"], r["fault"]) for r in rows(tmp_path / "a.csv")] == [
        ("http://h/1", ["a dog, running"], None)
    ]


def test_odd_rows_cost_themselves(tmp_path: Path) -> None:
    csv = b'url,text\nhttp://h/1,fine\nhttp://h/2\n,no url\nhttp://h/4,caf\xe9\n" http://h/5 ","two\nlines"\n'
    (tmp_path / "a.csv").write_bytes(csv)
    found = rows(tmp_path / "a.csv")
    assert [r["fault"] and r["fault"].split()[0] for r in found] == [None, "line", "no", "a", None]
    assert (found[4]["uri"], found[4]["captions"]) == ("http://h/5", ["two\nlines"])
    assert found[2]["uri"] == f"{tmp_path}/a.csv#2" and len({r["uri"] for r in found}) == 5

    (tmp_path / "q.csv").write_bytes(b'url,text\nhttp://h/1,"open\nhttp://h/2,two\nhttp://h/3,"a ""b""" c\n')
    found = rows(tmp_path / "q.csv")
    assert [r["fault"] is None for r in found] == [False, True, True] and "line 2 is not CSV" in found[0]["fault"]
    assert [r["captions"] for r in found[1:]] == [["two"], ['a "b" c']]

    deep = b"[" * 50_000
    lines = [b'{"url": "http://h/1"}', b"[]", b"{", deep, b'{"url": 7}', b'{"url": "http://h/\\ud800"}', b"\xff"]
    (tmp_path / "b.jsonl").write_bytes(b"\n".join(lines))
    assert [r["fault"] is None for r in rows(tmp_path / "b.jsonl")] == [True] + [False] * 6
    long = pa.table({"url": ["http://h/" + "x" * 9000, None, "http://h/3"], "text": [["a", "b"], None, ["c", None]]})
    pq.write_table(long, tmp_path / "c.parquet")
    found = rows(tmp_path / "c.parquet")
    assert [r["fault"] is None for r in found] == [False, False, True] and found[2]["captions"] == ["c"]
    (tmp_path / "d.csv.gz").write_bytes(gzip.compress(b"url\n" + b"http://h/x\n" * 100_000)[:-20])
    assert "compressed data ends" in rows(tmp_path / "d.csv.gz")[-1]["fault"]


def test_what_is_no_list(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("x,y\n1,2\n")
    (tmp_path / "b.jsonl").write_text('{"file": "a.png"}\n')
    pq.write_table(pa.table({"url": ["http://h/1"], "image": [b"picture"]}), tmp_path / "c.parquet")
    for name in ("a.csv", "b.jsonl", "c.parquet", "missing.csv"):
        assert url_columns(state(str(tmp_path / name))) is None, name
    with pytest.raises(UsageError, match="no column of URLs, such as url, image_url"):
        rows(tmp_path / "a.csv")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_lists_as_spreadsheets_write_them(tmp_path: Path, encoding: str) -> None:
    url = URL.format("1;v=2,3")
    texts = {
        "semicolons.csv": f'url;caption\r\n"{url}";"ä, b"\r\n',
        "said.csv": f'sep=;\r\nURL ; Caption\r\n"{url}";"ä, b"\r\n',
        "tabs.csv": f"url\tcaption\n{url}\tä, b\n",
        "tabs.tsv": f"url \tcaption\n{url}\tä, b\n",
        "bare.csv": f'"{url}","ä, b"\n',
        "lines.txt": f"\n# ours\n{url}\tä, b\n",
        "lines.jsonl": json.dumps({"url": url, "caption": "ä, b"}, ensure_ascii=False) + "\r\n",
    }
    for name, text in texts.items():
        (tmp_path / name).write_bytes(text.encode(encoding))
        found = rows(tmp_path / name)
        assert [(r["uri"], r["captions"], r["fault"]) for r in found] == [(url, ["ä, b"], None)], name
    assert is_text_list(state(str(tmp_path / "lines.txt")))


@pytest.mark.parametrize("compress, suffix", [(bz2.compress, "bz2"), (lzma.compress, "xz"), (gzip.compress, "gz")])
def test_compressed_lists(tmp_path: Path, compress: Callable[[bytes], bytes], suffix: str) -> None:
    (tmp_path / f"a.csv.{suffix}").write_bytes(compress(f"url,text\n{URL},x\n".encode()))
    assert [r["captions"] for r in rows(tmp_path / f"a.csv.{suffix}")] == [["x"]]
