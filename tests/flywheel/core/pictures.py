"""Small pictures in many containers."""

from __future__ import annotations

import io
import struct
import zlib

from PIL import Image, ImageDraw

SIZE = (64, 40)


def scene() -> Image.Image:
    """Four corners of four colours: no turn of it looks like another."""
    picture = Image.new("RGB", SIZE, (200, 200, 200))
    draw = ImageDraw.Draw(picture)
    for box, color in (((0, 0, 20, 12), "red"), ((44, 0, 63, 12), "lime"), ((0, 28, 20, 39), "blue")):
        draw.rectangle(box, fill=color)
    return picture


def saved(picture: Image.Image, form: str, **options: object) -> bytes:
    out = io.BytesIO()
    picture.save(out, form, **options)
    return out.getvalue()


def exif(orientation: int) -> Image.Exif:
    tags = Image.Exif()
    tags[0x0112] = orientation
    return tags


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def with_chunks(png: bytes, *chunks: bytes, late: bool = False) -> bytes:
    """Chunks before or behind a PNG's pixels."""
    place = png.rindex(b"IEND") - 4 if late else png.index(b"IDAT") - 4
    return png[:place] + b"".join(chunks) + png[place:]


def raw_profile(orientation: int) -> bytes:
    body = b"Exif\0\0" + exif(orientation).tobytes().removeprefix(b"Exif\0\0")
    text = b"\nexif\n%8d\n" % len(body) + body.hex().encode() + b"\n"
    return chunk(b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(text))


def xmp(orientation: int) -> bytes:
    text = f'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf tiff:Orientation="{orientation}"/></x:xmpmeta>'
    return chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + text.encode())


def stored(orientation: int) -> Image.Image:
    """The scene as a camera that was held so stores it."""
    undo = {2: 2, 3: 3, 4: 4, 5: 5, 6: 8, 7: 7, 8: 6}
    turns = {
        2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_270, 7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_90,
    }  # fmt: skip
    return scene().transpose(turns[undo[orientation]]) if orientation > 1 else scene()


def tiff_exif(orientation: int) -> bytes:
    return exif(orientation).tobytes().removeprefix(b"Exif\0\0")
