"""TIFF samples that Pillow reads wrongly or not at all: whole, signed and float, of 16 to 64 bits, in any layout.

tifffile reads the samples; here they are scaled to 8 bits and become an ordinary Pillow image.
"""

from __future__ import annotations

import io
import logging

import numpy as np
import tifffile
from PIL import Image, ImageFile

from flywheel.core.samples import TURNS, scaled

ORIENTATION = 0x0112
logging.getLogger("tifffile").addHandler(logging.NullHandler())  # what it says of damage comes as `BadImage`

_PROFILE = 34675  # tag
_ASSOCIATED = 1  # colours are multiplied by their alpha
_ALPHAS = (_ASSOCIATED, 2)
_WHITE_IS_ZERO = 0
_COLORS = {0: 1, 1: 1, 2: 3, 5: 4}  # photometric interpretation → channels of colour
_BYTES = (1, 2, 4, 8)  # of a sample


def deep_tiff(data: bytes) -> DeepTiff | None:
    """The opened file; None for one that is left to Pillow."""
    try:
        return DeepTiff(io.BytesIO(data))
    except Exception:  # noqa: BLE001 - whatever is wrong with the file, Pillow says it
        return None


class DeepTiff(ImageFile.ImageFile):
    """A TIFF of samples that are not plain bytes, as an upright Pillow image of 8 bits: L, LA, RGB, RGBA or CMYK.

    Errors on opening: `ValueError` for a file that Pillow reads as well, or that tifffile cannot read here.
    """

    format = "TIFF"
    format_description = "TIFF of deep samples"

    def _open(self) -> None:
        assert self.fp is not None
        self._data = self.fp.read()
        with tifffile.TiffFile(io.BytesIO(self._data)) as file:
            pages = list(file.pages)
        self._pages = [page for page in pages if isinstance(page, tifffile.TiffPage)]
        self._require_deep(self._pages[0])
        self.n_frames = len(self._pages)
        self._show(0)

    def _require_deep(self, page: tifffile.TiffPage) -> None:
        kind = page.dtype
        if kind is None or kind.kind not in "uif" or kind == np.uint8 or page.photometric not in _COLORS:
            raise ValueError("samples for Pillow")
        if page.bitspersample != 8 * kind.itemsize or kind.itemsize not in _BYTES:
            raise ValueError("samples of odd width, for Pillow")
        if page.compression not in tifffile.TIFF.DECOMPRESSORS:
            raise ValueError(f"compression {page.compression} needs the package imagecodecs")

    def _show(self, number: int) -> None:
        """Make page `number` the current picture, not yet decoded."""
        page = self._pages[number]
        turn = page.tags.get(ORIENTATION)
        self._page, self._number, self._turn = page, number, int(turn.value) if turn else 1
        size = (page.imagewidth, page.imagelength)
        self._size = size[::-1] if self._turn in (5, 6, 7, 8) else size
        colors = _COLORS[page.photometric]
        self._alpha = page.samplesperpixel > colors and bool(page.extrasamples) and page.extrasamples[0] in _ALPHAS
        self._mode = {1: "L", 3: "RGB", 4: "CMYK"}[colors] + ("A" if self._alpha and colors < 4 else "")
        profile = page.tags.get(_PROFILE)
        self.info = {"icc_profile": bytes(profile.value)} if profile else {}
        self.depth = page.bitspersample
        self.tile = []
        exif = Image.Exif()
        exif._loaded = True
        if turn:
            exif[ORIENTATION] = self._turn
        self._exif = exif
        self._ready = False

    def seek(self, frame: int) -> None:
        """Go to a page."""
        if frame != self._number:
            self._show(frame)

    def tell(self) -> int:
        """Number of the current page."""
        return self._number

    def load(self) -> Image.core.PixelAccess | None:
        """Decode the current page. Errors: `OSError` for samples that are missing."""
        if not self._ready:
            if any(a + n > len(self._data) for a, n in zip(self._page.dataoffsets, self._page.databytecounts)):
                raise OSError("image file is truncated")
            picture = self._picture()
            self.im = picture.transpose(TURNS[self._turn]).im if self._turn in TURNS else picture.im
            self._ready = True
        return super().load()

    def _picture(self) -> Image.Image:
        page = self._page
        samples = self._samples()
        colors = _COLORS[page.photometric]
        color = scaled(samples[..., :colors])
        if page.photometric == _WHITE_IS_ZERO:
            color = 255 - color
        if self._alpha and colors < 4:
            alpha = scaled(samples[..., colors : colors + 1])
            if page.extrasamples[0] == _ASSOCIATED:
                color = np.clip(color * (255 / np.maximum(alpha, 1e-9)), 0, 255)
            color = np.concatenate([color, alpha], axis=-1)
        levels = np.round(color).astype(np.uint8)
        height, width = levels.shape[:2]
        return Image.frombytes(self.mode, (width, height), levels.tobytes())

    def _samples(self) -> np.ndarray:
        """[H, W, channels]."""
        with tifffile.TiffFile(io.BytesIO(self._data)) as file:
            page = file.pages[self._number]
            values = page.asarray()
        planes_first = self._page.planarconfig == 2 and values.ndim == 3
        values = np.moveaxis(values, 0, -1) if planes_first else values
        return values.reshape(self._page.imagelength, self._page.imagewidth, -1)
