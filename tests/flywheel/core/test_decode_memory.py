"""A decode takes at most 512 MiB, whatever the file claims: lying headers, honest giants, and frames that grow."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from multiprocessing import get_context
from multiprocessing.connection import Connection

import numpy as np
import pytest
from PIL import Image

from flywheel.core.image import BadImage, decode, decode_working, open_image
from tests.flywheel.core.pictures import chunk, saved

PROMISED = 512 << 20  # bytes, in docs/guarantees.md
SIDES = (57, 41)  # of the small pictures whose headers are changed: numbers that are rare elsewhere
CLAIMS = ((100_000, 100_000), (65_535, 65_535), (16_384, 16_384), (9_999, 9_999), (16_383, 6_000), (2**31 - 1, 1))


def picture(mode: str = "RGB") -> Image.Image:
    noise = np.random.default_rng(0).integers(0, 255, (SIDES[1], SIDES[0], 4), np.uint8)
    return Image.fromarray(noise, "RGBA").convert(mode)


def png(width: int, height: int, *, color: int = 2, depth: int = 8, rows: int | None = None) -> bytes:
    """A PNG of one colour, as small as deflate makes it. rows: that are really there."""
    length = 1 + -(-width * depth * {0: 1, 2: 3, 4: 2, 6: 4}[color] // 8)
    packer, body = zlib.compressobj(9), []
    for _ in range(height if rows is None else rows):
        body.append(packer.compress(bytes(length)))
    head = struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, 0)
    data = b"".join([*body, packer.flush()])
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def patched(data: bytes, claim: tuple[int, int]) -> Iterator[bytes]:
    """The file with another width and height wherever its own may stand, in any of the usual encodings."""
    for form in (">I", "<I", ">H", "<H"):
        limit = 2 ** (8 * struct.calcsize(form)) - 1
        old = [struct.pack(form, side) for side in SIDES]
        new = [struct.pack(form, min(side, limit)) for side in claim]
        for swapped in ((0, 1), (1, 0)):
            both = data.replace(old[swapped[0]], new[swapped[0]]).replace(old[swapped[1]], new[swapped[1]])
            if both != data:
                yield both


def liars() -> Iterator[tuple[str, bytes]]:
    """(name, file) of headers that claim much and have little."""
    import pillow_heif
    import pillow_jxl  # noqa: F401 - registers itself

    pillow_heif.register_heif_opener()
    small = {
        "jpeg": saved(picture(), "JPEG"),
        "progressive": saved(picture(), "JPEG", progressive=True),
        "cmyk": saved(picture("CMYK"), "JPEG"),
        "png": saved(picture("RGBA"), "PNG"),
        "tiff": saved(picture(), "TIFF"),
        "lzw": saved(picture(), "TIFF", compression="tiff_lzw"),
        "float": saved(picture("F"), "TIFF"),
        "webp": saved(picture("RGBA"), "WEBP"),
        "animation": saved(picture("RGBA"), "WEBP", save_all=True, append_images=[picture()]),
        "gif": saved(picture("P"), "GIF", save_all=True, append_images=[picture("L").convert("P")]),
        "bmp": saved(picture(), "BMP"),
        "avif": saved(picture(), "AVIF"),
        "heif": saved(picture(), "HEIF"),
        "jxl": saved(picture(), "JXL"),
    }
    for name, data in small.items():
        for claim in CLAIMS:
            for variant in patched(data, claim):
                yield f"{name} {claim}", variant
    for claim in CLAIMS:
        head = struct.pack(">IIBBBBB", *claim, 8, 6, 0, 0, 0)
        body = chunk(b"IDAT", zlib.compress(bytes(1000)))
        yield f"png {claim}", b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + body + chunk(b"IEND", b"")
    still = saved(picture("P"), "GIF")
    at = still.index(b"\x2c") + 5  # the first frame's own size
    yield "gif frame", still[:at] + struct.pack("<HH", 60_000, 60_000) + still[at + 4 :]
    yield "gif frame below PIL's own limit", still[:at] + struct.pack("<HH", 16_000, 11_000) + still[at + 4 :]


def giants() -> Iterator[tuple[str, bytes]]:
    """(name, file) of small files that really hold many pixels."""
    yield "gray", png(9_990, 9_990, color=0, depth=1)
    yield "sixteen bits", png(5_900, 5_900, color=2, depth=16)
    yield "gray of sixteen bits", png(5_900, 5_900, color=0, depth=16)
    yield "jpeg", saved(Image.new("RGB", (7_700, 7_700), "teal"), "JPEG")
    yield "float", saved(Image.new("F", (3_700, 3_700), 0.5), "TIFF")


def _peak() -> int:
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("VmHWM")) << 10


def _reset() -> int:
    """Forget the peak so far; the memory now."""
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")
    return _peak()


def _judge(pipe: Connection, kind: str) -> None:
    decode_working(saved(picture(), "JPEG"))
    decode_working(saved(picture(), "PNG"))
    out = []
    for name, data in liars() if kind == "liars" else giants():
        before = _reset()
        for function in (decode, decode_working):
            try:
                function(data)
                outcome = "decoded"
            except BadImage as error:
                outcome = str(error)
            out.append((f"{name} {function.__name__}", outcome, _peak() - before))
    pipe.send(out)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["liars", "giants"])
def test_memory_of_a_decode_is_bounded(kind: str):
    try:
        with open("/proc/self/clear_refs", "w") as file:
            file.write("5")
    except OSError:
        pytest.skip("this system does not reset the peak of memory")
    here, there = get_context("spawn").Pipe(duplex=False)
    child = get_context("spawn").Process(target=_judge, args=(there, kind), daemon=True)
    child.start()
    there.close()
    results = here.recv()
    child.join()
    assert child.exitcode == 0 and len(results) >= (10 if kind == "giants" else 200)
    worst = max(results, key=lambda r: r[2])
    assert worst[2] <= PROMISED + (16 << 20), worst
    if kind == "giants":
        assert {r[1] for r in results if not r[0].startswith("gray ")} == {"decoded"}


def test_what_would_take_too_much_is_refused_before_it_is_decoded():
    with pytest.raises(BadImage, match="would take over 512 MiB to decode"):
        open_image(png(5_990, 5_990, rows=1))
    with pytest.raises(BadImage, match="is over 100000000 pixels"):
        open_image(png(10_001, 10_000, color=0, depth=1, rows=1))


def test_a_frame_that_is_larger_than_those_before_it_is_refused():
    first = Image.new("P", (8, 8))
    first.putpalette([0, 0, 0, 255, 255, 255])
    second = first.point(lambda v: 1)
    data = saved(first, "GIF", save_all=True, append_images=[second], optimize=False)
    assert decode(data).size == (8, 8)
    for at in (data.index(b"\x2c\x00\x00\x00\x00"), data.rindex(b"\x2c\x00\x00\x00\x00")):
        with pytest.raises(BadImage, match="too large: 13000x13000"):
            decode(data[: at + 5] + struct.pack("<HH", 13_000, 13_000) + data[at + 9 :])
