"""Are copies of pictures found, by kind, and do pictures that differ in their text stay apart? By the real policy."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image, ImageDraw, ImageEnhance, ImageOps

from benchmarks.corruptors import encoded, recoloured, resized, watermarked
from benchmarks.graphics import DEEP, PALE, font
from benchmarks.thresholds import threshold
from curation.decide import likeness
from curation.decide.judge import judge
from curation.decide.judging import HeldOut, open_judging
from curation.policy.policy import Filter, Policy, Stage
from curation.policy.reader import load_policy
from curation.run import configure
from curation.scorers.scoring import _score_pack, pending, references_of
from curation.sources.ingest import ingest
from flywheel.core.workspace import Workspace

Rng = np.random.Generator
Change = Callable[[Image.Image, Rng], Image.Image]
WORDS = (
    "revenue", "costs", "north", "south", "people", "platform", "office", "river", "Monday", "Friday", "numbers",
    "travel", "bread", "music", "light", "water", "green", "house", "summer", "garden", "story", "night", "market",
    "coffee", "2024", "2025", "report", "plan", "team", "sale", "open", "closed", "new", "old", "first", "second",
)  # fmt: skip

_TEXT_POOL = 100  # pairs


# Copies --------------------------------------------------------------------------------------------------------------
def mirrored(image: Image.Image, rng: Rng) -> Image.Image:
    return ImageOps.mirror(image)


def bordered(image: Image.Image, rng: Rng) -> Image.Image:
    """A frame of one colour, 3 to 15 % of the short side."""
    tone = int(rng.integers(0, 256))
    colour = [(255, 255, 255), (0, 0, 0), (tone, tone, tone)][int(rng.integers(3))]
    return ImageOps.expand(image, max(2, round(min(image.size) * rng.uniform(0.03, 0.15))), colour)


def rotated(image: Image.Image, rng: Rng) -> Image.Image:
    """By 1 to 6 degrees, the corners filled or cut off."""
    angle = rng.uniform(1, 6) * rng.choice([-1, 1])
    turned = image.rotate(angle, Image.Resampling.BICUBIC, fillcolor=(0, 0, 0))
    if rng.random() < 0.5:
        return turned
    cut = abs(np.tan(np.radians(angle))) / 2
    x, y = image.height * cut, image.width * cut
    return turned.crop((round(x), round(y), round(image.width - x), round(image.height - y)))


def cropped(image: Image.Image, rng: Rng) -> Image.Image:
    """A tenth of the width and of the height, cut off at either side or split between both."""
    left, top = rng.uniform(0, 0.1, 2)
    w, h = image.size
    return image.crop((round(w * left), round(h * top), round(w * (left + 0.9)), round(h * (top + 0.9))))


def gray(image: Image.Image, rng: Rng) -> Image.Image:
    return image.convert("L").convert("RGB")


def brighter(image: Image.Image, rng: Rng) -> Image.Image:
    return ImageEnhance.Brightness(image).enhance(rng.uniform(0.85, 1.2))


KINDS: Mapping[str, Change] = {
    f.__name__: f for f in (mirrored, bordered, rotated, cropped, gray, resized, recoloured, brighter, watermarked)
}


# Texts ---------------------------------------------------------------------------------------------------------------
def _phrase(rng: Rng, words: int) -> str:
    return " ".join(rng.choice(WORDS, words, replace=False))


def _other(rng: Rng, lines: Sequence[str]) -> list[str]:
    """The lines with one word exchanged, one line more, or all lines new."""
    out, kind = list(lines), int(rng.integers(3))
    if kind == 0:
        line = int(rng.integers(len(out)))
        words = out[line].split()
        place = int(rng.integers(len(words)))
        words[place] = str(rng.choice([w for w in WORDS if w != words[place]]))
        out[line] = " ".join(words)
    elif kind == 1:
        out.append(_phrase(rng, 3))
    else:
        out = [_phrase(rng, len(line.split())) for line in out]
    return out


def slides(rng: Rng, photo: Image.Image) -> tuple[list[str], Callable[[Sequence[str]], Image.Image]]:
    papers = PALE if rng.random() < 0.7 else DEEP
    paper = papers[int(rng.integers(len(papers)))]
    ink = (20, 20, 20) if papers is PALE else (235, 235, 235)
    band, size = tuple(int(v) for v in rng.integers(0, 256, 3)), int(rng.choice([20, 26, 32, 40]))

    def draw(lines: Sequence[str]) -> Image.Image:
        image = Image.new("RGB", (1024, 768), paper)
        pen = ImageDraw.Draw(image)
        pen.rectangle([0, 0, 1024, 110], fill=band)
        pen.text((40, 30), "Weekly report", fill="white", font=font(44), stroke_width=2, stroke_fill="black")
        for k, line in enumerate(lines):
            pen.text((90, 200 + round(1.8 * size) * k), line, fill=ink, font=font(size))
        return image

    return [_phrase(rng, int(rng.integers(3, 7))) for _ in range(int(rng.integers(1, 6)))], draw


def posters(rng: Rng, photo: Image.Image) -> tuple[list[str], Callable[[Sequence[str]], Image.Image]]:
    """Large lines on a photograph."""
    size, outline = max(18, photo.height // 11), int(rng.integers(0, 3))

    def draw(lines: Sequence[str]) -> Image.Image:
        image = photo.copy()
        pen = ImageDraw.Draw(image)
        for k, line in enumerate(lines):
            place = (photo.width * 0.06, photo.height * 0.08 + 1.5 * size * k)
            pen.text(
                place, line.upper(), fill="white", font=font(size, True), stroke_width=outline, stroke_fill="black"
            )
        return image

    return [_phrase(rng, 2) for _ in range(int(rng.integers(1, 4)))], draw


def cards(rng: Rng, photo: Image.Image) -> tuple[list[str], Callable[[Sequence[str]], Image.Image]]:
    """One or two words in the middle of a sheet."""
    paper, size = PALE[int(rng.integers(len(PALE)))], int(rng.choice([36, 48, 64, 80]))

    def draw(lines: Sequence[str]) -> Image.Image:
        image = Image.new("RGB", (512, 512), paper)
        text = "\n".join(lines)
        ImageDraw.Draw(image).text((256, 256), text, fill=(30, 40, 120), font=font(size, True), anchor="mm")
        return image

    return [_phrase(rng, 1)], draw


def text_pairs(photos: Sequence[Image.Image], count: int) -> dict[str, tuple[bytes, str]]:
    """`count` pairs that differ in their text: file → (bytes, caption). Every other pair's captions quote the text."""
    files: dict[str, tuple[bytes, str]] = {}
    makers = (slides, slides, posters, cards)
    for n in range(count):
        rng = np.random.default_rng([7, n])
        kind = makers[n % len(makers)]
        lines, draw = kind(rng, photos[int(rng.integers(len(photos)))])
        for side, shown in enumerate((lines, _other(rng, lines))):
            caption = f'a picture that says "{" ".join(shown)}"' if n // len(makers) % 2 else "a picture with text"
            form = "PNG" if rng.random() < 0.5 else "JPEG"
            name = f"{kind.__name__}-{n}-{side}.{form.lower()}"
            files[name] = encoded(draw(shown), form, **({"quality": 85} if form == "JPEG" else {})), caption
    return files


