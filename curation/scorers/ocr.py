"""Read the text in a picture with PaddleOCR (PP-OCRv6 small, onnxruntime) and compare it with the caption's quotes."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image

from curation.scorers.language import language, main_script, present, readable, scripts
from curation.scorers.ocr_weights import DETECTION, RECOGNITION, model_folders, wheel_version
from curation.scorers.quotes import comparable, quoted_text, text_similarity
from curation.scorers.sheet import on_one_sheet
from flywheel.core.errors import UsageError
from flywheel.core.image import turned
from flywheel.core.schema import column
from flywheel.core.scorer import Item, per_item

READABLE_SIDE = 320  # pixels: pictures with a smaller short side are enlarged by a whole factor until they reach it
MAX_SIDE = 2560  # pixels: largest long side that is read; larger pictures are reduced, and none is enlarged beyond it
_TALL = 1.5  # height over width from which the engine treats a box as a rotated line
_SURE = 0.85  # confidence that only upright text reaches (measured: upright at least 0.96, rotated at most 0.84)
_ENOUGH = 10  # sure characters needed to tell how a picture stands
_COLUMNAR = ("CJK", "HIRAGANA", "KATAKANA", "HANGUL", "BOPOMOFO", "MONGOLIAN")  # scripts that may run downwards
_LINES = 2  # lines that must agree before a picture is turned
_UPRIGHT = 0.1  # share of upright text, of the text that lies, with which a picture is still turned
_SIZES = 1.3  # ratio of heights, and …
_FLUSH = 0.2  # … distance of their ends, as a multiple of the height, within which lines are set as one block


@dataclass(frozen=True)
class TextLine:
    """One text box: its text, the engine's confidence, and its corners [4, 2] in pixels of the picture."""

    text: str
    confidence: float
    corners: np.ndarray

    @property
    def tall(self) -> bool:
        """Whether the box stands on its short side; the engine reads such a box rotated by 90° counterclockwise."""
        width, height = self._sides()
        return height > _TALL * width

    @property
    def height(self) -> float:
        """Height of the characters, pixels."""
        return min(self._sides())

    @property
    def bounds(self) -> tuple[int, int, int, int]:
        """Left, top, right and bottom, whole pixels."""
        (left, top), (right, bottom) = self.corners.min(axis=0), self.corners.max(axis=0)
        return max(0, int(left)), max(0, int(top)), int(right) + 1, int(bottom) + 1

    def _sides(self) -> tuple[float, float]:
        first, second, _, last = self.corners
        return float(np.hypot(*(second - first))), float(np.hypot(*(last - first)))


@dataclass(frozen=True)
class Reading:
    """Text lines in reading order, read from a picture of width × height pixels."""

    lines: tuple[TextLine, ...]
    width: int
    height: int

    @property
    def text(self) -> str:
        """All lines, joined by spaces."""
        return " ".join(line.text for line in self.lines)

    @property
    def text_area(self) -> float:
        """Share of the picture's area inside text boxes, 0 to 1."""
        return min(1.0, sum(_polygon_area(line.corners) for line in self.lines) / (self.width * self.height))

    @property
    def confidence(self) -> float | None:
        """Mean over the lines; None where there are none."""
        return sum(line.confidence for line in self.lines) / len(self.lines) if self.lines else None


def read_text(image: Image.Image) -> Reading:
    """Read the text in a picture of any PIL mode. Boxes without a letter or digit are dropped."""
    rgb = enlarged(image.convert("RGB"))
    result = _engine().predict(np.ascontiguousarray(np.asarray(rgb)[:, :, ::-1]))[0]  # the engine expects BGR
    scale = image.width / rgb.width
    lines = tuple(
        TextLine(text, float(score), np.asarray(box, dtype=np.float64) * scale)
        for text, score, box in zip(result["rec_texts"], result["rec_scores"], result["rec_polys"])
        if comparable(text)
    )
    return Reading(lines, image.width, image.height)


