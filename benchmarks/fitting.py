"""How long a training row's pictures take, and what is lost to a full decode and Lanczos.

python -m benchmarks.fitting [--photos DIR] [--pixels 1000000]

Each photograph, enlarged to `--pixels`, is fitted to a square of 256 and of 512 pixels: by `curation.shards.fit`, which
decodes to a reduced scale where that suffices, and by decoding all of it and Lanczos. Compared are the pictures before
they are encoded again; `jpeg` is what that encoding loses, for scale.

fit_ms: CPU-milliseconds of a picture in both buckets, encoding included. fit_psnr, fit_ssim: of the pictures that were
decoded to a reduced scale, the least that one in a hundred falls below. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import io
import json
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.end_to_end import PHOTOS
from curation.scorers.similarity import ssim, to_lab
from curation.shards.fit import fit
from flywheel.core.image import decode, decode_fitted, fitted

SIDES = (256, 512)


def enlarged(path: Path, pixels: int) -> bytes:
    """The photograph as a JPEG of so many pixels."""
    with Image.open(path) as picture:
        scale = (pixels / (picture.width * picture.height)) ** 0.5
        size = round(picture.width * scale), round(picture.height * scale)
        out = io.BytesIO()
        picture.convert("RGB").resize(size, Image.Resampling.BICUBIC).save(out, "JPEG", quality=92)
    return out.getvalue()


def full(data: bytes, side: int) -> Image.Image:
    """All of it decoded, then scaled by Lanczos."""
    return fitted(decode(data), side, side)


def again(picture: Image.Image) -> Image.Image:
    """The picture once it was encoded as a training row's."""
    out = io.BytesIO()
    picture.save(out, "JPEG", quality=95, subsampling=0)
    return Image.open(out).convert("RGB")


def fully(data: bytes, side: int) -> Image.Image:
    """`full`, encoded."""
    return again(full(data, side))


def likeness(a: Image.Image, b: Image.Image) -> tuple[float, float]:
    """(PSNR in decibels, at most 99; mean SSIM of lightness) of two pictures of one size."""
    one, two = np.asarray(a), np.asarray(b)
    error = float(np.mean((one.astype(float) - two) ** 2))
    return min(99.0, 10 * np.log10(255**2 / max(error, 1e-9))), float(
        ssim(to_lab(one)[..., 0], to_lab(two)[..., 0]).mean()
    )


def seconds(files: Sequence[bytes], make: Callable[[bytes], object]) -> float:
    """CPU-seconds of each."""
    began = time.process_time()
    for data in files:
        make(data)
    return (time.process_time() - began) / len(files)


def main() -> None:
    """Print a table of both sides, then the figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path, default=PHOTOS)
    parser.add_argument("--pixels", type=int, default=1_000_000)
    options = parser.parse_args()
    files = [enlarged(path, options.pixels) for path in sorted(options.photos.glob("*.jpg"))]
    took, worst = 0.0, []
    print("side  fit ms  full ms  reduced  PSNR mean, 1%  SSIM mean, 1%   jpeg: PSNR, SSIM")
    for side in SIDES:
        fit_s = seconds(files, partial(fit, width=side, height=side))
        full_s = seconds(files, partial(fully, side=side))
        wholes = [full(data, side) for data in files]
        pairs = [likeness(whole, decode_fitted(data, side, side)) for data, whole in zip(files, wholes)]
        reduced = np.array([p for p in pairs if p[0] < 99.0]).reshape(-1, 2)
        jpeg = np.array([likeness(whole, again(whole)) for whole in wholes])
        low, mean = (np.quantile(reduced, 0.01, 0), reduced.mean(0)) if len(reduced) else (np.full(2, np.nan),) * 2
        took += fit_s
        worst += [low] if len(reduced) else []
        print(
            f"{side:4} {1000 * fit_s:7.1f} {1000 * full_s:8.1f} {len(reduced):5}/{len(files)}"
            f" {mean[0]:8.1f} {low[0]:5.1f} {mean[1]:8.4f} {low[1]:.4f}"
            f" {jpeg[:, 0].mean():10.1f} {jpeg[:, 1].mean():.4f} (1%: {np.quantile(jpeg[:, 0], 0.01):.1f})"
        )
    psnr, similar = np.min(worst, axis=0)
    print(json.dumps({"fit_ms": round(1000 * took, 1), "fit_psnr": round(psnr, 1), "fit_ssim": round(similar, 4)}))


if __name__ == "__main__":
    main()
