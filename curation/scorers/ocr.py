"""What is written in the picture, read by PaddleOCR (PP-OCRv6 small, onnxruntime); is it what the caption quotes?

`quoted_text` and `text_similarity` are the pure half: verifiers and rewards use them too.
"""

from __future__ import annotations

import math
import os
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image

from curation.scorers.ocr_weights import DETECTION, RECOGNITION, model_folders, wheel_version
from flywheel.schema import column
from flywheel.scorer import Item, per_item

READABLE_SIDE = 320  # pixels: smaller pictures are enlarged by a whole factor until their short side reaches this
MAX_SIDE = 2560  # pixels: neither enlarged beyond it nor read above it
_QUOTES = re.compile(
    r'"([^"\n]*)"|“([^”\n]+)”|‘([^\n]+?)’(?!\w)|「([^」\n]+)」|『([^』\n]+)』'
    r"|(?<!\w)'((?:[^'\n]|(?<=\w)'(?=\w))+)'(?!\w)"  # an apostrophe inside a word neither opens nor closes
)


def quoted_text(caption: str) -> str | None:
    """The text that a caption puts in quotation marks, several joined by a space; None where it quotes nothing."""
    parts = [next(filter(None, match.groups()), "").strip() for match in _QUOTES.finditer(caption)]
    text = " ".join(p for p in parts if comparable(p))
    return text or None


def comparable(text: str) -> str:
    """Letters, digits and combining marks of any script, NFKC, case folded: all that counts in a comparison.

    Flat shapes are sometimes read as "■" or "–", and spacing is layout: neither is spelling.
    """
    folded = unicodedata.normalize("NFKC", text).casefold()
    return "".join(c for c in folded if unicodedata.category(c)[0] in "LNM")


def text_similarity(read: str, wanted: str) -> float:
    """Normalised edit similarity in [0, 1]: 1 − Levenshtein distance / longer length, over `comparable` characters."""
    from rapidfuzz.distance import Levenshtein

    return float(Levenshtein.normalized_similarity(comparable(read), comparable(wanted)))


@dataclass(frozen=True)
class Reading:
    """What the engine read: `text` in reading order, number of text boxes, their share of the area, mean confidence."""

    text: str
    boxes: int
    text_area: float
    confidence: float | None


def read_text(image: Image.Image) -> Reading:
    """Read a picture (any PIL mode). Boxes without a letter or digit are no text."""
    rgb = enlarged(image.convert("RGB"))
    result = _engine().predict(np.ascontiguousarray(np.asarray(rgb)[:, :, ::-1]))[0]  # the engine expects BGR
    lines = [
        (text, float(score), np.asarray(box, dtype=np.float64))
        for text, score, box in zip(result["rec_texts"], result["rec_scores"], result["rec_polys"])
        if comparable(text)
    ]
    area = sum(_polygon_area(box) for *_, box in lines) / (rgb.width * rgb.height)
    return Reading(
        text=" ".join(text for text, *_ in lines),
        boxes=len(lines),
        text_area=min(1.0, area),
        confidence=sum(score for _, score, _ in lines) / len(lines) if lines else None,
    )


def enlarged(image: Image.Image) -> Image.Image:
    """The picture at a size the engine can read: small ones ×2 … ×8 (64 px ×5, 96 px ×4), huge ones reduced."""
    factor = min(8, math.ceil(READABLE_SIDE / min(image.size)), max(1, MAX_SIDE // max(image.size)))
    if factor > 1:
        return image.resize((image.width * factor, image.height * factor), Image.Resampling.BICUBIC)
    scale = MAX_SIDE / max(image.size)
    if scale < 1:
        size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
        return image.resize(size, Image.Resampling.BOX)
    return image


def _polygon_area(points: np.ndarray) -> float:
    x, y = points[:, 0], points[:, 1]
    return float(abs(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1))) / 2)


@lru_cache(maxsize=1)
def _engine() -> Any:
    """The engine, loaded once per process, on one thread: parallelism is by process."""
    os.environ.setdefault("PADDLE_PDX_DISABLE_MODEL_SOURCE_CHECK", "True")
    import logging

    from paddleocr import PaddleOCR

    logging.getLogger("paddlex").setLevel(logging.WARNING)
    detection, recognition = model_folders()
    return PaddleOCR(
        text_detection_model_name=DETECTION,
        text_detection_model_dir=str(detection),
        text_recognition_model_name=RECOGNITION,
        text_recognition_model_dir=str(recognition),
        use_doc_orientation_classify=False,
        use_doc_unwarping=False,
        use_textline_orientation=False,
        engine="onnxruntime",
        engine_config={"intra_op_num_threads": 1, "inter_op_num_threads": 1},
        device="cpu",
    )


class Ocr:
    """Text in the picture, and its agreement with the caption's quoted text (null where the caption quotes nothing).

    `only_quoted`: read only pictures whose caption quotes text; every column of the others is null. Reading is the
    dearest operator by two orders of magnitude.
    """

    name = "ocr"
    fields = (
        column("text", pa.large_string(), "text read, boxes in reading order joined by spaces"),
        column("boxes", pa.int32(), "text boxes that hold at least one letter or digit"),
        column("text_area", pa.float64(), "share of the picture's area inside text boxes, 0 to 1"),
        column("confidence", pa.float64(), "mean recognition confidence of the boxes; null where there are none"),
        column("quoted", pa.large_string(), "text that the caption quotes; null where it quotes nothing"),
        column("ned", pa.float64(), "normalised edit similarity of read and quoted text, 0 to 1"),
        column("exact", pa.bool_(), "read and quoted text agree in every letter and digit"),
    )

    def __init__(self, *, only_quoted: bool = False) -> None:
        self.only_quoted = only_quoted
        self.version = f"1-rapidocr{wheel_version()}" + ("-quoted" if only_quoted else "")

    def score(self, items: Sequence[Item]) -> list[dict[str, Any] | Exception]:
        """One row per item; `BadImage` where the picture cannot be decoded."""
        return per_item(items, self._one)

    def _one(self, item: Item) -> dict[str, Any]:
        quoted = quoted_text(item.caption)
        if quoted is None and self.only_quoted:
            return dict.fromkeys(field.name for field in self.fields)
        reading = read_text(item.upright)
        similarity = None if quoted is None else text_similarity(reading.text, quoted)
        return {
            "text": reading.text,
            "boxes": reading.boxes,
            "text_area": reading.text_area,
            "confidence": reading.confidence,
            "quoted": quoted,
            "ned": similarity,
            "exact": None if similarity is None else similarity == 1.0,
        }
