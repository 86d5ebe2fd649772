"""Does the engine see what a person sees? Odd pictures, decoded by ours and by independent readers.

python -m benchmarks.pixels [--only KIND] [--keep FOLDER] [--every]

A browser judges what it reads; littleCMS on plain samples and tifffile judge TIFF; the scene that a file was made from
judges the rest. Compared are the upright size and the pixels (ΔE2000). The last line is one JSON object:
pixel_agreement.files, .sizes_equal (share), .mean_delta_e and .p99_delta_e (the worst file's).
"""

from __future__ import annotations

import argparse
import base64
import io
import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import tifffile
from PIL import Image, ImageCms
from skimage.color import deltaE_ciede2000, rgb2lab

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # this folder holds files named like packages

from benchmarks.browser import CHROMIUM, QUIET
from benchmarks.odd import Case, cases
from flywheel.core.image import BadImage, decode, open_image, upright_size

if TYPE_CHECKING:
    from playwright.sync_api import Page

MEAN_DELTA_E, P99_DELTA_E = 1.0, 3.0  # goals of every file
TYPES = {".jpeg": "image/jpeg", ".png": "image/png", ".webp": "image/webp", ".gif": "image/gif", ".bmp": "image/bmp",
         ".avif": "image/avif"}  # fmt: skip
_DRAW = """async (address) => {
    const image = new Image();
    image.src = address;
    try { await image.decode(); } catch (error) { return null; }
    const canvas = document.createElement("canvas");
    canvas.width = image.naturalWidth;
    canvas.height = image.naturalHeight;
    const context = canvas.getContext("2d");
    context.fillStyle = "white";
    context.fillRect(0, 0, canvas.width, canvas.height);
    context.drawImage(image, 0, 0);
    return canvas.toDataURL("image/png").split(",")[1];
}"""


@dataclass(frozen=True)
class Verdict:
    """How ours and the judge agree on one file. Sizes (width, height); None: not read."""

    case: Case
    ours: tuple[int, int] | None
    judged: tuple[int, int] | None
    mean: float = 0.0
    p99: float = 0.0
    reason: str = ""

    @property
    def sizes_equal(self) -> bool:
        return self.ours == self.judged

    @property
    def passes(self) -> bool:
        return self.sizes_equal and self.mean <= MEAN_DELTA_E and self.p99 <= P99_DELTA_E


@contextmanager
def page() -> Iterator[Page]:
    """A page of a headless browser in which pictures can be drawn."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=[*QUIET, "--force-color-profile=srgb"])
        yield browser.new_page()
        browser.close()


def in_browser(sheet: Page, case: Case) -> Image.Image | None:
    """The file as the browser draws it on white; None where it cannot."""
    kind = TYPES[Path(case.name).suffix]
    drawn = sheet.evaluate(_DRAW, f"data:{kind};base64,{base64.b64encode(case.data).decode()}")
    return Image.open(io.BytesIO(base64.b64decode(drawn))).convert("RGB") if drawn else None


def by_tifffile(data: bytes) -> Image.Image:
    """The first page, its samples scaled by their type, composited on white, converted by littleCMS, upright."""
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        first = file.pages[0]
        samples, tags = first.asarray(), {tag.code: tag.value for tag in first.tags.values()}
    if tags.get(284) == 2 and samples.ndim == 3:
        samples = np.moveaxis(samples, 0, -1)
    if samples.dtype.kind == "f":
        scaled = samples.astype(np.float64) * 255
    else:
        limits = np.iinfo(samples.dtype)
        if samples.dtype == np.uint64:  # made of 8-bit values: the common range that holds them is 0 to 255
            scaled = samples.astype(np.float64)
        else:
            scaled = (samples.astype(np.float64) - limits.min) * 255 / (float(limits.max) - limits.min)
    if tags.get(262) == 0:
        scaled = 255 - scaled
    extra = tags.get(338)
    colors = {0: 1, 1: 1, 2: 3, 5: 4}[tags[262]]
    scaled = scaled.reshape(*scaled.shape[:2], -1)
    color, opacity = scaled[..., :colors], scaled[..., colors:]
    kinds = extra if isinstance(extra, tuple) else (extra,)
    if opacity.size and kinds[0] == 1:
        color = np.where(opacity > 0, color * 255 / np.maximum(opacity, 1e-9), 0)
    picture = Image.fromarray(
        np.round(np.clip(color, 0, 255)).astype(np.uint8).squeeze(), mode="CMYK" if colors == 4 else None
    )
    rgb = np.asarray(converted(picture, tags.get(34675))).astype(np.float64)
    if opacity.size and kinds[0] in (1, 2):
        share = opacity / 255
        rgb = rgb * share + 255 * (1 - share)
    turns = {
        2: "FLIP_LEFT_RIGHT",
        3: "ROTATE_180",
        4: "FLIP_TOP_BOTTOM",
        5: "TRANSPOSE",
        6: "ROTATE_270",
        7: "TRANSVERSE",
        8: "ROTATE_90",
    }
    shown = Image.fromarray(np.round(rgb).astype(np.uint8))
    turn = turns.get(int(tags.get(274, 1)))
    return shown.transpose(Image.Transpose[turn]) if turn else shown


def converted(picture: Image.Image, profile: bytes | None) -> Image.Image:
    """By littleCMS, straight; by Pillow's plain rules where the profile does not fit."""
    try:
        if profile:
            source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
            return ImageCms.profileToProfile(picture, source, ImageCms.createProfile("sRGB"), outputMode="RGB")
    except (ImageCms.PyCMSError, OSError):
        pass
    return picture.convert("RGB")


