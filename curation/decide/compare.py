"""Compare pairs of pool rows that resemble each other: their sketches, and the text that they show.

Sketches, captions and texts are read from the score files and the pool's shards, only of the rows in question.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2b
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from curation.captioning.written import ROW, with_written
from curation.decide.agreement import NOTHING, Agreement, agreement, may_agree
from curation.decide.alignment import Sketch
from curation.decide.glimpse import Glimpse
from curation.decide.judging import Judging
from curation.scorers.quotes import comparable, quoted_text, text_similarity
from curation.scorers.stored import read_scores, score_path
from curation.sources import pool
from flywheel.core.cluster import run_all, running
from flywheel.core.storage import readable

_FEW = 64  # pairs that cost less than sending them to workers …
_PAIRS = 256  # … which compare so many at a time
_SHARDS = 64  # pool shards whose sketches are in memory together, as they are stored, …
_SKETCHES = 512  # … and sketches that are decoded, of up to a megabyte each …
_GLIMPSES = 1 << 14  # … and glimpses, of 2 KiB
_OTHER_TEXT = 0.9  # similarity of two texts that were read below which they differ; above it, pixels decide


@dataclass(frozen=True)
class Texts:
    """Text that a caption quotes, and text that was read in the picture; None where nothing quotes or reads it."""

    quoted: str | None = None
    read: str | None = None


def same_text(first: Texts, second: Texts) -> bool | None:
    """Whether two pictures show the same text; None where it cannot be told."""
    if first.read is not None and second.read is not None:
        one, two = comparable(first.read), comparable(second.read)
        if one == two:
            return True if one else None
        return False if text_similarity(one, two) < _OTHER_TEXT else None
    if first.quoted and second.quoted:
        one, two = comparable(first.quoted), comparable(second.quoted)
        return None if one in two or two in one else False  # one may quote a part of the text
    return None


@dataclass(frozen=True)
class Part:
    """A shard of the pool: the place of its first row, and its score files by scorer, of `copies` and `ocr`."""

    start: int
    shard: pool.Shard
    scores: Mapping[str, Path]


def files_of(judging: Judging) -> list[Part]:
    """Every part of the pool, in its order."""
    scorers = {name: judging.scorers[name] for name in ("copies", "ocr") if name in judging.scorers}
    shards = pool.shards(judging.workspace)
    starts = accumulate((s.rows for s in shards), initial=0)
    paths = [{name: score_path(judging.workspace, scorer, s) for name, scorer in scorers.items()} for s in shards]
    return [Part(*part) for part in zip(starts, shards, paths)]


class Rows:
    """What the comparison needs of the pool's rows, by their places in it. parts: all that have the rows."""

    def __init__(self, parts: Sequence[Part]) -> None:
        self._parts = parts
        self._starts = [p.start for p in parts]
        self._texts = lru_cache(maxsize=_SHARDS)(self._read_texts)
        self._states = lru_cache(maxsize=None)(self._state)

    def sketch(self, place: int) -> Sketch:
        """The sketch of a row that was scored without an error."""
        return _sketch(*self._stored(place))

    def glimpse(self, place: int) -> Glimpse:
        """What is seen of such a row before its sketch is decoded."""
        return _glimpse(*self._stored(place))

    def _stored(self, place: int) -> tuple[Path, pool.Shard, tuple[int, float], int]:
        number, row = self._at(place)
        part = self._parts[number]
        return part.scores["copies"], part.shard, self._states(number), row

    def texts(self, place: int) -> Texts:
        """The texts of a row."""
        shard, row = self._at(place)
        return self._texts(shard)[row]

    def landmarks(self, places: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(hashes, number of the row in `places` that each belongs to) of the rows at these ascending places."""
        hashes, owners = [np.empty(0, np.uint64)], [np.empty(0, np.int64)]
        for number, low, high, rows in self._taken(places):
            column = self._scores(number, "copies", ["hashes"])["hashes"].take(rows)
            found = [np.frombuffer(v or b"", "<u8").astype(np.uint64) for v in column.to_pylist()]
            hashes += found
            owners.append(np.repeat(np.arange(low, high), [len(f) for f in found]))
        return np.concatenate(hashes), np.concatenate(owners)

    def digests(self, places: np.ndarray) -> np.ndarray:
        """uint64, one per row at these ascending places: equal only for equal sketches."""
        out = [np.empty(0, np.uint64)]
        for number, _, _, rows in self._taken(places):
            column = self._scores(number, "copies", ["sketch"])["sketch"].take(rows)
            out.append(np.array([_digest(v) for v in column.to_pylist()], np.uint64))
        return np.concatenate(out)

    def together(self, pairs: np.ndarray) -> np.ndarray:
        """Order of the pairs in which those of the same shards follow each other: int64 [M]."""
        blocks = (np.searchsorted(self._starts, pairs, side="right") - 1) // (_SHARDS // 2)
        return np.lexsort((blocks[:, 1], blocks[:, 0]))

    def only(self, places: np.ndarray) -> list[Part]:
        """The parts that have the rows at these places."""
        numbers = np.unique(np.searchsorted(self._starts, places.ravel(), side="right") - 1)
        return [self._parts[number] for number in numbers.tolist()]

    def _taken(self, places: np.ndarray) -> Iterator[tuple[int, int, int, np.ndarray]]:
        """For each part that has some of the ascending places: (its number, their range in `places`, its rows)."""
        for number, part in enumerate(self._parts):
            low, high = np.searchsorted(places, (part.start, part.start + part.shard.rows))
            if high > low:
                yield number, int(low), int(high), places[low:high] - part.start

    def _at(self, place: int) -> tuple[int, int]:
        number = bisect_right(self._starts, place) - 1
        return number, place - self._starts[number]

    def _scores(self, number: int, scorer: str, columns: list[str]) -> Any:
        part = self._parts[number]
        return read_scores(part.scores[scorer], part.shard, columns)

    def _state(self, number: int) -> tuple[int, float]:
        """What changes when the sketches' file is written again, as by an erasure: its size and time."""
        about = self._parts[number].scores["copies"].stat()
        return about.st_size, about.st_mtime

    def _read_texts(self, number: int) -> list[Texts]:
        listed = self._parts[number].shard
        rows = pq.read_table(readable(listed.path), columns=list(ROW)).to_pylist()
        read = [None] * len(rows)
        if "ocr" in self._parts[number].scores:
            read = self._scores(number, "ocr", ["text"])["text"].to_pylist()
        return [Texts(_quoted(row), text) for row, text in zip(with_written(rows, listed.captions), read)]


@lru_cache(maxsize=_SKETCHES)  # of the process: a worker meets a picture in many of its tasks
def _sketch(path: Path, shard: pool.Shard, state: tuple[int, float], row: int) -> Sketch:
    return Sketch.of(**_looks(path, shard, state)[row])


@lru_cache(maxsize=_GLIMPSES)
def _glimpse(path: Path, shard: pool.Shard, state: tuple[int, float], row: int) -> Glimpse:
    return Glimpse.of(**_looks(path, shard, state)[row])


@lru_cache(maxsize=_SHARDS)
def _looks(path: Path, shard: pool.Shard, state: tuple[int, float]) -> list[dict[str, Any]]:
    """state: for the cache alone, see `Rows`."""
    rows: list[dict[str, Any]] = read_scores(path, shard, ["hashes", "places", "sketch"]).to_pylist()
    return rows


def _digest(sketch: bytes | None) -> int:
    return int.from_bytes(blake2b(sketch or b"", digest_size=8).digest())


def _quoted(row: dict[str, Any]) -> str | None:
    """Text that the first of a row's captions with a quote quotes."""
    captions = (row["caption"], *(c["text"] for c in row["captions"]))
    return next((text for c in captions if (text := quoted_text(c))), None)


def agreements(rows: Rows, pairs: np.ndarray, *, by_landmarks: bool) -> tuple[np.ndarray, np.ndarray]:
    """(share that agrees, float64 [M]; whether text or marks differ, bool [M]) of pairs of places, int64 [M, 2].

    The workers of a running `cluster` compare them, unless they are few.
    """
    if len(pairs) <= _FEW or not running():
        return _compared(rows, pairs, by_landmarks)
    order = rows.together(pairs)
    parts = [pairs[order[n : n + _PAIRS]] for n in range(0, len(pairs), _PAIRS)]
    calls = ((rows.only(part), part, by_landmarks) for part in parts)
    results: dict[int, Any] = dict(run_all(_compared_there, calls))
    if lost := next((r for r in results.values() if isinstance(r, Exception)), None):
        raise lost
    shares, differ = np.empty(len(pairs)), np.empty(len(pairs), bool)
    shares[order], differ[order] = (np.concatenate(found) for found in zip(*(results[n] for n in range(len(parts)))))
    return shares, differ


def _compared_there(parts: Sequence[Part], pairs: np.ndarray, by_landmarks: bool) -> tuple[np.ndarray, np.ndarray]:
    """In a worker."""
    return _compared(Rows(parts), pairs, by_landmarks)


def _compared(rows: Rows, pairs: np.ndarray, by_landmarks: bool) -> tuple[np.ndarray, np.ndarray]:
    results = [_agreement(rows, a, b, by_landmarks) for a, b in pairs.tolist()]
    return np.array([r.share for r in results], float), np.array([r.differs for r in results], bool)


def _agreement(rows: Rows, first: int, second: int, by_landmarks: bool) -> Agreement:
    if by_landmarks and not may_agree(rows.glimpse(first), rows.glimpse(second)):
        return NOTHING
    same = same_text(rows.texts(first), rows.texts(second))
    if same is False:
        return Agreement(0.0, True)
    found = agreement(rows.sketch(first), rows.sketch(second), by_landmarks=by_landmarks)
    return Agreement(found.share, found.differs and not same)


def other_texts(rows: Rows, pairs: np.ndarray) -> np.ndarray:
    """Whether the texts of pairs of places differ: bool [M]."""
    return np.array([same_text(rows.texts(a), rows.texts(b)) is False for a, b in pairs.tolist()], bool)
