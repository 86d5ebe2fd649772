"""The one decode: encoded bytes to the upright sRGB picture that a person sees, and what the file says of itself.

Order: orientation is read, frames are chosen, samples are scaled to 8 bits, colours are converted to sRGB, transparency
is composited on `GROUND`, and the picture is turned upright. Metadata never decides about pixels: what cannot be read
there is ignored.
"""

from __future__ import annotations

import io
import warnings
from dataclasses import dataclass, replace
from math import ceil

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from flywheel.core import jpeg
from flywheel.core.color import png_profile, profile_name, to_srgb
from flywheel.core.container import name_of, readable_metadata
from flywheel.core.errors import BadImage as BadImage
from flywheel.core.samples import TURNS, rgb

VERSION = "3"  # of the decode: raised whenever a picture could be seen otherwise, so that scores are computed again
MAX_PIXELS = 100_000_000  # decompression-bomb limit per image
MAX_BYTES = 512 << 20  # of memory that a decode may take
WORKING_SIDE = 512  # long side, pixels, at which pixel statistics are defined
GROUND = (255, 255, 255)  # what transparent pixels show
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP", "AVIF", "JXL", "HEIF")
INVALID = -1  # a stored orientation that is not a number

# Bytes per pixel that a whole decode takes at its peak, measured; the first that applies.
_COSTS = {"plain JPEG": 9, "WEBP": 23, "I": 39, "F": 39}
_COST = 15  # of all others
_JPEGS = ("JPEG", "MPO")
_ROOM = 1.5  # times its size once scaled, that a JPEG is decoded to at least before it is
_FRAMES = 32  # of an animation that are looked at for one that is not blank
_ORIENTATION, _BITS = 0x0112, 258  # EXIF and TIFF tags


@dataclass(frozen=True)
class Description:
    """What a file says about its picture. Sizes are (width, height) in pixels; `size` is upright.

    orientation: as `exif_orientation`; orientation_from: exif | raw profile | xmp | tiff | container | none.
    depth: bits per sample. profile: name of the colour profile, empty without one. frames: pictures in the file;
    frame: the one that is decoded. damage: why it cannot be decoded, empty where it can.
    """

    format: str
    size: tuple[int, int]
    stored_size: tuple[int, int]
    orientation: int
    orientation_from: str
    mode: str
    depth: int
    alpha: bool
    profile: str
    frames: int
    frame: int = 0
    damage: str = ""


def open_image(data: bytes) -> Image.Image:
    """Open encoded bytes without decoding.

    Errors: `BadImage` for zero bytes, non-images, formats that are not accepted and decompression bombs.
    """
    if not data:
        raise BadImage("zero bytes")
    kind = name_of(data)
    if not kind:
        raise BadImage("not an image: no known image format")
    if kind not in FORMATS:
        raise BadImage(f"{kind} files are not accepted: convert the picture to JPEG, PNG, WebP or TIFF")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # PIL warns of large images; the limit below is ours
            image = _opened(kind, data)
    except Image.DecompressionBombError as error:
        raise BadImage(f"too large: {error}") from error
    except UnidentifiedImageError as error:  # its message holds a memory address: equal faults need equal reasons
        raise BadImage(f"truncated or corrupt: {kind} file that cannot be read") from error
    except ImportError:
        raise
    except Exception as error:  # noqa: BLE001 - PIL plugins raise anything on hostile bytes; all of it means damage
        raise BadImage(f"truncated or corrupt: {kind} file that cannot be read: {error}") from error
    if image.width * image.height > MAX_PIXELS:
        raise BadImage(f"too large: {image.width}x{image.height} is over {MAX_PIXELS} pixels")
    _require_room(image)
    return image


def _require_room(image: Image.Image) -> None:
    if image.width * image.height * _cost(image) > MAX_BYTES:
        raise BadImage(f"too large: {image.width}x{image.height} would take over {MAX_BYTES >> 20} MiB to decode")


