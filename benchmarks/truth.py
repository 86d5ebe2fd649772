"""Precision and recall of each filter, on defects planted in real photographs.

python -m benchmarks.truth [--photos DIR] [--limit 250] [--clip MODEL=CHECKPOINT] [--only PART]

Each filter is tried on clean photographs and on as many with its defect. Its threshold is chosen on one half of the
photographs (recall minus false alarms, at a precision of at least 0.98) and reported on the other half, beside the
result of the shipped policy's threshold if the policy has such a filter. The last line is one JSON object
{filter: {"precision", "recall"}}, with the sound photographs that the NSFW filter and, of those of 512 pixels and more,
the first enlargement filter drop, `copy_recall` by kind, `unlike_merged`, `text_merged` of `text_pairs`,
`graphics_kept` and `blank_caught`; a filter whose weights are missing is named
above it and left out. Without photographs, drawn scenes stand in for them where that is possible.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # this folder holds files named like packages

from benchmarks import corruptors as plant
from benchmarks.copied import copies, merged_texts
from benchmarks.corruptors import Plant, picture
from benchmarks.emptiness import emptiness
from benchmarks.graphics import scenes
from benchmarks.thresholds import threshold
from curation.policy.reader import load_policy
from curation.scorers import load
from flywheel.core.image import turned
from flywheel.core.scorer import Item

PHOTOS = Path(__file__).resolve().parents[2] / "shared" / "data" / "photos"
# Photographs of the default folder that have the defect themselves, checked one by one: not clean for that filter.
DEFECTIVE = {
    "letter_box": {
        "n02977058_cash_machine.jpg",  # black bars left and right
        "n03347037_fire_screen.jpg",  # white bars on three sides
        "n03729826_matchstick.jpg",  # white frame
        "n03803284_muzzle.jpg",  # white bars above and below
        "n04141076_sax.jpg",  # white frame
    }
}
POLICY = "qwen-image-2"
TEXT_PAIRS = 500
PARTS = ("filters", "copies", "texts", "graphics")
Rates = dict[str, float]


@dataclass(frozen=True)
class Filter:
    """A score, the side of the threshold that is dropped, the defect to find, and clean pictures that must stay."""

    name: str
    score: str
    drops: str  # "low" | "high"
    defect: Plant
    clean: Plant
    bound: str | None = None  # path of the threshold in the shipped policy
    unit: float = 1.0  # by which that threshold is divided
    every: int = 1  # picture of which one is used


PLAIN, PNG = picture(plant.same), picture(plant.same, form="PNG")


def filters(photos: Sequence[Image.Image]) -> list[Filter]:
    """Every filter that compares one score with one threshold."""
    edits = plant.edits(photos)

    return [
        Filter("rotation_exif", "header.orientation", "high", plant.invalid_exif, PLAIN, "S1.rotation.max"),
        Filter("blank", "structure.edges", "low", picture(plant.blank), PLAIN, "S1.blank.min"),
        Filter("noise", "pixels.entropy", "high", picture(plant.noise, form="PNG"), PLAIN, "S1.entropy.max"),
        Filter("gray_noise", "pixels.spatial_entropy", "high", picture(plant.gray_noise, form="PNG"), PLAIN,
               "S1.spatial_entropy.max"),
        Filter("blur", "pixels.sharpness", "low", picture(plant.blur), PLAIN, "S4.image_quality.min"),
        Filter("dark", "exposure.peak", "low", picture(plant.dark), PLAIN, "S1.black.min"),
        Filter("overexposed", "exposure.burnt", "high", picture(plant.bright), PLAIN, "S1.burnt.max"),
        Filter("recompressed", "header.jpeg_quality", "low", plant.recompressed, PLAIN, "S4.compression.min"),
        Filter("recompressed_png", "detail.blockiness", "high", picture(plant.worn, form="PNG"), PNG, "S4.worn.max"),
        Filter("recompressed_twice", "detail.blockiness", "high", picture(plant.worn, quality=95), PLAIN,
               "S4.worn.max"),
        *(Filter(f"upscaled_{edge}", "detail.bandwidth", "low", picture(plant.enlarged(edge)), PLAIN,
                 f"{stage}.enlarged.min", edge, every)
          for stage, edge, every in (("S3", 512, 1), ("S4", 1024, 3), ("S5", 2048, 9))),
        Filter("letter_box", "exposure.bars", "high", picture(plant.framed), PLAIN),
        Filter("over_long", "text.token_length", "high", plant.over_long, plant.sound_caption, "S1.token_length.max"),
        Filter("refusal", "caption.invalid", "high", plant.refusal, plant.sound_caption, "S1.invalid_caption.max"),
        Filter("edit_unrelated", "similarity.related", "low", plant.unrelated(photos), edits, "S2.related.min"),
        Filter("edit_unedited", "similarity.largest_change", "low", plant.unedited, edits, "S2.changed.min"),
        Filter("edits_unrelated", "similarity.related", "low", plant.strangers(photos), plant.joined(photos),
               "S2.related.min"),
        Filter("edits_unedited", "similarity.largest_change", "low", plant.one_of_them(photos), plant.joined(photos),
               "S2.changed.min"),
        Filter("edit_misaligned", "similarity.aspect_change", "high", plant.misaligned, edits, "S2.aligned.max"),
    ]  # fmt: skip


# Judging -------------------------------------------------------------------------------------------------------------
class Scores:
    """Score columns of photographs with planted defects, computed once per plant and scorer."""

    def __init__(
        self, photos: Sequence[Image.Image], options: Mapping[str, Mapping[str, Any]], names: Sequence[str] = ()
    ) -> None:
        self.photos, self.options, self.names = photos, options, names
        self._rows: dict[tuple[Plant, str, int], list[dict[str, Any] | Exception]] = {}

    def rows(self, change: Plant, scorer: str, every: int = 1) -> list[dict[str, Any] | Exception]:
        """One row per photograph."""
        if (change, scorer, every) not in self._rows:
            loaded = load(scorer, **self.options.get(scorer, {}))
            items = (change(photo, n) for n, photo in enumerate(self.photos[::every]))
            self._rows[change, scorer, every] = [loaded.score([item])[0] for item in items]
        return self._rows[change, scorer, every]

    def scored(self, change: Plant, scorer: str, every: int = 1) -> list[dict[str, Any]]:
        """One row per photograph; raises the fault of a photograph that cannot be scored."""
        scored = []
        for row in self.rows(change, scorer, every):
            if isinstance(row, Exception):
                raise row
            scored.append(row)
        return scored

    def values(self, change: Plant, score: str, every: int = 1) -> np.ndarray:
        """Values of a score: float64 [N], NaN where it is null."""
        scorer, _, key = score.partition(".")
        rows = self.scored(change, scorer, every)
        return np.array([math.nan if r[key] is None else float(r[key]) for r in rows])


def rates(clean: Iterable[bool], defect: Iterable[bool]) -> Rates:
    """Precision and recall. clean, defect: whether each picture is dropped."""
    wrong, drops = sum(map(bool, clean)), [bool(d) for d in defect]
    caught = sum(drops)
    precision = caught / (caught + wrong) if caught + wrong else 0.0
    return {"precision": round(precision, 4), "recall": round(caught / len(drops), 4)}


def sides(filter_: Filter, scores: Scores) -> tuple[int, np.ndarray, np.ndarray]:
    """(sign, sign × scores of clean photographs, sign × scores with the defect); values above a bound are dropped."""
    sign = 1 if filter_.drops == "high" else -1
    clean, defect = (
        sign * scores.values(p, filter_.score, n) for p, n in ((filter_.clean, 1), (filter_.defect, filter_.every))
    )
    clean[[name in DEFECTIVE.get(filter_.name, ()) for name in scores.names]] = math.nan
    return sign, clean, defect


def judge(filter_: Filter, scores: Scores) -> tuple[Rates, float]:
    """(rates on the odd photographs, threshold chosen on the even ones)."""
    sign, clean, defect = sides(filter_, scores)
    bound = threshold(*(v[::2][~np.isnan(v[::2])] for v in (clean, defect)))
    return rates(clean[1::2] > bound, defect[1::2] > bound), sign * bound


def by_policy(filter_: Filter, scores: Scores) -> str:
    """Result of the shipped policy's bound on all photographs."""
    if filter_.bound is None:
        return "no filter of the policy uses it"
    bound = load_policy(POLICY).number(filter_.bound)
    sign, clean, defect = sides(filter_, scores)
    if bound is None:
        return f"policy {filter_.bound}: open"
    bound /= filter_.unit
    result, wrong = rates(clean > sign * bound, defect > sign * bound), int((clean > sign * bound).sum())
    return f"policy {filter_.bound} {bound:.4g}: {result['precision']:.3f} {result['recall']:.3f}, drops {wrong} sound"


