"""Scorers on pictures whose properties are known."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont
from tokenizers import Tokenizer, models, pre_tokenizers

from curation.scorers import Unavailable, is_configured, load
from curation.scorers.header import jpeg_quality
from curation.scorers.ocr import Ocr, quoted_text, read_text, text_similarity
from curation.scorers.text import words
from curation.synthesis.canvas import font_path
from flywheel.core.errors import UsageError
from flywheel.core.image import BadImage, open_image
from flywheel.core.image import turned as turn_by
from flywheel.core.scorer import Item
from tests.curation.corpus import encoded, texture, turned, word, write_tiny_clip


def one(scorer: str, item: Item, **options: object) -> dict:
    (row,) = load(scorer, **options).score([item])
    assert isinstance(row, dict), row
    return row


# Header --------------------------------------------------------------------------------------------------------------
def test_header_is_upright_and_not_decoded() -> None:
    data = turned(texture(1, 200, 100), 6)
    row = one("header", Item(data[: len(data) // 2]))  # half a file: enough for a header
    assert (row["short_edge"], row["long_edge"], row["aspect"], row["orientation"]) == (100, 200, 0.5, 6)
    assert row["format"] == "JPEG"


@pytest.mark.parametrize("orientation", [9, 255])
def test_orientation_that_exif_does_not_define(orientation: int) -> None:
    assert one("header", Item(turned(texture(1), orientation)))["orientation"] == orientation


def test_no_orientation() -> None:
    assert one("header", Item(encoded(texture(1))))["orientation"] == 1
    assert one("header", Item(turned(texture(1), 0)))["orientation"] == 1


@pytest.mark.parametrize("quality", [15, 50, 75, 95])
def test_jpeg_quality_is_read_from_the_tables(quality: int) -> None:
    assert jpeg_quality(open_image(encoded(texture(1), "JPEG", quality=quality))) == pytest.approx(quality)
    assert jpeg_quality(open_image(encoded(texture(1)))) is None


# Pixels --------------------------------------------------------------------------------------------------------------
def test_pixel_statistics_of_known_pictures() -> None:
    blank = one("pixels", Item(encoded(Image.new("RGB", (64, 64), (200, 200, 200)))))
    assert (blank["entropy"], blank["contrast"], blank["sharpness"], blank["saturation"]) == (0, 0, 0, 0)
    assert blank["luma"] == 200 and blank["grayscale"]
    noise = np.random.default_rng(0).integers(0, 256, (300, 300, 3), dtype=np.uint8)
    assert one("pixels", Item(encoded(Image.fromarray(noise))))["entropy"] > 11
    gray = np.repeat(noise[..., :1], 3, axis=2)
    row = one("pixels", Item(encoded(Image.fromarray(gray))))
    assert row["grayscale"] and row["spatial_entropy"] > 7
    red = one("pixels", Item(encoded(Image.new("RGB", (64, 64), (255, 0, 0)))))
    assert red["saturation"] == 1 and not red["grayscale"]


def test_statistics_are_those_of_the_upright_picture() -> None:
    upright = texture(3, 160, 120)
    raised = one("pixels", Item(turned(upright.transpose(Image.Transpose.ROTATE_90), 6)))
    plain = one("pixels", Item(encoded(upright, "JPEG", quality=92)))
    assert (raised["phash"] ^ plain["phash"]).bit_count() <= 2


def test_truncated_pictures_raise_for_their_own_row() -> None:
    good, jpeg = encoded(texture(1)), encoded(texture(2), "JPEG", quality=95)
    rows = load("pixels").score([Item(good), Item(jpeg[: len(jpeg) // 2]), Item(good[:-300]), Item(good)])
    assert [isinstance(r, BadImage) for r in rows] == [False, True, True, False]
    assert "truncated" in str(rows[1])


# Text ----------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("text", "count"),
    [("", 0), ("a red circle", 3), ("don't stop", 3), ("一只猫", 3), ("a 猫 cat", 3), ("  ... ", 0), ("สวัสดี", 6)],
)
def test_words(text: str, count: int) -> None:
    assert words(text) == count


def test_configured_tokenizer(tmp_path: Path) -> None:
    tokenizer = Tokenizer(models.WordLevel({"a": 0, "[UNK]": 1}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(pattern="", behavior="isolated")
    path = tmp_path / "tokenizer.json"
    tokenizer.save(str(path))
    assert one("text", Item(b"", "abc"), tokenizer=str(path))["token_length"] == 3
    assert load("text", tokenizer=str(path)).version != load("text").version
    with pytest.raises(UsageError, match="does not exist"):
        load("text", tokenizer="/nowhere.json")


# OCR -----------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("caption", "quoted"),
    [
        ('a card with the word "SUN"', "SUN"),
        ("the dog's bone isn't here", None),
        ("dogs' and cats' food", None),
        ("the sign says 'don't walk'", "don't walk"),
        ("“Hola” and ‘x’", "Hola x"),
        ("写着「你好」的牌子", "你好"),
        ('an empty "" quote and "!!"', None),
    ],
)
def test_quoted_text(caption: str, quoted: str | None) -> None:
    assert quoted_text(caption) == quoted


def test_text_similarity_counts_letters_and_digits_of_any_script() -> None:
    assert text_similarity("■ Sun – 24", "SUN24") == 1
    assert text_similarity("नमस्ते", "नमस्त") < 1  # a vowel sign is spelling
    assert text_similarity("CAT", "CAR") == pytest.approx(2 / 3)
    assert text_similarity("", "CAT") == 0


def test_ocr_reads_small_and_large_cards() -> None:
    for side in (64, 128, 400):
        row = one("ocr", Item(encoded(word("OPEN", side)), 'a card that says "open"'))
        assert (row["text"], row["quoted"], row["ned"], row["exact"], row["boxes"]) == ("OPEN", "open", 1, True, 1)
        assert 0.05 < row["text_area"] < 0.5 and row["confidence"] > 0.9
    wrong = one("ocr", Item(encoded(word("TAXI")), 'a card that says "open"'))
    assert wrong["ned"] < 0.5 and wrong["exact"] is False
    blank = one("ocr", Item(encoded(Image.new("RGB", (128, 128), "white")), 'the word "open"'))
    assert (blank["text"], blank["boxes"], blank["confidence"], blank["ned"]) == ("", 0, None, 0)


def page(lines: tuple[str, ...] = ("open every morning", "fresh bread", "新鲜面包")) -> Image.Image:
    """A landscape page with a few lines of text."""
    font = ImageFont.truetype(font_path("mplfonts:fonts/NotoSansCJKsc-Regular.otf"), 36)
    sheet = Image.new("RGB", (480, 360), (250, 246, 236))
    for n, line in enumerate(lines):
        ImageDraw.Draw(sheet).text((40, 40 + 90 * n), line, font=font, fill=(30, 40, 120))
    return sheet


def test_ocr_describes_lines_and_languages() -> None:
    row = one("ocr", Item(encoded(page())))
    assert [line["text"].lower() for line in row["lines"]] == ["open every morning", "fresh bread", "新鲜面包"]
    first = row["lines"][0]
    assert first["x"] == pytest.approx(40 / 480, abs=0.03) and first["height"] * 360 == pytest.approx(40, abs=16)
    assert (row["script"], row["scripts"], row["boxes"]) == ("LATIN", 2, 3)
    assert 24 < row["smallest"] < 60
    small = one("ocr", Item(encoded(page().resize((240, 180)))))
    assert small["smallest"] == pytest.approx(row["smallest"] / 2, rel=0.25)
    assert "turn" not in row
    german = one("ocr", Item(encoded(page(("frische Brötchen", "jeden Morgen geöffnet")))))
    assert german["language"] == "de"


@pytest.mark.parametrize("degrees", [0, 90, 180, 270])
def test_text_that_lies_is_read_upright(degrees: int) -> None:
    fallen = turn_by(page(), degrees)
    row = one("ocr", Item(encoded(fallen), 'a page: "fresh bread"'), turns=True)
    assert row["turn"] == (360 - degrees) % 360
    assert row["turn_doubt"] == pytest.approx(0, abs=0.1) and "fresh bread" in row["text"].lower()
    pair = one("ocr", Item(encoded(fallen), "x", "ti2i", (encoded(fallen),)), turns=True)
    assert pair["turn"] is None  # a result is not parted from its reference


def test_a_label_on_its_side_turns_no_picture() -> None:
    picture = texture(4, 480, 360)
    picture.paste(turn_by(word("EXIT", 120), 90), (300, 100))
    row = one("ocr", Item(encoded(picture)), turns=True)
    assert (row["turn"], row["turn_doubt"]) == (None, None)


def test_ocr_of_only_quoted() -> None:
    scorer = Ocr(only_quoted=True)
    rows = scorer.score([Item(b"", "no quotes"), Item(b"", 'says "x"')])
    assert set(rows[0].values()) == {None}  # never even opened
    assert isinstance(rows[1], BadImage)
    assert scorer.version != Ocr().version
    assert read_text(word("OPEN").convert("L")).text == "OPEN"


# CLIP ----------------------------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def tiny_clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small CLIP with random weights, as a checkpoint on disk: for how weights are loaded, not for what they say."""
    return write_tiny_clip(tmp_path_factory.mktemp("clip"))


