"""Build PP-OCRv6 model folders for PaddleOCR from the weights in the `rapidocr` wheel; no network access."""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
from importlib import metadata, util
from pathlib import Path
from typing import Any

DETECTION, RECOGNITION = "PP-OCRv6_small_det", "PP-OCRv6_small_rec"
_RECIPE = 2  # increase it when the contents of the folders change


def cache_dir() -> Path:
    """Cache folder of the user: `FLYWHEEL_CACHE`, else the platform's default. Does not create it."""
    if configured := os.environ.get("FLYWHEEL_CACHE"):
        return Path(configured)
    if sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA", Path.home()))
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches"
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return base / "image-flywheel"


def wheel_version() -> str:
    """Version of the wheel that holds the weights; part of the scorer's version."""
    return metadata.version("rapidocr")


def model_folders() -> tuple[Path, Path]:
    """(detection, recognition) model folders, built on first use.

    Safe for concurrent processes: each builds its own copy and the first rename wins.
    """
    root = cache_dir() / f"ppocrv6-small-{wheel_version()}-r{_RECIPE}"
    if not root.exists():
        _build(root)
    return root / DETECTION, root / RECOGNITION


def _build(root: Path) -> None:
    root.parent.mkdir(parents=True, exist_ok=True)
    tmp = Path(tempfile.mkdtemp(dir=root.parent, prefix=f".{root.name}."))
    try:
        package = util.find_spec("rapidocr")
        if package is None or not package.submodule_search_locations:
            raise RuntimeError("the OCR weights are missing: install the `rapidocr` wheel of constraints.txt")
        models = Path(package.submodule_search_locations[0]) / "models"
        _folder(tmp / DETECTION, models / "PP-OCRv6_det_small.onnx", _detection_config())
        weights = models / "PP-OCRv6_rec_small.onnx"
        _folder(tmp / RECOGNITION, weights, _recognition_config(weights))
        try:
            os.rename(tmp, root)
        except OSError:
            if not root.exists():  # otherwise another process renamed its copy first
                raise
    finally:
        shutil.rmtree(tmp, ignore_errors=True)


def _folder(path: Path, weights: Path, config: dict[str, Any]) -> None:
    path.mkdir()
    shutil.copyfile(weights, path / "inference.onnx")
    text = json.dumps(config, ensure_ascii=False)  # which is YAML; see `ocr_import`
    (path / "inference.yml").write_text(text, encoding="utf-8")


def _detection_config() -> dict[str, Any]:
    normalize = {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225], "scale": "1./255.", "order": "hwc"}
    return {
        "Global": {"model_name": DETECTION},
        "PreProcess": {
            "transform_ops": [
                {"DetResizeForTest": {"resize_long": 960}},
                {"NormalizeImage": normalize},
                {"ToCHWImage": None},
            ]
        },
        "PostProcess": {
            "name": "DBPostProcess",
            "thresh": 0.3,
            "box_thresh": 0.6,
            "max_candidates": 1000,
            "unclip_ratio": 1.5,
        },
    }


def _recognition_config(weights: Path) -> dict[str, Any]:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(weights), providers=["CPUExecutionProvider"])
    characters = session.get_modelmeta().custom_metadata_map["character"].splitlines()
    return {
        "Global": {"model_name": RECOGNITION},
        "PreProcess": {"transform_ops": [{"RecResizeImg": {"image_shape": [3, 48, 320]}}]},
        "PostProcess": {"name": "CTCLabelDecode", "character_dict": characters},
    }