def read_upright(image: Image.Image) -> tuple[Reading, int | None, float | None]:
    """(reading of the picture turned upright, turn in degrees clockwise, doubt from 0 to 1).

    The engine reads upside-down text with low confidence, but rotates tall boxes itself. Two readings, as is and upside
    down, therefore cover all four turns. Turn and doubt are None without enough sure text. Doubt is the share of the
    sure text that would need another turn; 0 if the picture is not turned, which takes the agreement of several lines.
    """
    reading = read_text(image)
    sure = _sure(reading, 0, 270)
    if _weight(reading.lines) > 2 * _weight(*sure.values()):  # most of the text is unsure as is
        sure |= _sure(read_text(turned(image, 180)), 180, 90)
    weights = {degrees: _weight(lines) for degrees, lines in sure.items()}
    turn = max(weights, key=lambda degrees: (weights[degrees], -degrees))
    if weights[turn] < _ENOUGH:
        return reading, None, None
    seen = image if turn in (0, 270) else turned(image, 180)  # as these lines were read
    if not _agree(sure[turn], turn, seen) or weights[0] > _UPRIGHT * weights[turn]:
        return _with_labels(reading, sure.get(90, []) + sure.get(180, [])), 0, 0.0
    doubt = 1 - weights[turn] / sum(weights.values())
    return read_text(turned(image, turn)), turn, doubt


def _with_labels(reading: Reading, head_down: Sequence[TextLine]) -> Reading:
    """A reading of a picture that stands, with sure lines that were read in it head down in place of unsure ones."""
    if not head_down:
        return reading
    size = np.array([reading.width, reading.height])
    labels = [TextLine(line.text, line.confidence, size - line.corners) for line in head_down]
    upright = [line for line in reading.lines if line.confidence > _SURE]
    return Reading((*upright, *labels), reading.width, reading.height)


def _sure(reading: Reading, wide: int, tall: int) -> dict[int, list[TextLine]]:
    """Sure lines by the turn that makes them upright: `wide` for wide boxes, `tall` for tall ones.

    Tall lines of a script that is also set in columns say nothing: the engine reads them either way.
    """
    lines = [line for line in reading.lines if line.confidence > _SURE]
    return {wide: [n for n in lines if not n.tall], tall: [n for n in lines if n.tall and not _columnar(n.text)]}


def _columnar(text: str) -> bool:
    """Whether most letters are of a script that may run from top to bottom."""
    letters = scripts(text)
    return 2 * sum(letters[s] for s in _COLUMNAR) > letters.total()


def _weight(*groups: Sequence[TextLine]) -> int:
    """Number of characters of some lines."""
    return sum(len(comparable(line.text)) for lines in groups for line in lines)


def _agree(lines: Sequence[TextLine], turn: int, image: Image.Image) -> bool:
    """Whether lines, read in `image`, are evidence that the picture lies: two upside down, or two as one block.

    Book spines, axis labels and banners run sideways in upright pictures, but each in its own place and size, or each
    on its own ground.
    """
    if turn == 0 or len(lines) < _LINES:
        return False
    if turn == 180:
        return True
    height = float(np.median([line.height for line in lines]))
    alike = [line for line in lines if height / _SIZES <= line.height <= height * _SIZES]
    ends = np.array([(line.corners[:, 1].min(), line.corners[:, 1].max()) for line in alike])
    edges = np.stack([ends[:, 0], ends.mean(axis=1)])  # set flush where the text begins, at the top as read, or centred
    near = np.abs(edges[:, :, None] - edges[:, None]) <= _FLUSH * height
    block = near[np.unravel_index(near.sum(axis=2).argmax(), near.shape[:2])]
    flush = [line for line, belongs in zip(alike, block) if belongs]
    if len(flush) < _LINES or 2 * _weight(flush) <= _weight(lines):
        return False
    return on_one_sheet(np.asarray(image.convert("RGB")), [line.bounds for line in flush])


