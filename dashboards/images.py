"""Images of a workspace for the pages: only image files below its root; shrunk and inlined within a byte budget."""

from __future__ import annotations

import base64
import io
from pathlib import Path

from PIL import Image

from flywheel.core.image import decode, open_image
from flywheel.core.workspace import Workspace

TYPES = {".png": "image/png", ".jpg": "image/jpeg", ".jpeg": "image/jpeg", ".webp": "image/webp"}
_SMALL = 12_000  # bytes; a smaller file that needs no shrinking is used unchanged


def picture(workspace: Workspace, name: str | None) -> Path | None:
    """The image file at a workspace path; None if it does not exist or is outside the workspace."""
    if not name or "\0" in name:
        return None
    path = workspace.path(name).resolve()
    inside = path.is_relative_to(workspace.root)
    return path if inside and path.suffix.lower() in TYPES and path.is_file() else None


class InlineImages:
    """Turns workspace paths into data addresses until `budget` bytes are used; then, and for missing files, None."""

    def __init__(self, workspace: Workspace, budget: int) -> None:
        self.workspace = workspace
        self.left = budget
        self.left_out = 0
        self._done: dict[tuple[str, int], str] = {}

    def __call__(self, name: str | None, side: int = 192) -> str | None:
        """Data address of the image, its long side at most `side` pixels."""
        path = picture(self.workspace, name)
        if path is None:
            return None
        key = (str(path), side)
        if key not in self._done:
            data, kind = shrink(path, side)
            address = f"data:{kind};base64,{base64.b64encode(data).decode()}"
            if len(address) > self.left:
                self.left_out += 1
                return None
            self._done[key] = address
        self.left -= len(self._done[key])  # a page that shows an image twice contains it twice
        return self._done[key]


def shrink(path: Path, side: int) -> tuple[bytes, str]:
    """Bytes and media type of an image with long side ≤ `side`: a small file unchanged, else PNG or WebP."""
    data = path.read_bytes()
    if len(data) <= _SMALL and max(open_image(data).size) <= side:
        return data, TYPES[path.suffix.lower()]
    return thumbnail(data, side)


def thumbnail(data: bytes, side: int) -> tuple[bytes, str]:
    """Bytes and media type of an image of any format with long side ≤ `side`: PNG or WebP. Errors: `BadImage`."""
    image = decode(data)
    image.thumbnail((side, side), Image.Resampling.LANCZOS)
    png, webp = _encode(image, "PNG", optimize=True), _encode(image, "WEBP", quality=82)
    return (png, "image/png") if len(png) <= len(webp) else (webp, "image/webp")


def _encode(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()