def _cost(image: Image.Image) -> int:
    kinds = ("plain JPEG" if is_plain_jpeg(image) else "", image.format or "", image.mode)
    return next((_COSTS[kind] for kind in kinds if kind in _COSTS), _COST)


def decode(data: bytes) -> Image.Image:
    """Fully decode to upright RGB, sRGB, without metadata. Errors: `BadImage`, truncated and damaged data included.

    >>> import flywheel as fw
    >>> from pathlib import Path
    >>> fw.decode(Path("photos/0.png").read_bytes()).size
    (400, 300)
    """
    return _decoded(open_image(data), data)[0]


def decode_working(data: bytes) -> np.ndarray:
    """Decode to upright RGB uint8 [H, W, 3] with long side at most `WORKING_SIDE` pixels."""
    return shrunk(decode_at_least(open_image(data), data, WORKING_SIDE), WORKING_SIDE)


def decode_at_least(image: Image.Image, data: bytes, side: int) -> np.ndarray:
    """Upright RGB uint8 [H, W, 3], at the smallest scale the format decodes to with a long side of at least `side`.

    image: `open_image` of the same data, not yet loaded. Errors: `BadImage`.
    """
    if not is_plain_jpeg(image):
        return np.asarray(_decoded(image, data)[0])
    pixels = jpeg.decoded(image, data, side)
    if profile := image.info.get("icc_profile"):
        pixels = np.asarray(to_srgb(Image.fromarray(pixels), profile))
    return _turned(pixels, exif_orientation(image))


def describe(data: bytes) -> Description:
    """What the file says, which frame `decode` takes, and its damage. Errors: `BadImage` where it cannot be opened."""
    image = open_image(data)
    header = describe_header(image, data)
    try:
        return replace(header, frame=_decoded(image, data)[1])  # last: loading changes the image
    except BadImage as error:
        return replace(header, damage=str(error))


def describe_header(image: Image.Image, data: bytes) -> Description:
    """What an opened file says, without decoding; `frame` and `damage` are not known yet."""
    orientation = exif_orientation(image)
    turned_by_pil = _size_is_upright(image) and orientation in (5, 6, 7, 8)
    return Description(
        format=image.format or "",
        size=upright_size(image),
        stored_size=image.size[::-1] if turned_by_pil else image.size,
        orientation=orientation,
        orientation_from=_orientation_place(image),
        mode=image.mode,
        depth=_depth(image, data),
        alpha=_has_alpha(image),
        profile=profile_name(image.info.get("icc_profile")),
        frames=_frames(image),
    )


def is_plain_jpeg(image: Image.Image) -> bool:
    """A JPEG in color or gray: what libjpeg-turbo decodes to RGB, at reduced scale too."""
    return image.format in _JPEGS and (image.mode == "RGB" or (image.mode == "L" and not image.info.get("icc_profile")))


def exif_orientation(image: Image.Image) -> int:
    """1–8 as EXIF defines it; 1 where there is none; any other stored integer as it is, `INVALID` for other values.

    Looks into EXIF, raw profiles and XMP. JPEG XL and HEIF turn the picture by fields of their own, and their decoders
    do it; a JPEG packed as JPEG XL comes out as it was stored. 0, which EXIF does not define, is what much software
    writes for "not known": it counts as none.
    """
    if image.format in ("JXL", "HEIF") and not getattr(image, "jpeg", False):
        return 1
    value = _exif(image).get(_ORIENTATION, 1)
    return (value or 1) if isinstance(value, int) else INVALID


def upright_size(image: Image.Image) -> tuple[int, int]:
    """(width, height) of what `decode` returns for an opened image that is not yet loaded."""
    width, height = image.size
    on_its_side = exif_orientation(image) in (5, 6, 7, 8) and not _size_is_upright(image)
    return (height, width) if on_its_side else (width, height)