def test_clip_scores_with_the_weights_it_was_given(tiny_clip: Path) -> None:
    import open_clip
    import torch

    model, weights = f"local-dir:{tiny_clip}", tiny_clip / "open_clip_pytorch_model.bin"
    scorer = load("clip", model=model, pretrained=str(weights), aesthetic_head=str(tiny_clip / "head.pth"))
    item = Item(encoded(texture(1)), "a cat")
    row, broken, silent = scorer.score([item, Item(b""), Item(encoded(texture(1)))])
    reference, _, preprocess = open_clip.create_model_and_transforms(model)
    reference.eval()
    with torch.no_grad():
        image = reference.encode_image(preprocess(item.upright)[None], normalize=True)[0]
        text = reference.encode_text(open_clip.get_tokenizer(model)(["a cat"]), normalize=True)[0]
    assert row["similarity"] == pytest.approx(float(image @ text), abs=1e-5)
    assert row["aesthetic"] == pytest.approx(float(image.sum()) + 5, abs=1e-4)
    assert all(0 < row[head] < 1 for head in ("nsfw", "watermark", "generated"))
    assert isinstance(broken, BadImage)
    assert silent["similarity"] is None and silent["nsfw"] == pytest.approx(row["nsfw"], abs=1e-5)
    assert "aesthetic" not in [f.name for f in load("clip", model=model, pretrained=str(weights)).fields]


