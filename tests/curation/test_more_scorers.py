"""Detail, caption, face and faint edits: planted cases."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFilter, ImageOps

from curation.scorers import load
from curation.scorers.detail import bandwidth
from curation.scorers.pixels import blockiness, border
from curation.synthesis.photos import OPERATIONS
from flywheel.core.image import BadImage
from flywheel.core.scorer import Item
from tests.curation.corpus import encoded, texture


def one(scorer: str, item: Item, **options: object) -> dict:
    (row,) = load(scorer, **options).score([item])
    assert isinstance(row, dict), row
    assert row.keys() == {f.name for f in load(scorer, **options).fields}
    return row


def scene(seed: int, side: int = 512) -> Image.Image:
    """Hundreds of hard-edged shapes of every size under a little grain: a spectrum like a photograph's."""
    rng = np.random.default_rng(seed)
    picture = Image.new("RGB", (side, side), tuple(rng.integers(0, 256, 3).tolist()))
    draw = ImageDraw.Draw(picture)
    for _ in range(500):
        x, y, size = rng.integers(0, side), rng.integers(0, side), side * 0.25 * rng.random() ** 3 + 2
        draw.ellipse((x, y, x + size, y + size * 0.7), fill=tuple(rng.integers(0, 256, 3).tolist()))
    grain = rng.normal(0, 2, (side, side, 1))
    return Image.fromarray(np.clip(np.asarray(picture) + grain, 0, 255).astype(np.uint8))


# Detail --------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("kernel", [Image.Resampling.BILINEAR, Image.Resampling.BICUBIC, Image.Resampling.LANCZOS])
def test_enlarged_pictures_have_a_narrow_band(kernel: Image.Resampling) -> None:
    small = scene(1)
    native = one("detail", Item(encoded(small, "JPEG", quality=92)))
    assert native["bandwidth"] > 0.7 and native["native_edge"] > 360
    large = one("detail", Item(encoded(small.resize((2048, 2048), kernel), "JPEG", quality=92)))
    assert large["bandwidth"] < 0.35 and large["native_edge"] < 720
    twice = one("detail", Item(encoded(small.resize((1024, 1024), kernel), "JPEG", quality=92)))
    assert large["bandwidth"] < twice["bandwidth"] < native["bandwidth"]


def test_bandwidth_of_nothing() -> None:
    assert bandwidth(np.full((64, 64), 9, np.uint8)) is None
    assert bandwidth(np.zeros((8, 300), np.uint8)) is None


def test_blockiness_outlives_the_quantisation_table() -> None:
    sharp = scene(2)
    worn = Image.open(io.BytesIO(encoded(sharp, "JPEG", quality=8)))
    clean, blocky = (one("pixels", Item(encoded(p)))["blockiness"] for p in (sharp, worn))
    assert clean < 1.1 < 1.25 < blocky
    cropped = np.asarray(worn.convert("L"))[3:, 5:]  # the grid is found where a crop has moved it
    assert blockiness(cropped) > 1.25


def test_border_is_the_area_outside_the_picture() -> None:
    framed = Image.new("RGB", (400, 400), "black")
    framed.paste(texture(3, 400, 300), (0, 50))
    assert one("pixels", Item(encoded(framed)))["border"] == pytest.approx(0.25, abs=0.01)
    assert one("pixels", Item(encoded(texture(3, 400, 300))))["border"] == 0
    assert border(np.zeros((50, 50), np.uint8)) == 1


def test_texture_is_the_share_of_cells_that_have_some() -> None:
    half = Image.new("RGB", (256, 256), (90, 120, 160))
    half.paste(scene(4, 256).crop((0, 0, 128, 256)), (0, 0))
    assert one("pixels", Item(encoded(half)))["texture"] == pytest.approx(0.5, abs=0.06)