def broken(scores: Scores) -> dict[str, Rates]:
    """Rates for unreadable files, which need no threshold. Clean: photographs as JPEG, and as PNG named like a JPEG."""

    def refused(change: Plant) -> list[bool]:
        return [isinstance(row, Exception) for row in scores.rows(change, "pixels")]

    sound = refused(PLAIN) + refused(PNG)
    return {name: rates(sound, refused(change)) for name, change in plant.BROKEN.items()}


def lying(scores: Scores) -> Rates:
    """Rates for photographs with text, turned by 90, 180 or 270 degrees: they must be corrected or discarded.

    Clean: the same photographs upright, and photographs without added text. No threshold is chosen, and because reading
    is slow only every fourth photograph is used.
    """
    some = Scores(scores.photos[1::4], scores.options)

    def turn(n: int) -> int:
        return 90 * (1 + n % 3)

    def down(image: Image.Image, n: int) -> Item:
        return picture(lambda photo, rng: turned(plant.lettered(photo, rng), turn(n)))(image, n)

    limit = load_policy(POLICY).number("S1.turned.max")
    most = math.inf if limit is None else limit

    def discarded(row: dict[str, Any]) -> bool:
        return row["turn_doubt"] is not None and row["turn_doubt"] > most

    wrong = [discarded(r) or bool(r["turn"]) for p in (PLAIN, picture(plant.lettered)) for r in some.scored(p, "ocr")]
    caught = [discarded(r) or r["turn"] == 360 - turn(n) for n, r in enumerate(some.scored(down, "ocr"))]
    return rates(wrong, caught)