def test_clip_without_weights_is_unavailable() -> None:
    assert not is_configured("clip", {}) and not is_configured("clip", {"model": "ViT-B-32", "pretrained": ""})
    with pytest.raises(Unavailable, match="neither a file nor a hub tag"):
        load("clip", model="ViT-B-32", pretrained="/no/such/checkpoint.bin")
    with pytest.raises(UsageError, match="unknown to open_clip"):
        load("clip", model="ViT-of-nowhere", pretrained="openai")


def test_unknown_scorers_and_options() -> None:
    with pytest.raises(UsageError, match="unknown scorer 'taste'"):
        load("taste")
    with pytest.raises(UsageError, match="does not take these options"):
        load("ocr", speed=9)


def test_an_installed_package_adds_its_scorer_and_replaces_none(tmp_path: Path) -> None:
    info = tmp_path / "mine-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: mine\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[flywheel.scorers]\nbright = mine:Bright\nheader = mine:Bright\n")
    (tmp_path / "mine.py").write_text(
        "import pyarrow as pa\nfrom flywheel.core.schema import column\n"
        "class Bright:\n    name, version, fields = 'bright', '1', (column('mean', pa.float64(), 'mean'),)\n"
    )
    policy = tmp_path / "p.toml"
    policy.write_text("[S1]\nresolutions = [64]\nenters = ['t2i']\n[S1.filters.dark]\nscore = 'bright.mean'\nmin = 9\n")
    code = (
        "from curation.policy.reader import load_policy; from curation.scorers import load, scorer_class;"
        f"assert load_policy({str(policy)!r}).stages[0].filters[0].column == 'bright.mean';"
        "assert type(load('bright')).__module__ == 'mine' and scorer_class('header').__module__ != 'mine'"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), str(Path(__file__).parents[2])])}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment)