def _size_is_upright(image: Image.Image) -> bool:
    """Whether PIL has applied the orientation to the size: it does for the tag of a TIFF, but not for XMP in one."""
    return image.format == "TIFF" and _ORIENTATION in getattr(image, "tag_v2", (_ORIENTATION,))


def turned(image: Image.Image, degrees: int) -> Image.Image:
    """The picture turned clockwise by 0, 90, 180 or 270 degrees."""
    turns = {90: Image.Transpose.ROTATE_270, 180: Image.Transpose.ROTATE_180, 270: Image.Transpose.ROTATE_90}
    return image.transpose(turns[degrees]) if degrees else image


def fitted(image: Image.Image, width: int, height: int) -> Image.Image:
    """The picture scaled to cover width × height (Lanczos), the centre kept: how shards, references and samples fit."""
    if image.size == (width, height):
        return image
    return ImageOps.fit(image, (width, height), Image.Resampling.LANCZOS)


def decode_fitted(data: bytes, width: int, height: int, turn: int = 0) -> Image.Image:
    """`fitted(turned(decode(data), turn), width, height)`; a JPEG is decoded to a reduced scale where that suffices.

    What a reduced scale changes is less than what JPEG at quality 95 loses. Errors: `BadImage`.
    """
    image = open_image(data)
    if not is_plain_jpeg(image):
        return fitted(turned(_decoded(image, data)[0], turn), width, height)
    orientation = exif_orientation(image)
    if (orientation in (5, 6, 7, 8)) != bool(turn % 180):
        width, height = height, width
    size, wanted = np.array(image.size), np.array([width, height])
    covering = float(max(wanted / size))
    side = ceil(_ROOM * covering * max(image.size))
    picture = to_srgb(Image.fromarray(jpeg.decoded(image, data, side)), image.info.get("icc_profile"))
    if (factor := jpeg.reduction(image, side)) > 1:
        part = wanted / (covering * factor)  # of the picture, in its reduced pixels, which reach beyond it
        start = np.maximum(0, (size / factor - part) / 2)
        box = (*start.tolist(), *np.minimum(start + part, picture.size).tolist())
        picture = picture.resize((width, height), Image.Resampling.LANCZOS, box)
    upright = _turned(np.asarray(fitted(picture, width, height)), orientation)
    return turned(Image.fromarray(upright), turn)


def shrunk(image: np.ndarray, side: int) -> np.ndarray:
    """The picture with a long side of at most `side` pixels (area average)."""
    import cv2

    height, width = image.shape[:2]
    scale = side / max(height, width)
    if scale >= 1:
        return image
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA)


def _decoded(image: Image.Image, data: bytes) -> tuple[Image.Image, int]:
    """(upright RGB picture, number of the frame taken)."""
    orientation = 1 if image.format == "TIFF" else exif_orientation(image)  # PIL turns TIFF itself
    size = upright_size(image)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if is_plain_jpeg(image):
                picture, frame = Image.fromarray(jpeg.decoded(image, data)), 0
                picture = to_srgb(picture, image.info.get("icc_profile"))
            else:
                if image.format in _JPEGS:
                    jpeg.require_sound_scan(data)
                    image = open_image(data + jpeg.END)  # PIL wants the end marker, which the scan can do without
                picture, frame = _first_not_blank(image)
    except (BadImage, ImportError):
        raise
    except Exception as error:  # noqa: BLE001 - decoders raise anything on hostile bytes; all of it is one bad image
        raise BadImage(f"truncated or corrupt: {error}") from error
    if orientation in TURNS:
        picture = picture.transpose(TURNS[orientation])
    if picture.size != size:
        raise BadImage(f"its header says {size[0]}x{size[1]}, its pixels are {picture.width}x{picture.height}")
    picture.info = {}
    return picture, frame


