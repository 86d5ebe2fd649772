"""Write synthetic samples as a source folder for `flywheel run --source`: verified pictures and a captions.jsonl.

Candidate n is a pure function of the job and n, so any number of workers can make parts of candidates in any order. The
source is the first `count` samples that pass their entry checks. A finished part is a file: after a kill, a new run
resumes where it stopped.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, astuple, dataclass, field
from pathlib import Path
from typing import Any

from curation.synthesis.documents import SCENE, documents, scene_text, voices_of
from curation.synthesis.masked import KINDS, masked_edits
from curation.synthesis.photos import OPERATIONS, RESTORATIONS, STYLES, photo_edits
from curation.synthesis.pictures import Picture
from curation.synthesis.sample import Recipe, Sample, Unsuitable
from flywheel.core.errors import UsageError
from flywheel.core.files import digest, read_json, rename, write_bytes, write_json
from flywheel.core.image import BadImage

OPERATION_SETS = {"tone": OPERATIONS, "restoration": RESTORATIONS, "style": STYLES}
EDIT_KINDS = (*KINDS, *OPERATION_SETS)
_FORMAT = 2  # increase it when the same job would give other samples
_PART = 8  # candidates per part
_PATIENCE = 100  # refused candidates beyond those that passed, at which the job gives up

Progress = Callable[[int, int, str], None]


@dataclass(frozen=True)
class TextJob:
    """Pages with text, or texts in photographs (style `scene`)."""

    style: str
    scripts: tuple[str, ...]
    seed: int
    side: int
    tokens: int
    lines: tuple[str, ...] = ()

    stream = "synthetic"

    def require_valid(self, pictures: int) -> None:
        """Errors: `UsageError` before anything is made."""
        if self.style != SCENE:
            self._recipe()
        elif not pictures:
            raise UsageError("texts in photographs need photographs: pass --photos FOLDER, or --workspace with a pool")
        else:
            voices_of(self.scripts, self.lines)

    def candidates(self, start: int, stop: int, pictures: Sequence[Picture]) -> Iterator[list[Sample] | Unsuitable]:
        """Candidates start … stop − 1, one sample each. `pictures`: one per candidate, for style `scene`."""
        if self.style != SCENE:
            recipe = self._recipe()
            order = list(recipe.variants)
            random.Random(f"{self.seed}/{self.style}").shuffle(order)
            for n in range(start, stop):
                yield [recipe.render(order[n % len(order)], self._rng(n))]
            return
        voices = list(voices_of(self.scripts, self.lines).values())
        for n, picture in zip(range(start, stop), pictures):
            try:
                yield [scene_text(picture.read(), picture.caption, voices[n % len(voices)], self._rng(n))]
            except (BadImage, OSError, Unsuitable) as error:
                yield Unsuitable(str(error))

    def _recipe(self) -> Recipe:
        capability = "long_text" if self.style == "paragraph" else "slides"
        return documents(
            self.style, capability, (self.style,), self.scripts, side=self.side, tokens=self.tokens, lines=self.lines
        )

    def _rng(self, n: int) -> random.Random:
        return random.Random(f"{self.seed}/{self.style}/{n}")


@dataclass(frozen=True)
class EditJob:
    """Edit pairs from photographs, each with its inverse."""

    kinds: tuple[str, ...]
    seed: int

    stream = "ti2i"

    def require_valid(self, pictures: int) -> None:
        """Errors: `UsageError` before anything is made."""
        if unknown := [k for k in self.kinds if k not in EDIT_KINDS]:
            raise UsageError(f"unknown kind of edit {unknown[0]!r}: choose from {', '.join(EDIT_KINDS)}")
        if pictures < 2:
            raise UsageError("edits need two photographs or more: pass --photos FOLDER, or --workspace with a pool")

    def candidates(self, start: int, stop: int, pictures: Sequence[Picture]) -> Iterator[list[Sample] | Unsuitable]:
        """Candidates start … stop − 1, an edit and its inverse each. `pictures`: one per candidate, and one more."""
        for n, first, second in zip(range(start, stop), pictures, pictures[1:]):
            kind = self.kinds[n % len(self.kinds)]
            rng = random.Random(f"{self.seed}/{kind}/{n}")
            try:
                yield list(self._pair(kind, first, second, rng))
            except (BadImage, OSError, Unsuitable) as error:
                yield Unsuitable(str(error))

    def _pair(self, kind: str, first: Picture, second: Picture, rng: random.Random) -> Iterator[Sample]:
        if kind in KINDS:
            yield from masked_edits(kind, first.read(), first.caption, second.read(), second.caption, rng)
        else:
            operation = rng.choice(OPERATION_SETS[kind])
            pair = list(photo_edits(first.read(), seed=str(rng.getrandbits(64)), operations=(operation,)))
            if not pair:
                raise Unsuitable(f"photo-{operation.name}: the edit changes nothing visible")
            yield from pair


SynthesisJob = TextJob | EditJob


@dataclass
class SourceSummary:
    """Number of samples in a source, and number and reasons of refused candidates."""

    folder: str
    samples: int = 0
    refused: int = 0
    reasons: Counter[str] = field(default_factory=Counter)


def write_source(
    folder: Path,
    job: SynthesisJob,
    count: int,
    *,
    pictures: Sequence[Picture] = (),
    workers: int = 2,
    progress: Progress | None = None,
) -> SourceSummary:
    """Write `count` verified samples of the job (edits: both directions together) and their captions.jsonl.

    `pictures`: photographs to start from, used in turn. The same job, pictures and count give the same bytes; a larger
    count adds samples. Errors: `UsageError` for a folder with other content, an invalid job, and a job whose candidates
    hardly ever pass.
    """
    job.require_valid(len(pictures))
    _claim(folder, digest(_FORMAT, type(job).__name__, asdict(job), [astuple(p) for p in pictures]))
    need = -(-count // _PART)
    while True:
        todo = [n for n in range(need) if not _part(folder, n).exists()]
        for done, _ in enumerate(_each_part(folder, job, pictures, todo, workers), 1):
            if progress:
                progress(done, len(todo), f"parts of {_PART} candidates")
        parts = [read_json(_part(folder, n)) for n in range(need)]
        rows = [row for part in parts for row in part["rows"]]
        refused = [r["reason"] for part in parts for r in part["refused"]]
        if len(rows) >= count:
            break
        if len(refused) > _PATIENCE + len(rows):
            most = Counter(refused).most_common(1)[0][0]
            total = len(refused) + len(rows)
            raise UsageError(
                f"{len(refused)} of {total} candidates are refused, mostly: {most}; change settings or photographs"
            )
        need += -(-(count - len(rows)) // _PART)
    _publish(folder, rows[:count])
    return SourceSummary(str(folder), count, len(refused), Counter(refused))


def _claim(folder: Path, identity: str) -> None:
    """Mark the folder as this job's. Errors: `UsageError` if it has other content."""
    mark = folder / ".job.json"
    if mark.exists():
        if read_json(mark)["job"] != identity:
            raise UsageError(f"--output {folder} holds samples of other settings: choose a new folder")
    elif folder.exists() and any(folder.iterdir()):
        raise UsageError(f"--output {folder} is not empty: choose a new folder")
    else:
        write_json(mark, {"job": identity})