# Through the policy --------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Copied:
    """copy_recall: by kind, on the odd photographs; by_policy: on all, with the shipped bound.

    agreement: the bound that was chosen on the even ones. unlike: pairs of different photographs that were merged, of
    `pairs`.
    """

    copy_recall: Mapping[str, float]
    by_policy: Mapping[str, float]
    unlike: int
    pairs: int
    agreement: float


def checks(policy: str) -> Policy:
    """The shipped policy's checks of duplicates alone."""
    filters = tuple(f for f in load_policy(policy).stages[0].filters if f.check in ("duplicates", "copies"))
    return Policy("copied", (Stage("S1", (256,), ("t2i",), filters),))


def _pool(folder: Path, files: Mapping[str, tuple[bytes, str]], policy: Policy) -> Workspace:
    """A scored pool of these pictures."""
    source, workspace = folder / "pictures.parquet", Workspace(folder / "w")
    images, captions = zip(*files.values())
    pq.write_table(pa.table({"image": list(images), "caption": list(captions)}), source)
    ingest(workspace, source)
    options = {name: policy.scorers.get(name, {}) for name in configure(policy)[0]}
    for pack, todo in pending(workspace, options):
        _score_pack(pack.shards, todo, references_of(workspace, [s.path for s in pack.shards]))
    return workspace