# Frames ---------------------------------------------------------------------------------------------------------------
def _first_not_blank(image: Image.Image) -> tuple[Image.Image, int]:
    """(RGB, number) of the first frame that is not of one colour; of the first frame where all are."""
    first = rgb(image, GROUND)
    if not _is_blank(first):
        return first, 0
    first = first.copy()  # it may be the opened image itself, which shows another frame soon
    for number in range(1, min(_frames(image), _FRAMES)):
        image.seek(number)
        _require_room(image)  # a frame may be larger than those before it
        frame = rgb(image, GROUND)
        if not _is_blank(frame):
            return frame, number
    return first, 0


def _frames(image: Image.Image) -> int:
    if image.format in _JPEGS:
        return 1  # the further pictures of an MPO are other views, thumbnails and depth maps
    try:
        return int(getattr(image, "n_frames", 1))
    except Exception:  # noqa: BLE001 - the table of frames is damaged: the first one may be whole
        return 1


def _is_blank(image: Image.Image) -> bool:
    pixels = np.asarray(image)
    return int(np.ptp(pixels, axis=(0, 1)).max()) <= 2


# What the file says ---------------------------------------------------------------------------------------------------
def _exif(image: Image.Image) -> Image.Exif | dict[int, object]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return Image.Image.getexif(image)  # a PNG's own would decode the picture to look behind its pixels
    except Exception:  # noqa: BLE001 - metadata never decides about pixels
        return {}


def _orientation_place(image: Image.Image) -> str:
    """Where the orientation stands, as `Description` names it."""
    if _ORIENTATION not in _exif(image):
        return "none"
    if image.format == "TIFF":
        return "tiff" if _size_is_upright(image) else "xmp"
    if image.format == "AVIF":
        return "container"
    exif = Image.Exif()
    try:
        exif.load(image.info.get("exif", b""))
    except Exception:  # noqa: BLE001 - metadata never decides about pixels
        return "xmp"
    if _ORIENTATION in exif:
        return "exif"
    return "raw profile" if "Raw profile type exif" in image.info else "xmp"


def _has_alpha(image: Image.Image) -> bool:
    try:
        return image.has_transparency_data
    except Exception:  # noqa: BLE001 - a palette that is missing: the decode says so
        return False


def _depth(image: Image.Image, data: bytes) -> int:
    if image.format == "PNG":
        return data[24]
    bits = getattr(image, "depth", None) or getattr(image, "tag_v2", {}).get(_BITS, 8)
    return 1 if image.mode == "1" else int(bits[0] if isinstance(bits, tuple) else bits)


def _opened(kind: str, data: bytes) -> Image.Image:
    if kind == "PNG":
        image = Image.open(io.BytesIO(readable_metadata(data)), formats=[kind])
        if profile := png_profile(data):
            image.info["icc_profile"] = profile
        return image
    if kind == "TIFF":
        from flywheel.core.tiff import deep_tiff

        return deep_tiff(data) or Image.open(io.BytesIO(data), formats=[kind])
    if kind == "JPEG":
        try:
            return Image.open(io.BytesIO(data), formats=[kind])
        except UnidentifiedImageError:  # metadata that PIL stumbles over
            return Image.open(io.BytesIO(jpeg.without_metadata(data)), formats=[kind])
    _load_plugin(kind)
    return Image.open(io.BytesIO(data), formats=[kind])


def _load_plugin(kind: str) -> None:
    """Let PIL read JPEG XL and HEIF: its plug-ins are loaded when such a file is met."""
    if kind == "JXL":
        import pillow_jxl  # noqa: F401 - registers itself
    elif kind == "HEIF":
        import pillow_heif

        pillow_heif.register_heif_opener()


def _turned(image: np.ndarray, orientation: int) -> np.ndarray:
    """[H, W, C] as EXIF orientations 1 to 8 want it; any other value turns nothing."""
    if orientation in (5, 6, 7, 8):
        image = image.transpose(1, 0, 2)
    rows = -1 if orientation in (3, 4, 7, 8) else 1
    columns = -1 if orientation in (2, 3, 6, 7) else 1
    return np.ascontiguousarray(image[::rows, ::columns])