def _each_part(
    folder: Path, job: SynthesisJob, pictures: Sequence[Picture], todo: Sequence[int], workers: int
) -> Iterator[None]:
    """Make the parts, few in this process, many on Ray; yields once per finished part."""
    calls = []
    for number in todo:
        places = range(number * _PART, (number + 1) * _PART + 1) if pictures else ()
        calls.append((str(folder), job, number, [pictures[n % len(pictures)] for n in places]))
    if len(calls) < 3 or workers == 1:
        for call in calls:
            _make_part(*call)
            yield
        return
    from flywheel.core.cluster import cluster, run_all

    with cluster(workers):
        for _, failure in run_all(_make_part, calls):
            if isinstance(failure, Exception):
                raise UsageError(
                    "a process that makes samples was killed twice: free memory, then run the same command again; "
                    "finished parts are kept"
                ) from failure
            yield


def _make_part(folder: str, job: SynthesisJob, number: int, pictures: Sequence[Picture]) -> None:
    """Make and verify the candidates of one part, and write those that pass. Runs in a worker process."""
    rows, refused = [], []
    for candidate in job.candidates(number * _PART, (number + 1) * _PART, pictures):
        if isinstance(candidate, Unsuitable):
            refused.append({"reason": str(candidate).partition(":")[0], "evidence": str(candidate)})
        elif failure := _failed(candidate):
            refused.append({"reason": failure[0], "evidence": failure[1]})
        else:
            rows += [_write(Path(folder, ".parts"), sample, job.stream) for sample in candidate]
    write_json(_part(Path(folder), number), {"rows": rows, "refused": refused})


def _failed(samples: Sequence[Sample]) -> tuple[str, str] | None:
    """(reason, evidence) if an entry check fails, else None; an edit and its inverse pass only together."""
    from curation.verify.checks import passed, verify

    for sample, outcomes in zip(samples, verify([s.item for s in samples], [s.checks for s in samples])):
        if sample.checks and not passed(outcomes):
            worst = next(o for o in outcomes if not o.passed)
            evidence = {k: str(v)[:200] for k, v in worst.evidence.items()}
            return f"{sample.recipe}: entry check {worst.verifier} failed", json.dumps(evidence, ensure_ascii=False)
    return None


def _write(folder: Path, sample: Sample, stream: str) -> dict[str, Any]:
    """Write the pictures, named by content; returns the sample's row of captions.jsonl."""

    def put(data: bytes, name: str = "") -> str:
        file = f"{name}{hashlib.sha256(data).hexdigest()[:24]}.png"
        if not (folder / file).exists() and not (folder.parent / file).exists():
            write_bytes(folder / file, data)
        return file

    row: dict[str, Any] = {"file": put(sample.image), "recipe": sample.recipe}
    if sample.references:
        row |= {"caption": sample.caption, "references": [put(r) for r in sample.references]}
        return row | ({"mask": put(sample.mask, "mask-")} if sample.mask else {})
    return row | {"captions": [{"kind": sample.kind, "text": sample.caption}], "stream": stream}


def _publish(folder: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Move the pictures of the rows into the folder, then write captions.jsonl."""
    for row in rows:
        for name in (row["file"], *row.get("references", ()), *filter(None, [row.get("mask")])):
            if not (folder / name).exists():
                rename(folder / ".parts" / name, folder / name)
    lines = [json.dumps(row, ensure_ascii=False) for row in rows]
    write_bytes(folder / "captions.jsonl", ("\n".join(lines) + "\n").encode())


def _part(folder: Path, number: int) -> Path:
    return folder / ".parts" / f"{number:06d}.json"
