"""`flywheel inspect`: what the engine sees in one file, and in a source."""

import json
from pathlib import Path

import numpy as np
from click.testing import Result
from PIL import Image
from typer.testing import CliRunner

from flywheel.cli.main import app
from flywheel.core.image import decode
from tests.curation.sources.kinds import write_kinds
from tests.flywheel.cli.command import wrong
from tests.flywheel.core.pictures import SIZE, exif, saved, scene


def ask(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["inspect", *map(str, arguments)])


def test_a_description_and_the_decoded_picture(tmp_path: Path):
    file, shown = tmp_path / "turned.tif", tmp_path / "shown.png"
    file.write_bytes(saved(scene(), "TIFF", exif=exif(6)))
    answer = ask(file, "--json", "--pixels", shown)
    assert answer.exit_code == 0, answer.output
    about = json.loads(answer.stdout)
    assert (about["format"], about["size"], about["stored_size"]) == ("TIFF", [*SIZE[::-1]], [*SIZE])
    assert (about["orientation"], about["orientation_from"], about["depth"], about["alpha"]) == (6, "tiff", 8, False)
    assert (about["profile"], about["frames"], about["frame"], about["damage"]) == ("", 1, 0, "")
    assert np.array_equal(np.asarray(Image.open(shown)), np.asarray(decode(file.read_bytes())))
    plain = ask(file).stdout
    assert "40x64" in plain and "orientation from  tiff" in plain and "alpha" in plain


def test_what_the_text_rules_make_of_a_caption(tmp_path: Path):
    file = tmp_path / "a.png"
    file.write_bytes(saved(scene(), "PNG"))
    columns = json.loads(ask(file, "--json", "--caption", 'a sign that says "OPEN"').stdout)["caption"]
    assert (
        columns["text.token_length"] == 5 and columns["caption.kind"] == "text" and columns["caption.invalid"] is False
    )
    assert "caption.kind" in ask(file, "--caption", "a boat").stdout


def test_damaged_and_refused_files_end_with_exit_code_2(tmp_path: Path):
    damaged, refused = tmp_path / "damaged.jpg", tmp_path / "drawing.eps"
    data = saved(scene().resize((400, 300)), "JPEG")
    damaged.write_bytes(data[: len(data) // 2] + b"\xff\xd9")
    refused.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n")
    shown = tmp_path / "shown.png"
    answer = ask(damaged, "--json", "--pixels", shown)
    assert answer.exit_code == 2 and not shown.exists()
    assert json.loads(answer.stdout)["size"] == [400, 300] and "premature end" in json.loads(answer.stdout)["damage"]
    answer = ask(refused)
    assert answer.exit_code == 2 and "EPS files are not accepted" in answer.stdout


def test_a_file_that_is_missing_and_a_place_that_cannot_be_written(tmp_path: Path):
    assert "does not exist: pass a file" in wrong("inspect", tmp_path / "none.png")
    assert "cannot be read" in wrong("inspect", tmp_path / "none.png", "--pixels", tmp_path / "b.png")
    file = tmp_path / "a.png"
    file.write_bytes(saved(scene(), "PNG"))
    assert "cannot be written" in wrong("inspect", file, "--pixels", tmp_path / "nowhere" / "b.png")


def test_a_source(tmp_path: Path):
    """Kinds, columns with the reason, counts, first rows, and what is not understood; for people and as JSON."""
    write_kinds(tmp_path / "in")
    (tmp_path / "in" / "notes.xyz").write_text("not a picture")
    answer = ask(tmp_path / "in", "--json")
    assert answer.exit_code == 0, answer.output
    found = json.loads(answer.stdout)
    parts = {p["kind"]: p for p in found["parts"]}
    assert set(parts) == {"folder", "tar", "parquet", "zip"} and found["whole"] is True
    assert parts["parquet"]["rows"] == 12 and ["image", "image", "by its name"] in parts["parquet"]["columns"]
    assert parts["parquet"]["first"][0]["picture"].startswith("PNG 48x40")
    assert any(name == "tars/00000.parquet" for name, _ in found["left_out"])
    plain = ask(tmp_path / "in", "--rows", 1).stdout
    assert "parquet: 4 files" in plain and "image: column 'image', by its name" in plain and "left out:" in plain
    assert plain.count("picture=") == 4
    urls = tmp_path / "list.csv"
    urls.write_text("URL,TEXT,sim\nhttp://h.org/a,x,1\n")
    plain = ask(urls).stdout
    assert "url: column 'URL', by its name" in plain and "not read: sim" in plain and "h.org (1)" in plain
    assert "holds no files" in wrong("inspect", make(tmp_path / "empty"))


def make(folder: Path) -> Path:
    folder.mkdir()
    return folder


def test_options_of_a_picture_and_of_a_source(tmp_path: Path):
    file, captions = tmp_path / "a.png", tmp_path / "c.jsonl"
    file.write_bytes(saved(scene(), "PNG"))
    captions.write_text('{"file": "a.png", "caption": "two colours"}\n')
    told = json.loads(ask(file, "--captions", captions, "--json").stdout)
    assert told["parts"][0]["first"][0]["caption"] == "two colours"
    for options in (
        (tmp_path, "--caption", "x"),
        (tmp_path, "--pixels", tmp_path / "p.png"),
        (file, "--caption", "x", "--captions", captions),
    ):
        assert "are for one image file" in wrong("inspect", *options)
