"""Sound pictures that look empty by their numbers; `benchmarks.empty_frames` has those that are.

Each is a function of a random generator and a photograph (which drawn kinds ignore). Kinds of one name share a maker.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont

Draw = Callable[[np.random.Generator, Image.Image], Image.Image]
RGB = tuple[int, ...]
SIZES = ((1024, 768), (768, 1024), (1280, 720), (900, 900), (640, 480), (1600, 900))
WORDS = (
    "annual report", "thank you", "spring sale", "night market opens", "questions", "agenda", "chapter one", "new",
    "open daily from nine", "growth in every region", "costs were lower than planned", "meet the team", "42", "menu",
    "the river and the sea", "a short history of bread", "next steps", "save the date", "concert on friday", "exit",
)  # fmt: skip
PALE: tuple[RGB, ...] = ((255, 255, 255), (250, 247, 240), (235, 225, 210), (226, 236, 244), (240, 228, 236))
DEEP: tuple[RGB, ...] = ((0, 0, 0), (12, 14, 20), (10, 20, 40), (30, 8, 12), (18, 18, 18))


@lru_cache(maxsize=64)
def font(size: int, bold: bool = False) -> ImageFont.FreeTypeFont:
    """DejaVu Sans, from matplotlib's data."""
    name = "DejaVuSans-Bold" if bold else "DejaVuSans"
    return ImageFont.truetype(f"{matplotlib.get_data_path()}/fonts/ttf/{name}.ttf", size)


def _sheet(rng: np.random.Generator, papers: tuple[RGB, ...]) -> tuple[Image.Image, ImageDraw.ImageDraw]:
    image = Image.new("RGB", SIZES[rng.integers(len(SIZES))], papers[rng.integers(len(papers))])
    return image, ImageDraw.Draw(image)


def _ink(rng: np.random.Generator, paper: RGB, least: int = 90) -> RGB:
    """A colour whose luma differs from the paper's by at least so many levels."""
    luma = np.dot(paper, (0.299, 0.587, 0.114))
    while True:
        colour = rng.integers(0, 256, 3)
        if abs(np.dot(colour, (0.299, 0.587, 0.114)) - luma) >= least:
            return tuple(int(v) for v in colour)


def _phrase(rng: np.random.Generator) -> str:
    text = WORDS[rng.integers(len(WORDS))]
    return text.title() if rng.random() < 0.5 else text.upper() if rng.random() < 0.4 else text


def _place(rng: np.random.Generator, image: Image.Image, low: float = 0.08, high: float = 0.6) -> tuple[float, float]:
    x, y = rng.uniform(low, high, 2)
    return x * image.width, y * image.height


def grained(rng: np.random.Generator, image: Image.Image, deviation: float) -> Image.Image:
    """The picture with normal noise of this deviation, levels, equal in all channels."""
    noise = rng.normal(0, deviation, (image.height, image.width, 1))
    return Image.fromarray(np.clip(np.asarray(image, np.float32) + noise, 0, 255).astype(np.uint8))


# Text ----------------------------------------------------------------------------------------------------------------
def title_slide(rng: np.random.Generator, photo: Image.Image) -> Image.Image:
    """One line of text on a pale or a dark ground, and nothing else."""
    papers = PALE if rng.random() < 0.6 else DEEP
    image, draw = _sheet(rng, papers)
    ink = _ink(rng, image.getpixel((0, 0)), 70)
    draw.text(_place(rng, image, 0.05, 0.4), _phrase(rng), fill=ink, font=font(int(rng.integers(28, 90))))
    return image


def pale_text(rng: np.random.Generator, photo: Image.Image) -> Image.Image:
    """Grey text on white, as designers like it."""
    image, draw = _sheet(rng, PALE[:2])
    tone = (int(rng.integers(110, 175)),) * 3
    draw.text(_place(rng, image, 0.05, 0.4), _phrase(rng), fill=tone, font=font(int(rng.integers(24, 80))))
    return image


def bullet_slide(rng: np.random.Generator, photo: Image.Image) -> Image.Image:
    image, draw = _sheet(rng, PALE)
    ink = _ink(rng, image.getpixel((0, 0)))
    draw.text((60, 40), _phrase(rng), fill=ink, font=font(46, True))
    for line in range(int(rng.integers(2, 7))):
        draw.ellipse([70, 150 + 60 * line, 82, 162 + 60 * line], fill=ink)
        draw.text((100, 138 + 60 * line), _phrase(rng), fill=ink, font=font(28))
    return image


