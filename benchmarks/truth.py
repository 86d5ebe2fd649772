"""Do the filters find what they claim to find? Defects planted on real photographs, precision and recall per filter.

python -m benchmarks.truth [--photos DIR] [--limit 250] [--clip MODEL=CHECKPOINT]

Each filter is tried on clean photographs and on as many with its defect. Its threshold is chosen on one half of the
photographs (recall less false alarms, at a precision of at least 0.98) and reported on the other; beside it what the
threshold of the shipped policy does, where the policy has such a filter. The last line is one JSON object
{filter: {"precision", "recall"}}; a filter whose weights are missing is named above it and left out.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # this folder holds files named like packages

from benchmarks import corruptors as plant
from benchmarks.corruptors import Plant, picture
from curation.decide.dedup import related
from curation.policy.reader import load_policy
from curation.scorers import load
from flywheel.core.image import turned
from flywheel.core.scorer import Item

PHOTOS = Path(__file__).resolve().parents[2] / "shared" / "data" / "photos"
# Photographs of the default folder that carry the defect themselves, looked at one by one: sound for no such filter.
DEFECTIVE = {
    "letter_box": {
        "n02977058_cash_machine.jpg",  # black bars left and right
        "n03347037_fire_screen.jpg",  # white bars on three sides
        "n03729826_matchstick.jpg",  # white frame
        "n03803284_muzzle.jpg",  # white bars above and below
        "n04141076_sax.jpg",  # white frame
    }
}
PRECISION = 0.98  # at which a threshold may be chosen
POLICY = "qwen-image-2"
Rates = dict[str, float]


@dataclass(frozen=True)
class Filter:
    """A score, the side of the threshold that is dropped, the defect it claims to find, and what it must not drop."""

    name: str
    score: str
    drops: str  # "low" | "high"
    defect: Plant
    clean: Plant
    bound: str | None = None  # of the shipped policy


PLAIN, PNG = picture(plant.same), picture(plant.same, form="PNG")


def filters(photos: Sequence[Image.Image]) -> list[Filter]:
    """Every filter that is one score against one threshold."""
    edits = plant.edits(photos)

    return [
        Filter("rotation_exif", "header.orientation", "high", plant.invalid_exif, PLAIN, "S1.rotation.max"),
        Filter("blank", "pixels.entropy", "low", picture(plant.blank), PLAIN, "S1.entropy.min"),
        Filter("noise", "pixels.entropy", "high", picture(plant.noise, form="PNG"), PLAIN, "S1.entropy.max"),
        Filter("gray_noise", "pixels.spatial_entropy", "high", picture(plant.gray_noise, form="PNG"), PLAIN,
               "S1.spatial_entropy.max"),
        Filter("blur", "pixels.sharpness", "low", picture(plant.blur), PLAIN, "S4.image_quality.min"),
        Filter("dark", "exposure.lights", "low", picture(plant.dark), PLAIN, "S1.too_dark.min"),
        Filter("overexposed", "exposure.shadows", "high", picture(plant.bright), PLAIN, "S1.washed_out.max"),
        Filter("recompressed", "header.jpeg_quality", "low", plant.recompressed, PLAIN, "S4.compression.min"),
        Filter("recompressed_png", "pixels.blockiness", "high", picture(plant.worn, form="PNG"), PNG),
        Filter("upscaled", "detail.bandwidth", "low", picture(plant.enlarged), PLAIN, "S5.enlarged.min"),
        Filter("letter_box", "exposure.bars", "high", picture(plant.framed), PLAIN),
        Filter("over_long", "text.token_length", "high", plant.over_long, plant.sound_caption, "S1.token_length.max"),
        Filter("refusal", "caption.invalid", "high", plant.refusal, plant.sound_caption, "S1.invalid_caption.max"),
        Filter("edit_unrelated", "similarity.related", "low", plant.unrelated(photos), edits, "S2.related.min"),
        Filter("edit_unedited", "similarity.largest_change", "low", plant.unedited, edits, "S2.changed.min"),
        Filter("edit_misaligned", "similarity.aspect_change", "high", plant.misaligned, edits, "S2.aligned.max"),
    ]  # fmt: skip


# Judging -------------------------------------------------------------------------------------------------------------
class Scores:
    """Columns of planted photographs, scored once per plant and scorer."""

    def __init__(
        self, photos: Sequence[Image.Image], options: Mapping[str, Mapping[str, Any]], names: Sequence[str] = ()
    ) -> None:
        self.photos, self.options, self.names = photos, options, names
        self._rows: dict[tuple[Plant, str], list[dict[str, Any] | Exception]] = {}

    def rows(self, change: Plant, scorer: str) -> list[dict[str, Any] | Exception]:
        """One row per photograph."""
        if (change, scorer) not in self._rows:
            loaded = load(scorer, **self.options.get(scorer, {}))
            items = (change(photo, n) for n, photo in enumerate(self.photos))
            self._rows[change, scorer] = [loaded.score([item])[0] for item in items]
        return self._rows[change, scorer]

    def values(self, change: Plant, score: str) -> np.ndarray:
        """float64 [N]; NaN where the score is null."""
        scorer, _, key = score.partition(".")
        rows = self.rows(change, scorer)
        if fault := next((r for r in rows if isinstance(r, Exception)), None):
            raise fault
        return np.array([math.nan if r[key] is None else float(r[key]) for r in rows])


def threshold(clean: np.ndarray, defect: np.ndarray) -> float:
    """The bound, at the wanted precision, above which most defects and fewest clean values lie, in the widest gap.

    Scores are scales, such as a variance: the middle of a gap is by ratio, where it does not span zero.
    """
    levels = np.unique(np.concatenate([clean, defect]))
    best, bound = (-1.0, 0.0), math.inf
    for low, high in zip(levels[:-1], levels[1:]):
        caught, wrong = (defect > low).sum(), (clean > low).sum()
        if not caught or caught / (caught + wrong) < PRECISION:
            continue
        if (score := (caught / len(defect) - wrong / len(clean), high - low)) > best:
            best = score
            bound = math.copysign(math.sqrt(low * high), low) if low * high > 0 else (low + high) / 2
    return bound


def rates(clean: Iterable[bool], defect: Iterable[bool]) -> Rates:
    """clean, defect: which of them are dropped."""
    wrong, found = sum(map(bool, clean)), [bool(d) for d in defect]
    caught = sum(found)
    precision = caught / (caught + wrong) if caught + wrong else 0.0
    return {"precision": round(precision, 4), "recall": round(caught / len(found), 4)}


def sides(line: Filter, scores: Scores) -> tuple[int, np.ndarray, np.ndarray]:
    """(sign, scores of clean photographs × sign, of those with the defect × sign); what is over a bound is dropped."""
    sign = 1 if line.drops == "high" else -1
    clean, defect = (sign * scores.values(p, line.score) for p in (line.clean, line.defect))
    clean[[name in DEFECTIVE.get(line.name, ()) for name in scores.names]] = math.nan
    return sign, clean, defect


def judge(line: Filter, scores: Scores) -> tuple[Rates, float]:
    """(rates on the odd photographs, threshold chosen on the even ones)."""
    sign, clean, defect = sides(line, scores)
    bound = threshold(*(v[::2][~np.isnan(v[::2])] for v in (clean, defect)))
    return rates(clean[1::2] > bound, defect[1::2] > bound), sign * bound


def by_policy(line: Filter, scores: Scores) -> str:
    """What the bound of the shipped policy does to all of them."""
    if line.bound is None:
        return "in no filter of the policy"
    bound = load_policy(POLICY).number(line.bound)
    sign, clean, defect = sides(line, scores)
    found = rates(clean > sign * bound, defect > sign * bound)
    return f"policy {line.bound} {bound:g}: {found['precision']:.3f} {found['recall']:.3f}"


def broken(scores: Scores) -> dict[str, Rates]:
    """Unreadable files: no threshold. Sound: photographs as JPEG, and as PNG under the name of a JPEG."""

    def refused(change: Plant) -> list[bool]:
        return [isinstance(row, Exception) for row in scores.rows(change, "pixels")]

    sound = refused(PLAIN) + refused(PNG)
    return {name: rates(sound, refused(change)) for name, change in plant.BROKEN.items()}


def lying(scores: Scores) -> Rates:
    """Photographs with text on them, turned by 90, 180 or 270 degrees: corrected or discarded.

    Sound: the same upright, and photographs without added text. No threshold is chosen, and reading is dear: every
    fourth photograph takes part.
    """
    some = Scores(scores.photos[1::4], scores.options)

    def turn(n: int) -> int:
        return 90 * (1 + n % 3)

    def down(image: Image.Image, n: int) -> Item:
        return picture(lambda photo, rng: turned(plant.lettered(photo, rng), turn(n)))(image, n)

    most = load_policy(POLICY).number("S1.turned.max")

    def discarded(row: Any) -> bool:
        return row["turn_doubt"] is not None and row["turn_doubt"] > most

    wrong = [discarded(r) or bool(r["turn"]) for p in (PLAIN, picture(plant.lettered)) for r in some.rows(p, "ocr")]
    caught = [discarded(r) or r["turn"] == 360 - turn(n) for n, r in enumerate(some.rows(down, "ocr"))]
    return rates(wrong, caught)


def duplicates(scores: Scores) -> tuple[dict[str, Rates], dict[str, Rates], tuple[int, int]]:
    """(rates on the odd photographs by kind, all with the policy's tolerances, tolerances chosen on the even ones).

    A wrong drop is a pair of different photographs.
    """

    def signatures(change: Plant) -> tuple[np.ndarray, np.ndarray]:
        rows = scores.rows(change, "pixels")
        colours = np.stack([np.frombuffer(r["thumbnail"], np.uint8) for r in rows])
        return np.array([r["phash"] for r in rows], np.uint64), colours

    plain = signatures(PLAIN)
    changed = {name: signatures(picture(change)) for name, change in plant.DUPLICATES.items()}

    def outcome(name: str, part: slice, hamming: int, colour: int) -> Rates:
        hashes, colours = (np.concatenate([a[part], b[part]]) for a, b in zip(plain, changed[name]))
        count = len(hashes) // 2
        found = related(hashes, colours, np.zeros(2 * count, np.int64), hamming=hamming, colour=colour)
        twins = zip(found.representatives.tolist(), found.rows.tolist())
        pairs = {(a, b) for a, b in [*found.near.tolist(), *twins] if a != b}
        right = [(n, n + count) in pairs for n in range(count)]
        mixed = {n for pair in pairs if abs(pair[0] - pair[1]) != count for n in pair}
        return rates((n in mixed for n in range(count)), right)

    def quality(tolerances: tuple[int, int]) -> tuple[float, int]:
        found = [outcome(name, slice(0, None, 2), *tolerances) for name in changed]
        enough = all(r["precision"] >= PRECISION for r in found)
        return (sum(r["recall"] for r in found) if enough else -1.0), -sum(tolerances)

    chosen = max(((h, c) for h in (2, 4, 6, 8, 10) for c in (16, 24, 32, 48, 64)), key=quality)
    shipped = [int(load_policy(POLICY).number(f"S1.deduplication.{k}") or 0) for k in ("hamming", "colour")]
    odd = {f"duplicates_{name}": outcome(name, slice(1, None, 2), *chosen) for name in changed}
    return odd, {f"duplicates_{name}": outcome(name, slice(None), *shipped) for name in changed}, chosen


def main() -> None:
    """Print one line per filter, then all as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path, default=PHOTOS, help="folder of sound photographs")
    parser.add_argument("--limit", type=int, default=250, help="photographs to use")
    parser.add_argument("--clip", default="", help="MODEL=CHECKPOINT of open_clip: tries mismatched captions too")
    arguments = parser.parse_args()
    paths = sorted(p for p in arguments.photos.glob("*") if p.suffix.lower() in (".jpg", ".jpeg", ".png"))
    if len(paths) < 20:
        print(f"skipped: {arguments.photos} has {len(paths)} photographs, at least 20 are needed", file=sys.stderr)
        print(json.dumps({}))
        return
    paths = paths[:: max(1, len(paths) // arguments.limit)][: arguments.limit]
    model, _, checkpoint = arguments.clip.partition("=")
    options = {"ocr": {"turns": True}, "clip": {"model": model, "pretrained": checkpoint}}
    scores = Scores([Image.open(p).convert("RGB") for p in paths], options, [p.name for p in paths])
    found: dict[str, Rates] = {}

    def report(name: str, result: Rates, said: str) -> None:
        found[name] = result
        print(f"{name:<24}precision {result['precision']:.3f}  recall {result['recall']:.3f}  {said}", flush=True)

    for name, result in broken(scores).items():
        report(name, result, "refused")
    lines = filters(scores.photos)
    if model:
        lines.append(_image_text(arguments.photos, paths))
    for line in lines:
        result, bound = judge(line, scores)
        report(line.name, result, f"{line.score} {line.drops} of {bound:.4g}; {by_policy(line, scores)}")
    alike, shipped, (hamming, colour) = duplicates(scores)
    for name, result in alike.items():
        policy = shipped[name]
        said = f"within {hamming} bits and {colour} levels; policy: {policy['precision']:.3f} {policy['recall']:.3f}"
        report(name, result, said)
    report("rotated_text", lying(scores), "corrected or discarded")
    if not model:
        print("image_text (mismatched captions)  not applied: clip has no weights, give --clip MODEL=CHECKPOINT")
    print(json.dumps(found))


def _image_text(folder: Path, paths: Sequence[Path]) -> Filter:
    listed = map(json.loads, (folder / "captions.jsonl").read_text("utf-8").splitlines())
    said = {row["file"]: row["caption"] for row in listed}
    captions = [said[p.name] for p in paths]

    def true(image: Image.Image, n: int) -> Item:
        return Item(plant.encoded(image), captions[n])

    return Filter("image_text", "clip.similarity", "low", plant.mismatched(captions), true, "S1.image_text.min")


if __name__ == "__main__":
    main()