def test_small_pictures_are_not_decoded_where_only_large_ones_matter() -> None:
    data = encoded(scene(5, 128), "JPEG")
    cut = data[: len(data) // 2]
    assert set(one("detail", Item(cut), min_edge=200).values()) == {None}
    (row,) = load("detail").score([Item(cut)])
    assert isinstance(row, BadImage)
    assert load("detail", min_edge=200).version != load("detail").version


# Exposure ------------------------------------------------------------------------------------------------------------
def test_black_frames_and_washed_out_pictures_but_not_night_and_plain_ground() -> None:
    day = scene(10, 256)
    black = day.point(lambda v: v // 12)
    washed = day.point(lambda v: min(255, 128 + v * 4))
    night = black.copy()
    night.paste(day.crop((100, 100, 150, 150)), (100, 100))  # one lit window
    on_white = Image.new("RGB", (256, 256), "white")
    on_white.paste(day.crop((0, 0, 140, 140)), (58, 58))
    pictures = {"day": day, "black": black, "washed": washed, "night": night, "on_white": on_white}
    light = {name: one("exposure", Item(encoded(p))) for name, p in pictures.items()}
    assert light["black"]["lights"] < 30 < 60 < min(light["day"]["lights"], light["night"]["lights"])
    assert light["washed"]["shadows"] > 126 > 110 > max(light["day"]["shadows"], light["on_white"]["shadows"])


def test_bars_are_not_plain_ground() -> None:
    framed = Image.new("RGB", (320, 400), "black")
    framed.paste(scene(11, 320).crop((0, 0, 320, 300)), (0, 50))
    assert one("exposure", Item(encoded(framed, "JPEG", quality=92)))["bars"] == pytest.approx(0.25, abs=0.02)
    thing = Image.new("RGB", (320, 400), "white")
    thing.paste(scene(11, 100), (110, 150))
    assert one("exposure", Item(encoded(thing)))["bars"] == 0
    assert one("exposure", Item(encoded(Image.new("RGB", (64, 64)))))["bars"] == 0


# Caption -------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("caption", "why"),
    [
        ("I'm sorry, but I can't help with that.", "refusal"),
        ("As an AI language model, I have no access to images.", "refusal"),
        ("I cannot describe the people in this image", "refusal"),
        ("抱歉，我无法描述这张图片", "refusal"),
        ("Image may contain: outdoor, tree", "boilerplate"),
        ("DSC_0042.JPG", "boilerplate"),
        ("IMG 1234", "boilerplate"),
        ("a red chair <br> buy it", "boilerplate"),
        ("red chair, add to cart, free shipping", "boilerplate"),
        ("see more at https://example.org/x?y=1", "urls"),
        ("lovely chairs on www.chairs.example", "urls"),
        ("cat cat cat cat", "repeated"),
        ("a man in a hat and " * 8, "repeated"),
        ("!!! 1234 ---", "script"),
    ],
)
def test_captions_that_describe_nothing(caption: str, why: str) -> None:
    row = one("caption", Item(b"", caption))
    assert row["invalid"]
    assert (row[why] is None) if why == "script" else row[why]


@pytest.mark.parametrize(
    ("caption", "kind", "script"),
    [
        ("a photo of a tench", "general", "LATIN"),
        ("a dog that cannot help itself, sorry to say, chasing a cat", "general", "LATIN"),
        ("a sign that says 'do not sign up'", "text", "LATIN"),
        ('a poster with the words "BIG SALE"', "text", "LATIN"),
        ("a flowchart of the login process, boxes connected by arrows", "structured", "LATIN"),
        ("the Eiffel Tower, built in 1889, at night", "knowledge", "LATIN"),
        ("一只猫坐在椅子上", "general", "CJK"),
        ("写着「你好」的牌子", "text", "CJK"),
        ("красный круг на столе", "general", "CYRILLIC"),
        ("make the red square blue", "general", "LATIN"),
    ],
)
def test_kind_and_script_of_sound_captions(caption: str, kind: str, script: str) -> None:
    row = one("caption", Item(b"", caption))
    assert (row["kind"], row["script"]) == (kind, script)
    assert not row["invalid"]


def test_an_empty_caption_is_not_invalid_but_empty() -> None:
    row = one("caption", Item(b"", "  "))
    assert (row["invalid"], row["kind"], row["script"], row["scripts"]) == (False, None, None, 0)
    assert one("caption", Item(b"", "кот и cat"))["scripts"] == 2


# Faces ---------------------------------------------------------------------------------------------------------------
def portrait(side: int = 400, blur: float = 0) -> Image.Image:
    """A drawn head: skin, shaded eyes with brows, nose and mouth; what a cascade of contrasts answers to."""
    picture = Image.new("L", (side, side), 90)
    draw = ImageDraw.Draw(picture)
    u = side / 100
    draw.ellipse((25 * u, 12 * u, 75 * u, 90 * u), fill=200)
    for x in (39, 61):
        draw.ellipse(((x - 8) * u, 37 * u, (x + 8) * u, 47 * u), fill=110)
        draw.ellipse(((x - 3) * u, 39 * u, (x + 3) * u, 45 * u), fill=20)
        draw.rectangle(((x - 8) * u, 33 * u, (x + 8) * u, 35 * u), fill=60)
    draw.rectangle((48 * u, 40 * u, 52 * u, 60 * u), fill=225)
    draw.ellipse((45 * u, 58 * u, 55 * u, 63 * u), fill=150)
    draw.ellipse((39 * u, 70 * u, 61 * u, 76 * u), fill=90)
    return picture.convert("RGB").filter(ImageFilter.GaussianBlur(1 + blur))


def test_faces_are_counted_and_measured() -> None:
    sharp, soft = (one("face", Item(encoded(portrait(blur=b)))) for b in (0, 5))
    assert sharp["count"] == soft["count"] == 1
    assert 0.35 < sharp["largest"] < 0.9
    assert soft["sharpness"] < sharp["sharpness"] / 2
    two = Image.new("RGB", (800, 400))
    two.paste(portrait(), (0, 0))
    two.paste(portrait(), (400, 0))
    assert one("face", Item(encoded(two)))["count"] == 2
    assert one("face", Item(encoded(scene(6)))) == {"count": 0, "largest": None, "sharpness": None}
    assert isinstance(load("face").score([Item(b"")])[0], BadImage)


# Edits ---------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda o: o.name)
def test_faint_edits_change_more_than_encoding_again(operation: object) -> None:
    before = scene(7, 300)
    plain = encoded(before)
    edited = one("similarity", Item(encoded(operation.apply(before)), "x", "ti2i", (plain,)))
    again = one("similarity", Item(encoded(before, "JPEG", quality=85), "x", "ti2i", (plain,)))
    assert edited["largest_change"] > 4.5 > again["largest_change"]
    assert one("similarity", Item(plain, "x", "ti2i", (plain,)))["largest_change"] == 0
    assert one("similarity", Item(plain))["largest_change"] is None


def test_a_tint_of_the_whole_picture_is_a_shift_of_color_and_an_edit_of_a_part_is_none() -> None:
    before = scene(7, 256)
    warm = Image.fromarray(np.clip(np.asarray(before) * (1.15, 1.0, 0.8), 0, 255).astype(np.uint8))
    part = before.copy()
    part.paste((255, 0, 0), (0, 0, 128, 192))
    assert edge(before, warm)["color_shift"] > 5
    assert edge(before, part)["color_shift"] == 0
    several = Item(encoded(before), "x", "ti2i", (encoded(before), encoded(part)))
    assert one("similarity", several)["color_shift"] is None


def edge(before: Image.Image, after: Image.Image) -> dict:
    return one("similarity", Item(encoded(after), "x", "ti2i", (encoded(before),)))


def test_an_edit_is_related_to_its_reference_and_another_picture_is_not() -> None:
    before, other = scene(8, 320), scene(9, 320)
    other_background = other.copy()
    other_background.paste(before.crop((80, 60, 240, 300)), (80, 60))
    larger = other.resize((400, 400))
    larger.paste(before, (40, 40))
    for after in (before.convert("L").convert("RGB"), ImageOps.posterize(before, 2), other_background, larger):
        assert edge(before, after)["related"] > 0.6
    assert edge(before, other)["related"] < 0.55
    assert edge(Image.new("RGB", (99, 99), "red"), before)["related"] is None  # no edges: nothing to agree in
    several = Item(encoded(before), "x", "ti2i", (encoded(other), encoded(before)))
    assert one("similarity", several)["related"] is None


def test_change_of_aspect() -> None:
    before = scene(8, 320)
    assert edge(before, before.resize((640, 640)))["aspect_change"] == 0
    assert edge(before, before.crop((0, 0, 320, 160)))["aspect_change"] == pytest.approx(np.log(2))