def _merged(workspace: Workspace, policy: Policy) -> list[tuple[int, int]]:
    """(row, its survivor) of every dropped row, by the numbers of the rows in the source."""
    decisions = judge(workspace, policy, configure(policy)[0]).read("decisions").to_pylist()
    number = {d["source_uri"]: int(d["source_uri"].rpartition("#")[2]) for d in decisions}
    return [(number[d["source_uri"]], number[d["survivor_uri"]]) for d in decisions if d["survivor_uri"]]


def merged_texts(photos: Sequence[Image.Image], policy: str, count: int) -> tuple[int, list[str]]:
    """(pairs that differ in their text, files of those of them that were merged); a hundred pairs are one pool."""
    only = checks(policy)
    files = text_pairs(photos, count)
    names, wrong = list(files), []
    for start in range(0, len(names), 2 * _TEXT_POOL):
        part = names[start : start + 2 * _TEXT_POOL]
        with tempfile.TemporaryDirectory() as scratch:
            merged = _merged(_pool(Path(scratch), {name: files[name] for name in part}, only), only)
            wrong += [part[a] for a, b in merged if a // 2 == b // 2]
    return count, wrong


def copies(photos: Sequence[Image.Image], policy: str, kinds: Mapping[str, Change] = KINDS) -> Copied:
    """Recall by kind, and different photographs that are merged."""
    only = checks(policy)
    (loose,) = (f for f in only.stages[0].filters if f.check == "copies")
    count, unlike, pairs = len(photos), 0, 0
    by_policy: dict[str, float] = {}
    by_hash: dict[str, np.ndarray] = {}
    shares: dict[str, np.ndarray] = {}
    others: list[np.ndarray] = [np.zeros(count)]
    for kind, change in kinds.items():
        copied = [change(photo, np.random.default_rng([3, n])) for n, photo in enumerate(photos)]
        images = [*map(encoded, photos), *(encoded(c, quality=85) for c in copied)]
        with tempfile.TemporaryDirectory() as scratch:
            workspace = _pool(Path(scratch), {str(n): (i, f"picture {n}") for n, i in enumerate(images)}, only)
            merged = _merged(workspace, only)
            found = np.zeros(count, bool)
            found[[a % count for a, b in merged if a % count == b % count]] = True
            unlike += len({(a % count, b % count) for a, b in merged if a % count != b % count})
            pairs += 2 * count * (2 * count - 2) // 2
            by_policy[kind] = float(found.mean())
            hashed = Policy("hashed", (Stage("S1", (256,), ("t2i",), only.stages[0].filters[:1]),))
            by_hash[kind] = np.zeros(count, bool)
            by_hash[kind][[a % count for a, b in _merged(workspace, hashed) if a % count == b % count]] = True
            shares[kind], wrong = _shares(workspace, only, loose, count)
            others.append(wrong)
    bound = float(threshold(np.max(others, axis=0)[::2], np.concatenate([s[::2] for s in shares.values()])))
    recall = {k: float((by_hash[k] | (shares[k] > bound))[1::2].mean()) for k in kinds}
    return Copied(recall, by_policy, unlike, pairs, bound)


def _shares(workspace: Workspace, policy: Policy, filter_: Filter, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Agreement of each photograph with its copy, and the most with any other; 0 where they do not meet."""
    with open_judging(workspace, policy, configure(policy)[0], HeldOut()) as judging:
        related = likeness.load(judging, replace(filter_, agreement=0.0)).related
    own, other = np.zeros(count), np.zeros(count)
    for (a, b), share in zip(related.near.tolist(), related.apart.tolist()):
        into, place = (own, a % count) if a % count == b % count else (other, a % count)
        into[place] = max(into[place], share)
    return own, other