def poster(rng: np.random.Generator, photo: Image.Image) -> Image.Image:
    """Large words on one strong colour, with a band."""
    image, draw = _sheet(rng, (tuple(int(v) for v in rng.integers(0, 256, 3)),))
    ink = _ink(rng, image.getpixel((0, 0)), 80)
    top = int(rng.uniform(0.6, 0.8) * image.height)
    draw.rectangle([0, top, image.width, top + 80], fill=_ink(rng, image.getpixel((0, 0)), 20))
    draw.text((50, image.height * 0.2), _phrase(rng).replace(" ", "\n"), fill=ink, font=font(80, True))
    return image


def page(rng: np.random.Generator, photo: Image.Image) -> Image.Image:
    """A page of small text."""
    image, draw = _sheet(rng, PALE[:3])
    size = int(rng.integers(14, 24))
    for line in range(int(rng.integers(4, image.height // (2 * size) - 2))):
        text = " ".join(WORDS[i] for i in rng.integers(0, len(WORDS), 5))
        draw.text((60, 60 + 2 * size * line), text[: image.width // size], fill=(30, 30, 30), font=font(size))
    return image


def screenshot(rng: np.random.Generator, photo: Image.Image) -> Image.Image:
    dark = rng.random() < 0.5
    paper: RGB = (28, 28, 30) if dark else (246, 246, 248)
    image = Image.new("RGB", SIZES[rng.integers(len(SIZES))], paper)
    draw, faint = ImageDraw.Draw(image), (58, 58, 62) if dark else (214, 214, 220)
    draw.rectangle([0, 0, image.width, 36], fill=faint)
    for n in range(int(rng.integers(3, 9))):
        y = 70 + 60 * n
        draw.rounded_rectangle([30, y, image.width * rng.uniform(0.4, 0.95), y + 44], 8, outline=faint, width=2)
        draw.text((50, y + 10), _phrase(rng), fill=(220, 220, 220) if dark else (40, 40, 40), font=font(18))
    return image


# Marks ---------------------------------------------------------------------------------------------------------------
def logo(rng: np.random.Generator, photo: Image.Image) -> Image.Image:
    """One small flat mark in the middle of an empty sheet."""
    image, draw = _sheet(rng, PALE if rng.random() < 0.7 else DEEP)
    paper = image.getpixel((0, 0))
    ink, side = _ink(rng, paper, 60), rng.uniform(0.05, 0.2) * min(image.size)
    x, y = image.width / 2, image.height / 2
    if rng.random() < 0.5:
        draw.ellipse([x - side, y - side, x + side, y + side], fill=ink)
        draw.rectangle([x - side / 5, y - side / 2, x + side / 5, y + side / 2], fill=paper)
    else:
        angles = np.linspace(0, 2 * np.pi, int(rng.integers(3, 7)), endpoint=False) + rng.uniform(0, 2)
        draw.polygon([(x + side * np.cos(a), y + side * np.sin(a)) for a in angles], fill=ink)
    return image


def line_drawing(rng: np.random.Generator, photo: Image.Image) -> Image.Image:
    """Thin lines and arcs."""
    image, draw = _sheet(rng, PALE[:2])
    ink, width = _ink(rng, (255, 255, 255), 120), int(rng.integers(1, 4))
    for _ in range(int(rng.integers(6, 30))):
        x, y = _place(rng, image, 0, 0.8)
        w, h = rng.uniform(40, 300, 2)
        if rng.random() < 0.6:
            draw.arc([x, y, x + w, y + h], *sorted(rng.uniform(0, 360, 2)), fill=ink, width=width)
        else:
            draw.line([x, y, x + w, y + h * rng.choice([-1, 1])], fill=ink, width=width)
    return image


def pencil_sketch(rng: np.random.Generator, photo: Image.Image) -> Image.Image:
    """The outlines of a photograph in grey on white."""
    gray = photo.convert("L").filter(ImageFilter.GaussianBlur(2))
    dark = np.asarray(gray, np.float32)
    blurred = np.asarray(gray.filter(ImageFilter.GaussianBlur(8)), np.float32)
    return Image.fromarray(np.clip(255 * dark / np.maximum(blurred, 1), 0, 255).astype(np.uint8)).convert("RGB")


def tinted_sketch(rng: np.random.Generator, photo: Image.Image) -> Image.Image:
    """The same in one colour: sepia, blue, green, red."""
    tones = np.asarray(pencil_sketch(rng, photo), np.float32)
    ink = rng.uniform(0, 150, 3)
    ink[int(rng.integers(3))] = rng.uniform(0, 60)
    return Image.fromarray((255 - (255 - tones) * (255 - ink) / 255).astype(np.uint8))


def chalkboard(rng: np.random.Generator, photo: Image.Image) -> Image.Image:
    """Thin pale lines and a formula on dark green, grey or blue."""
    image, draw = _sheet(rng, ((24, 48, 36), (40, 42, 44), (18, 30, 52)))
    chalk = (int(rng.integers(170, 245)),) * 3
    draw.text(_place(rng, image, 0.05, 0.4), "x = a + b / 2", fill=chalk, font=font(int(rng.integers(30, 70))))
    for _ in range(int(rng.integers(1, 8))):
        draw.line([_place(rng, image, 0, 1), _place(rng, image, 0, 1)], fill=chalk, width=2)
    return grained(rng, image, 2)


def sheet_music(rng: np.random.Generator, photo: Image.Image) -> Image.Image:
    """Staves of five thin lines with notes."""
    image, draw = _sheet(rng, PALE[:2])
    for top in range(60, image.height - 120, int(rng.integers(110, 220))):
        for line in range(5):
            draw.line([40, top + 10 * line, image.width - 40, top + 10 * line], fill=(60, 60, 60))
        for x in range(90, image.width - 60, int(rng.integers(40, 120))):
            y = top + 5 * int(rng.integers(0, 9))
            draw.ellipse([x, y, x + 12, y + 9], fill=(20, 20, 20))
            draw.line([x + 12, y + 4, x + 12, y - 28], fill=(20, 20, 20), width=2)
    return image


def pastel_chart(rng: np.random.Generator, photo: Image.Image) -> Image.Image:
    """Bars or slices in three pale colours, and hardly a word."""
    image, draw = _sheet(rng, PALE[:2])
    pale = [tuple(int(v) for v in rng.integers(130, 235, 3)) for _ in range(3)]
    if rng.random() < 0.5:
        box, ends = [image.width // 4, 80, image.width // 4 + 400, 480], np.sort(rng.uniform(0, 360, 2))
        for colour, start, end in zip(pale, (0, *ends), (*ends, 360)):
            draw.pieslice(box, float(start), float(end), fill=colour)
    else:
        for n in range(12):
            x, high = 60 + n * (image.width - 120) / 12, rng.uniform(0.1, 0.7) * image.height
            draw.rectangle([x, image.height - 60 - high, x + 30, image.height - 60], fill=pale[n % 3])
    draw.text((60, 20), _phrase(rng), fill=(120, 120, 120), font=font(24))
    return image


def comic(rng: np.random.Generator, photo: Image.Image) -> Image.Image:
    """Panels with a round face and a bubble of words each."""
    image, draw = _sheet(rng, PALE[:2])
    width, height = image.width // 2 - 40, image.height // 2 - 40
    for x in (20, image.width // 2 + 10):
        for y in (20, image.height // 2 + 10):
            draw.rectangle([x, y, x + width, y + height], outline=(0, 0, 0), width=3)
            r = rng.uniform(20, 60)
            cx, cy = x + rng.uniform(0.3, 0.7) * width, y + 0.7 * height
            draw.ellipse([cx - r, cy - r, cx + r, cy + r], outline=(0, 0, 0), width=3, fill=_ink(rng, (0, 0, 0), 90))
            draw.text((x + 20, y + 20), _phrase(rng)[:14], fill=(0, 0, 0), font=font(20))
    return image


def diagram(rng: np.random.Generator, photo: Image.Image) -> Image.Image:
    """Boxes with names, joined by lines."""
    image, draw = _sheet(rng, PALE)
    ink, before = _ink(rng, image.getpixel((0, 0))), None
    for n in range(int(rng.integers(3, 7))):
        x, y = image.width * (0.05 + 0.13 * n), image.height * rng.uniform(0.1, 0.8)
        if before:
            draw.line([*before, x, y], fill=ink, width=2)
        draw.rectangle([x, y, x + 130, y + 60], outline=ink, width=2, fill=image.getpixel((0, 0)))
        draw.text((x + 8, y + 18), _phrase(rng)[:12], fill=ink, font=font(16))
        before = x + 130, y + 30
    return image


def chart(rng: np.random.Generator, photo: Image.Image) -> Image.Image:
    image, draw = _sheet(rng, PALE)
    left, bottom = 90, image.height - 80
    draw.line([left, 60, left, bottom, image.width - 60, bottom], fill=(60, 60, 60), width=2)
    step, height = (image.width - 200) / 9, bottom - 80
    points = [(left + 20 + k * step, bottom - rng.uniform(0.05, 0.8) * height) for k in range(10)]
    colour = _ink(rng, image.getpixel((0, 0)), 60)
    if rng.random() < 0.5:
        draw.line(points, fill=colour, width=3)
    else:
        for x, y in points:
            draw.rectangle([x, y, x + 24, bottom], fill=colour)
    return image


def qr(rng: np.random.Generator, photo: Image.Image) -> Image.Image:
    """A square of black and white modules on white: random, but in cells that the eye sees."""
    modules = Image.fromarray((rng.integers(0, 2, (25, 25)) * 255).astype(np.uint8))
    image, _ = _sheet(rng, PALE[:1])
    side = int(min(image.size) * rng.uniform(0.3, 0.8))
    image.paste(modules.resize((side, side), Image.Resampling.NEAREST), (image.width // 8, image.height // 10))
    return image


# Photographs of little light, or of much ----------------------------------------------------------------------------
def moon(rng: np.random.Generator, photo: Image.Image) -> Image.Image:
    image, draw = _sheet(rng, DEEP[:3])
    r, (x, y) = rng.uniform(0.02, 0.15) * min(image.size), _place(rng, image, 0.2, 0.7)
    draw.ellipse([x, y, x + 2 * r, y + 2 * r], fill=tuple(int(v) for v in rng.integers(150, 256, 1).repeat(3)))
    if rng.random() < 0.5:  # a crescent
        draw.ellipse([x + r * 0.5, y - r * 0.1, x + 2.5 * r, y + 1.9 * r], fill=image.getpixel((0, 0)))
    return grained(rng, image.filter(ImageFilter.GaussianBlur(1)), 2)


def stars(rng: np.random.Generator, photo: Image.Image) -> Image.Image:
    image, draw = _sheet(rng, DEEP[:3])
    for _ in range(int(rng.integers(60, 500))):
        (x, y), r = _place(rng, image, 0, 1), rng.uniform(0.7, 2.6)
        draw.ellipse([x - r, y - r, x + r, y + r], fill=tuple(int(v) for v in rng.integers(120, 256, 1).repeat(3)))
    return grained(rng, image.filter(ImageFilter.GaussianBlur(0.6)), 2)


def night(rng: np.random.Generator, photo: Image.Image) -> Image.Image:
    """A fifth of the light, cold, with a few lamps."""
    pixels = np.asarray(photo, np.float32) * rng.uniform(0.16, 0.3) * np.array([0.8, 0.9, 1.15])
    image = Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))
    glow = Image.new("L", image.size)
    for _ in range(int(rng.integers(1, 8))):
        (x, y), r = _place(rng, image, 0.05, 0.95), min(image.size) * rng.uniform(0.004, 0.02)
        ImageDraw.Draw(glow).ellipse([x - r, y - r, x + r, y + r], fill=255)
    soft = Image.fromarray(np.maximum(np.asarray(glow), np.asarray(glow.filter(ImageFilter.GaussianBlur(9)))))
    return grained(rng, Image.composite(Image.new("RGB", image.size, (255, 225, 160)), image, soft), 3)


def silhouette(rng: np.random.Generator, photo: Image.Image) -> Image.Image:
    """A dim evening sky behind a black ridge."""
    width, height = SIZES[rng.integers(len(SIZES))]
    top, low = rng.uniform(8, 30), rng.uniform(70, 140)
    sky = np.linspace(top, low, height)[:, None, None] * np.array([1.0, 0.62, 0.5])
    pixels = np.broadcast_to(sky, (height, width, 3)).copy()
    ridge = height * (0.65 + 0.08 * np.sin(np.linspace(0, rng.uniform(4, 14), width) + rng.uniform(0, 6)))
    pixels[np.arange(height)[:, None] > ridge[None]] = 4
    return grained(rng, Image.fromarray(pixels.astype(np.uint8)), 2)


def fog(rng: np.random.Generator, photo: Image.Image) -> Image.Image:
    """A photograph behind a white veil that thickens towards the top."""
    pixels = np.asarray(photo, np.float32)
    veil = np.linspace(rng.uniform(0.8, 0.92), rng.uniform(0.45, 0.7), len(pixels))[:, None, None]
    return grained(rng, Image.fromarray((pixels * (1 - veil) + rng.uniform(190, 235) * veil).astype(np.uint8)), 2)


def snow(rng: np.random.Generator, photo: Image.Image) -> Image.Image:
    """Bright and pale, with dark trees left."""
    pixels = np.asarray(photo.convert("L"), np.float32)[..., None]
    bright = 255 - (255 - pixels) * rng.uniform(0.25, 0.5)
    out = Image.fromarray(np.clip(bright * np.array([0.97, 0.985, 1.0]), 0, 255).astype(np.uint8))
    draw = ImageDraw.Draw(out)
    for _ in range(int(rng.integers(2, 9))):
        x, y = _place(rng, out, 0.05, 0.9)
        trunk = [x, y, x + rng.uniform(-6, 6), y + out.height * 0.1]
        draw.line(trunk, fill=(70, 66, 64), width=max(1, out.width // 200))
    return grained(rng, out, 2)


def high_key(rng: np.random.Generator, photo: Image.Image) -> Image.Image:
    """A thing on a white studio ground, its lights burnt."""
    scale = rng.uniform(0.3, 0.6)
    small = photo.resize((int(photo.width * scale), int(photo.height * scale)))
    pixels = np.asarray(small, np.float32) * rng.uniform(1.1, 1.5) + 20
    gained = Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))
    mask = Image.new("L", small.size)
    ImageDraw.Draw(mask).ellipse([0, 0, small.width, small.height], fill=255)
    out = Image.new("RGB", photo.size, (253, 253, 253))
    out.paste(gained, (photo.width // 4, photo.height // 4), mask.filter(ImageFilter.GaussianBlur(3)))
    return out


def plain(rng: np.random.Generator, photo: Image.Image) -> Image.Image:
    """A photograph as it is."""
    return photo


SOUND: dict[str, Draw] = {
    f.__name__: f
    for f in (title_slide, pale_text, bullet_slide, poster, page, screenshot, logo, line_drawing, pencil_sketch,
              tinted_sketch, chalkboard, sheet_music, pastel_chart, comic, diagram, chart, qr, moon, stars, night,
              silhouette, fog, snow, high_key, plain)
}  # fmt: skip


def scenes(count: int) -> list[Image.Image]:
    """Stand-ins where there are no photographs: rough hills, trees and stones under a shaded sky, with grain."""
    return [_scene(np.random.default_rng(seed)) for seed in range(count)]


def _scene(rng: np.random.Generator) -> Image.Image:
    width, height = (640, 480) if rng.random() < 0.6 else (480, 640)
    sky = np.linspace(rng.uniform(90, 160), rng.uniform(170, 240), height)[:, None, None] * rng.uniform(0.7, 1.0, 3)
    image = Image.fromarray(np.broadcast_to(sky, (height, width, 3)).clip(0, 255).astype(np.uint8))
    draw = ImageDraw.Draw(image)
    for layer in range(3):
        steps = rng.normal(0, 3, width).cumsum()
        line = height * (0.4 + 0.18 * layer) + steps - np.linspace(0, steps[-1], width)
        tone = tuple(int(v) for v in rng.uniform(20, 170, 3))
        draw.polygon([(0, height), *((x, float(y)) for x, y in enumerate(line)), (width, height)], fill=tone)
    for _ in range(int(rng.integers(10, 60))):
        x, y, r = rng.uniform(0, width), rng.uniform(0.4, 1) * height, rng.uniform(3, 40)
        draw.ellipse([x, y, x + r, y + r * rng.uniform(0.4, 2)], fill=tuple(int(v) for v in rng.integers(0, 256, 3)))
    return grained(rng, image, 5)
