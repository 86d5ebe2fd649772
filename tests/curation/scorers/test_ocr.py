"""Text read from drawn cards and pages, and its agreement with the caption."""

from __future__ import annotations

import pytest
from PIL import Image, ImageDraw, ImageFont

from curation.scorers.ocr import Ocr, read_text
from curation.scorers.quotes import quoted_text, text_similarity
from curation.synthesis.canvas import font_path
from flywheel.core.image import BadImage
from flywheel.core.image import turned as turn_by
from flywheel.core.scorer import Item
from tests.curation.corpus import encoded, texture, word
from tests.curation.scorers.examples import row_of


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
        ('a 27" screen beside a 24" one', None),
        ('the 12" record "LOVE" in a 5\'10" frame', "LOVE"),
        ('写着"开放"的门', "开放"),
        ("«Привет» и „Welt“, » Rue « et ‹ x ›", "Привет Welt Rue x"),
        ("《红楼梦》与『鬼滅』〈刃〉", "红楼梦 鬼滅 刃"),
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
        row = row_of("ocr", Item(encoded(word("OPEN", side)), 'a card that says "open"'))
        assert (row["text"], row["quoted"], row["ned"], row["exact"], row["boxes"]) == ("OPEN", "open", 1, True, 1)
        assert 0.05 < row["text_area"] < 0.5 and row["confidence"] > 0.9
    wrong = row_of("ocr", Item(encoded(word("TAXI")), 'a card that says "open"'))
    assert wrong["ned"] < 0.5 and wrong["exact"] is False
    blank = row_of("ocr", Item(encoded(Image.new("RGB", (128, 128), "white")), 'the word "open"'))
    assert (blank["text"], blank["boxes"], blank["confidence"], blank["ned"]) == ("", 0, None, 0)
    other = row_of("ocr", Item(encoded(Image.new("RGB", (128, 128), "white")), "надпись «Годовой отчёт»"))
    assert (other["quoted"], other["ned"], other["exact"]) == ("Годовой отчёт", None, None), "it cannot be read"


def page(lines: tuple[str, ...] = ("open every morning", "fresh bread", "新鲜面包")) -> Image.Image:
    """A landscape page with a few lines of text."""
    font = ImageFont.truetype(font_path("mplfonts:fonts/NotoSansCJKsc-Regular.otf"), 36)
    sheet = Image.new("RGB", (480, 360), (250, 246, 236))
    for n, line in enumerate(lines):
        ImageDraw.Draw(sheet).text((40, 40 + 90 * n), line, font=font, fill=(30, 40, 120))
    return sheet


def test_ocr_describes_lines_and_languages() -> None:
    row = row_of("ocr", Item(encoded(page())))
    assert [line["text"].lower() for line in row["lines"]] == ["open every morning", "fresh bread", "新鲜面包"]
    first = row["lines"][0]
    assert first["x"] == pytest.approx(40 / 480, abs=0.03) and first["height"] * 360 == pytest.approx(40, abs=16)
    assert (row["script"], row["scripts"], row["boxes"]) == ("LATIN", 2, 3)
    assert 24 < row["smallest"] < 60
    small = row_of("ocr", Item(encoded(page().resize((240, 180)))))
    assert small["smallest"] == pytest.approx(row["smallest"] / 2, rel=0.25)
    assert "turn" not in row
    german = row_of("ocr", Item(encoded(page(("frische Brötchen", "jeden Morgen geöffnet")))))
    assert german["language"] == "de"


@pytest.mark.parametrize("degrees", [0, 90, 180, 270])
def test_text_that_lies_is_read_upright(degrees: int) -> None:
    fallen = turn_by(page(), degrees)
    row = row_of("ocr", Item(encoded(fallen), 'a page: "fresh bread"'), turns=True)
    assert row["turn"] == (360 - degrees) % 360
    assert row["turn_doubt"] == pytest.approx(0, abs=0.1) and "fresh bread" in row["text"].lower()
    pair = row_of("ocr", Item(encoded(fallen), "x", "ti2i", (encoded(fallen),)), turns=True)
    assert pair["turn"] is None  # a result is not parted from its reference


def spine(text: str, size: int) -> Image.Image:
    """A title that reads downwards."""
    label = Image.new("RGB", (700, 2 * size), (120, 20, 30))
    ImageDraw.Draw(label).text((20, 10), text, fill="white", font_size=size)
    return turn_by(label, 90)


def test_spines_and_columns_turn_no_picture() -> None:
    upright = texture(4, 900, 1000)
    upright.paste(spine("THE LONG HISTORY OF RIVERS", 40), (300, 40))
    shelf = texture(4, 900, 1000)
    for n, (title, size) in enumerate((("Gardens of the North", 34), ("A Dictionary of Birds", 48), ("Salt", 60))):
        shelf.paste(spine(title, size), (100 + 250 * n, 40 + 110 * n))
    flush = texture(4, 900, 1000)
    for n, ground in enumerate(((20, 60, 120), (30, 90, 50), (90, 60, 20))):
        label = Image.new("RGB", (700, 100), ground)
        ImageDraw.Draw(label).text((20, 20), "THE NIGHT GARDEN", fill="white", font_size=44)
        flush.paste(turn_by(label, 270), (100 + 250 * n, 40))
    columns = Image.new("RGB", (500, 500), (250, 246, 236))
    font = ImageFont.truetype(font_path("mplfonts:fonts/NotoSansCJKsc-Regular.otf"), 48)
    for n, character in enumerate("新鲜面包每天早上开门欢迎光临"):
        ImageDraw.Draw(columns).text((300 - 100 * (n // 7), 40 + 60 * (n % 7)), character, font=font, fill="black")
    for picture in (upright, shelf, flush, columns):
        row = row_of("ocr", Item(encoded(picture)), turns=True)
        assert row["turn"] in (0, None) and not row["turn_doubt"], row["text"]
        assert picture is not flush or row["text"].upper().count("GARDEN") == 3, "read though it stays"


def test_ocr_of_only_quoted() -> None:
    scorer = Ocr(only_quoted=True)
    rows = scorer.score([Item(b"", "no quotes"), Item(b"", 'says "x"')])
    assert set(rows[0].values()) == {None}  # never even opened
    assert isinstance(rows[1], BadImage)
    assert scorer.version != Ocr().version
    assert read_text(word("OPEN").convert("L")).text == "OPEN"