def main() -> None:
    """Print one line per filter, then all results as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path, default=PHOTOS, help="folder of photographs without defects")
    parser.add_argument("--limit", type=int, default=250, help="photographs to use")
    parser.add_argument("--clip", default="", help="MODEL=CHECKPOINT of open_clip: tries mismatched captions too")
    parser.add_argument("--only", action="append", choices=PARTS, help="parts to run; default: all")
    arguments = parser.parse_args()
    paths = sorted(p for p in arguments.photos.glob("*") if p.suffix.lower() in (".jpg", ".jpeg", ".png"))
    if len(paths) < 20:
        print(f"skipped: {arguments.photos} has {len(paths)} photographs, at least 20 are needed", file=sys.stderr)
        print(json.dumps(_drawn(scenes(20), arguments.limit)))
        return
    paths = paths[:: max(1, len(paths) // arguments.limit)][: arguments.limit]
    photos = [Image.open(p).convert("RGB") for p in paths]
    parts: dict[str, Callable[[], dict[str, Any]]] = {
        "filters": lambda: _filters(photos, paths, arguments.clip),
        "copies": lambda: _copies(photos),
        "texts": lambda: _texts(photos),
        "graphics": lambda: _drawn(photos, arguments.limit),
    }
    results: dict[str, Any] = {}
    for name in arguments.only or parts:
        results |= parts[name]()
    print(json.dumps(results))


def _filters(photos: Sequence[Image.Image], paths: Sequence[Path], clip: str) -> dict[str, Any]:
    """Rates of every filter with a threshold, and what else is counted on photographs; prints a line each."""
    model, _, checkpoint = clip.partition("=")
    options = {"ocr": {"turns": True}, "clip": {"model": model, "pretrained": checkpoint}}
    scores = Scores(photos, options, [p.name for p in paths])
    results: dict[str, Any] = {}

    def report(name: str, result: Rates, note: str) -> None:
        results[name] = result
        print(f"{name:<24}precision {result['precision']:.3f}  recall {result['recall']:.3f}  {note}", flush=True)

    for name, result in broken(scores).items():
        report(name, result, "refused")
    tried = filters(photos)
    if model:
        tried.append(_image_text(paths))
    for filter_ in tried:
        result, bound = judge(filter_, scores)
        report(filter_.name, result, f"{filter_.score} {filter_.drops} of {bound:.4g}; {by_policy(filter_, scores)}")
    report("rotated_text", lying(scores), "corrected or discarded")
    if not model:
        print("image_text (mismatched captions)  not applied: clip has no weights, give --clip MODEL=CHECKPOINT")
    return {**results, **_nsfw(scores), "upscaled_dropped": _large(scores)}


def _nsfw(scores: Scores) -> dict[str, int]:
    """Photographs that the policy's two bounds drop; prints them."""
    probability = scores.values(PLAIN, "nsfw.probability")
    counts = {f"nsfw_dropped_{stage}": int((probability > _bound(f"{stage}.nsfw.max")).sum()) for stage in ("S1", "S6")}
    print("nsfw: recall is not measured, because no folder here holds such pictures; of the photographs drop", counts)
    print(f"the highest: {', '.join(f'{p:.2f}' for p in np.sort(probability)[:-6:-1])}")
    return counts