def judged(sheet: Page, case: Case) -> Image.Image | None:
    """What the judge of this file sees."""
    if case.judge == "browser":
        return in_browser(sheet, case)
    if case.judge == "tifffile":
        return by_tifffile(case.data)
    return case.truth


def compare(case: Case, expected: Image.Image | None) -> Verdict:
    """Ours beside the judge's picture."""
    want = expected.size if expected else None
    try:
        picture = decode(case.data)
    except BadImage as error:
        return Verdict(case, None, want, reason=str(error))
    if upright_size(open_image(case.data)) != picture.size:
        return Verdict(
            case,
            None,
            want,
            reason=f"header {upright_size(open_image(case.data))} is not the picture's size {picture.size}",
        )
    if expected is None or picture.size != expected.size:
        return Verdict(case, picture.size, want)
    one, two = (rgb2lab(np.asarray(p)) for p in (picture, expected))
    difference = deltaE_ciede2000(one, two)
    return Verdict(case, picture.size, want, float(difference.mean()), float(np.percentile(difference, 99)))


def show(verdicts: Sequence[Verdict], *, every: bool) -> None:
    """A line a kind, and one for each file that does not agree."""
    print(f"{'kind':<30}{'files':>6}{'sizes':>7}{'mean':>8}{'p99':>8}")
    for kind in dict.fromkeys(v.case.kind for v in verdicts):
        part = [v for v in verdicts if v.case.kind == kind]
        sizes = sum(v.sizes_equal for v in part)
        print(f"{kind:<30}{len(part):>6}{sizes:>7}{max(v.mean for v in part):>8.2f}{max(v.p99 for v in part):>8.2f}")
        for v in part:
            if every or not v.passes:
                print(
                    f"  {v.case.name:<28} ours {v.ours} judge {v.judged} mean {v.mean:.2f} p99 {v.p99:.2f} {v.reason}"
                )


def main() -> None:
    """Make, decode, judge, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="only kinds whose name contains this")
    parser.add_argument("--keep", type=Path, help="folder to write the files to")
    parser.add_argument("--every", action="store_true", help="a line for every file, not only for those that disagree")
    options = parser.parse_args()
    chosen = [c for c in cases() if options.only in c.kind]
    if options.keep:
        options.keep.mkdir(parents=True, exist_ok=True)
        for case in chosen:
            (options.keep / case.name).write_bytes(case.data)
    with page() as sheet:
        verdicts = [compare(case, judged(sheet, case)) for case in chosen]
    show(verdicts, every=options.every)
    for why in dict.fromkeys(c.why for c in chosen if c.why):
        names = [c.name for c in chosen if c.why == why]
        print(f"judged by their source, not by the browser ({why}): {', '.join(names)}")
    figures = {
        "files": len(verdicts),
        "sizes_equal": sum(v.sizes_equal for v in verdicts) / len(verdicts),
        "mean_delta_e": round(max(v.mean for v in verdicts), 3),
        "p99_delta_e": round(max(v.p99 for v in verdicts), 3),
    }
    print(json.dumps({"pixel_agreement": figures, "disagree": [v.case.name for v in verdicts if not v.passes]}))


if __name__ == "__main__":
    main()
