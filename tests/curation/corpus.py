"""Small pictures for curation tests: textured ones that look like no other, word cards, and broken files."""

from __future__ import annotations

import hashlib
import io
import json
import struct
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont


def texture(seed: int, width: int = 160, height: int = 120) -> Image.Image:
    """Two colours in smooth random patches and grain: entropy and hash like a photograph's, unlike other seeds'."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (7, 9), dtype=np.uint8))
    share = np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC), np.float64)[..., None] / 255
    dark, light = rng.integers(0, 90, 3), rng.integers(150, 256, 3)
    grain = rng.integers(-6, 7, (height, width, 1))
    return Image.fromarray(np.clip(dark + share * (light - dark) + grain, 0, 255).astype(np.uint8))


def word(text: str, side: int = 128) -> Image.Image:
    """A card with one word in it."""
    font = ImageFont.truetype(f"{matplotlib.get_data_path()}/fonts/ttf/DejaVuSans-Bold.ttf", side // 4)
    card = Image.new("RGB", (side, side), (240, 232, 200))
    ImageDraw.Draw(card).text((side / 2, side / 2), text, font=font, anchor="mm", fill=(30, 40, 120))
    return card


def encoded(image: Image.Image, form: str = "PNG", **options: Any) -> bytes:
    """The picture in a file format."""
    out = io.BytesIO()
    image.save(out, form, **options)
    return out.getvalue()


def turned(image: Image.Image, orientation: int) -> bytes:
    """JPEG with an EXIF orientation."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encoded(image, "JPEG", quality=92, exif=exif)


def bomb(side: int = 40_000) -> bytes:
    """A tiny PNG that declares side × side pixels."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def write_folder(folder: Path, files: Mapping[str, bytes], captions: Mapping[str, Any] | None = None) -> Path:
    """Files below `folder`, and captions.jsonl where captions are given (name → text, or the row's other keys)."""
    for name, data in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    if captions is not None:
        rows = [{"file": n, **(c if isinstance(c, dict) else {"caption": c})} for n, c in captions.items()]
        (folder / "captions.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    return folder


def textures(count: int) -> dict[str, bytes]:
    """`count` sound pictures by name."""
    return {f"picture-{n:03d}.jpg": encoded(texture(n), "JPEG", quality=92) for n in range(count)}


def tree(root: Path) -> dict[str, str]:
    """Path → SHA-256 of every file below `root`, but the records of hashes."""
    paths = sorted(p for p in root.rglob("*") if p.is_file() and ".hashes" not in p.parts)
    return {str(p.relative_to(root)): hashlib.sha256(p.read_bytes()).hexdigest() for p in paths}


def write_tiny_clip(folder: Path) -> Path:
    """A small CLIP with random weights and an aesthetic head: for how weights are loaded, not for what they say."""
    import torch

    from flywheel.core.torchvision_shim import declare_operators

    declare_operators()
    from open_clip.model import CLIP

    vision = {"image_size": 32, "layers": 1, "width": 32, "patch_size": 8, "head_width": 16}
    text = {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1}
    config = {"embed_dim": 16, "vision_cfg": vision, "text_cfg": text}
    statistics = {"mean": [0.5] * 3, "std": [0.5] * 3}
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": config, "preprocess_cfg": statistics}))
    torch.manual_seed(0)
    torch.save(CLIP(**config).state_dict(), folder / "open_clip_pytorch_model.bin")
    torch.save({"weight": torch.ones(1, 16), "bias": torch.tensor([5.0])}, folder / "head.pth")
    return folder