def _large(scores: Scores) -> int:
    """Photographs of at least 512 pixels that the first bound of enlargement drops."""
    large = np.array([min(photo.size) >= 512 for photo in scores.photos])
    falls = large & (scores.values(PLAIN, "detail.native_edge") < _bound("S3.enlarged.min"))
    print(f"{int(falls.sum())} of {int(large.sum())} photographs of 512 pixels and more fall as enlarged")
    return int(falls.sum())


def _bound(path: str) -> float:
    bound = load_policy(POLICY).number(path)
    return math.inf if bound is None else bound


def _copies(photos: Sequence[Image.Image]) -> dict[str, Any]:
    """Recall of copies by kind, and different photographs that are merged."""
    found = copies(photos, POLICY)
    for kind, recall in found.copy_recall.items():
        policy = found.by_policy[kind]
        print(f"copies, {kind:<16}recall {recall:.3f}  agreement {found.agreement:.3f}; policy {policy:.3f}")
    print(f"{found.unlike} of {found.pairs} pairs of different photographs are merged", flush=True)
    return {"copy_recall": {k: round(v, 4) for k, v in found.copy_recall.items()}, "unlike_merged": found.unlike}


def _texts(photos: Sequence[Image.Image]) -> dict[str, Any]:
    """Pictures of different texts that are merged."""
    pairs, merged = merged_texts(photos, POLICY, TEXT_PAIRS)
    print(f"{len(merged)} of {pairs} pairs that differ in their text are merged: {', '.join(merged[:9])}", flush=True)
    return {"text_merged": len(merged), "text_pairs": pairs}


def _drawn(photos: Sequence[Image.Image], limit: int) -> dict[str, float]:
    """Shares of sound pictures kept and of empty frames caught; prints what falls by kind. A half needs a picture."""
    if limit < 2:
        return {}
    result = emptiness(photos, POLICY, min(32, limit))
    kept, caught = result.by_policy
    print(
        f"of {result.pictures} sound pictures {result.graphics_kept:.4f} kept, {result.blank_caught:.4f} of empty ones"
    )
    print(f"caught; bounds {result.bounds}; policy: {kept:.4f} {caught:.4f}")
    print("falls:", ", ".join(f"{kind} {share:.2f}" for kind, share in result.by_kind.items()))
    return {"graphics_kept": round(result.graphics_kept, 4), "blank_caught": round(result.blank_caught, 4)}


def _image_text(paths: Sequence[Path]) -> Filter:
    rows = map(json.loads, (paths[0].parent / "captions.jsonl").read_text("utf-8").splitlines())
    by_file = {row["file"]: row["caption"] for row in rows}
    captions = [by_file[p.name] for p in paths]

    def true(image: Image.Image, n: int) -> Item:
        return Item(plant.encoded(image), captions[n])

    return Filter("image_text", "clip.similarity", "low", plant.mismatched(captions), true, "S1.image_text.min")


if __name__ == "__main__":
    main()