def enlarged(image: Image.Image) -> Image.Image:
    """Resize a picture for the engine: enlarge small ones ×2 … ×8 (64 px ×5, 96 px ×4), reduce huge ones."""
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
    """The engine, loaded once per process, on one thread because parallelism is by process. Errors: `UsageError`."""
    os.environ.setdefault("PADDLE_PDX_DISABLE_MODEL_SOURCE_CHECK", "True")
    import logging

    from curation.scorers.ocr_import import import_paddleocr

    paddleocr = import_paddleocr()
    logging.getLogger("paddlex").setLevel(logging.WARNING)
    detection, recognition = model_folders()
    try:
        return paddleocr.PaddleOCR(
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
    except Exception as error:  # a fault of the installation, not of a picture
        raise UsageError(f"PaddleOCR does not start ({error}): run `flywheel doctor`") from error


_LINE = pa.struct(
    [pa.field("text", pa.large_string())]
    + [pa.field(n, pa.float64()) for n in ("confidence", "x", "y", "width", "height")]
)


class Ocr:
    """Text in the picture, and its agreement with the caption's quoted text (null if nothing readable is quoted).

    only_quoted: read only pictures whose caption quotes text; the others are null in every column. OCR costs a hundred
    times as much as other operators. turns: detect rotated pictures without an EXIF orientation and read them upright;
    without it there are no columns `turn` and `turn_doubt`. Verifiers never turn a picture, because a word upside down
    is not the requested word.
    """

    name = "ocr"
    fields = (
        column("text", pa.large_string(), "text read, boxes in reading order joined by spaces"),
        column("boxes", pa.int32(), "text boxes that hold at least one letter or digit"),
        column("lines", pa.list_(_LINE), "boxes in reading order, their bounds as shares of the picture's two sides"),
        column("text_area", pa.float64(), "share of the picture's area inside text boxes, 0 to 1"),
        column("smallest", pa.float64(), "height of the smallest line's characters, pixels; null without text"),
        column("confidence", pa.float64(), "mean recognition confidence of the boxes; null where there are none"),
        column("script", pa.string(), "script of most letters read: LATIN, CJK, CYRILLIC, …; null without a letter"),
        column("scripts", pa.int32(), "scripts with at least a tenth of the letters read"),
        column("language", pa.string(), "ISO 639-1 code of the text read; null where no language is likely enough"),
        column("quoted", pa.large_string(), "text that the caption quotes; null where it quotes nothing"),
        column(
            "ned",
            pa.float64(),
            "normalised edit similarity of read and quoted text, 0 to 1; null where the quote is "
            "in a script that the engine does not know, such as Cyrillic, Arabic, Hangul",
        ),
        column("exact", pa.bool_(), "read and quoted text agree in every letter and digit"),
        column("turn", pa.int32(), "degrees clockwise that make the text upright: 0, 90, 180, 270; null without text"),
        column("turn_doubt", pa.float64(), "share of the sure text that another turn would serve; 0 where turn is 0"),
    )

    def __init__(self, *, only_quoted: bool = False, turns: bool = False) -> None:
        self.only_quoted, self.turns = only_quoted, turns
        options = ("-quoted" if only_quoted else "") + ("-turns" if turns else "")
        self.version = f"4-rapidocr{wheel_version()}{options}"
        self.fields = tuple(f for f in Ocr.fields if turns or not f.name.startswith("turn"))

    def score(self, items: Sequence[Item]) -> list[dict[str, Any] | Exception]:
        """One row per item; `BadImage` where the picture cannot be decoded."""
        return per_item(items, self._one)

    def _one(self, item: Item) -> dict[str, Any]:
        quoted = quoted_text(item.caption)
        if quoted is None and self.only_quoted:
            return dict.fromkeys(field.name for field in self.fields)
        turn: dict[str, Any] = {}
        if not self.turns:
            reading = read_text(item.upright)
        elif item.references:  # turning the result but not its reference would misalign them
            reading, turn = read_text(item.upright), {"turn": None, "turn_doubt": None}
        else:
            reading, degrees, doubt = read_upright(item.upright)
            turn = {"turn": degrees, "turn_doubt": doubt}
        similarity = text_similarity(reading.text, quoted) if quoted is not None and readable(quoted) else None
        letters = scripts(reading.text)
        return {
            "text": reading.text,
            "boxes": len(reading.lines),
            "lines": [_record(line, reading) for line in reading.lines],
            "text_area": reading.text_area,
            "smallest": min((line.height for line in reading.lines), default=None),
            "confidence": reading.confidence,
            "script": main_script(letters),
            "scripts": present(letters),
            "language": language(reading.text),
            "quoted": quoted,
            "ned": similarity,
            "exact": None if similarity is None else similarity == 1.0,
        } | turn


def _record(line: TextLine, reading: Reading) -> dict[str, Any]:
    low, high = line.corners.min(axis=0), line.corners.max(axis=0)
    size = np.array([reading.width, reading.height])
    (x, y), (width, height) = low / size, (high - low) / size
    return {"text": line.text, "confidence": line.confidence, "x": x, "y": y, "width": width, "height": height}
