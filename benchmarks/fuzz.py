"""Damage thousands of small sources at random, ingest each, and look at what becomes of every row.

python -m benchmarks.fuzz [--count 5000] [--seed 0] [--limit 20] [--keep DIR]

A source is a folder of pictures, a captions.jsonl, a tar or a Parquet file of four captioned pictures; bits flip, parts
are cut, doubled, moved, zeroed or replaced. A damaged source may be refused as a whole with a message that says what to
do, or every row is used with its caption, or quarantined. Faults: a traceback, a source that takes longer than the
limit (seconds), a process that dies, a row or a caption that is neither in the pool nor explained. What is used is
decoded and scored too. The last line is one JSON object: `fuzz_files`, `fuzz_faults`, faults by kind, how sources
ended; --keep saves sources at fault.
"""

from __future__ import annotations

import argparse
import io
import json
import shutil
import signal
import sys
import tarfile
import tempfile
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # this folder holds files named like packages

from curation.scorers import load
from curation.sources import pool
from curation.sources.ingest import ingest
from flywheel.core.errors import UsageError
from flywheel.core.scorer import Item
from flywheel.core.workspace import Workspace

ROWS = 4
FORMATS = {"JPEG": "jpg", "PNG": "png", "WEBP": "webp", "GIF": "gif", "TIFF": "tif", "BMP": "bmp"}
FAULTS = ("traceback", "hang", "crash", "uncounted")
_BATCH = 100  # sources per process
_SCORERS = ("header", "pixels", "copies", "structure")

Rng = np.random.Generator
Make = Callable[[Rng, Path], Path]


# Sources -------------------------------------------------------------------------------------------------------------
def picture(rng: Rng, form: str | None = None) -> tuple[str, bytes]:
    """(file name's ending, bytes) of a small picture."""
    form = form or str(rng.choice(list(FORMATS)))
    coarse = Image.fromarray(rng.integers(0, 256, (6, 8, 3), dtype=np.uint8))
    out = io.BytesIO()
    coarse.resize((80, 60), Image.Resampling.BICUBIC).save(out, form)
    return FORMATS[form], out.getvalue()


def damaged(rng: Rng, data: bytes) -> bytes:
    """The bytes after one to four random changes."""
    out = bytearray(data)
    for _ in range(int(rng.integers(1, 5))):
        if not out:
            break
        at, size = int(rng.integers(len(out))), int(rng.integers(1, max(2, len(out) // 4)))
        part, change = bytes(out[at : at + size]), int(rng.integers(8))
        if change == 0:
            out[at] ^= 1 << int(rng.integers(8))
        elif change == 1:
            del out[at:]
        elif change == 2:
            del out[at : at + size]
        elif change == 3:
            out[at:at] = part
        elif change == 4:
            out[at : at + len(part)] = bytes(len(part))
        elif change == 5:
            out[at : at + len(part)] = rng.bytes(len(part))
        elif change == 6:
            out[at:at] = rng.bytes(int(rng.integers(1, 40)))
        else:
            del out[at : at + size]
            place = int(rng.integers(len(out) + 1))
            out[place:place] = part
    return bytes(out)


def _folder(rng: Rng, place: Path, broken: bool) -> Path:
    place.mkdir()
    names = []
    for n in range(ROWS):
        ending, data = picture(rng)
        names.append(f"{n}.{ending}")
        (place / names[-1]).write_bytes(damaged(rng, data) if broken and n < 2 else data)
    lines = [json.dumps({"file": name, "caption": f"coloured patches «{name}» ü"}) for name in names]
    text = ("\n".join(lines) + "\n").encode()
    (place / "captions.jsonl").write_bytes(text if broken else damaged(rng, text))
    return place


def folder(rng: Rng, place: Path) -> Path:
    """A folder with two damaged pictures."""
    return _folder(rng, place, True)


def captions(rng: Rng, place: Path) -> Path:
    """A folder with a damaged captions.jsonl."""
    return _folder(rng, place, False)


def archive(rng: Rng, place: Path) -> Path:
    """A damaged tar with a .txt or .json beside each picture."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=int(rng.integers(0, 3))) as tar:
        for n in range(ROWS):
            ending, data = picture(rng)
            note = ("txt", b"coloured patches") if n % 2 else ("json", b'{"caption": "coloured patches"}')
            for name, content in ((f"{n}.{ending}", data), (f"{n}.{note[0]}", note[1])):
                info = tarfile.TarInfo(name)
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
    path = place.with_suffix(".tar")
    path.write_bytes(damaged(rng, out.getvalue()))
    return path


def table(rng: Rng, place: Path) -> Path:
    """A damaged Parquet file of pictures and captions."""
    rows = pa.table({"image": [picture(rng)[1] for _ in range(ROWS)], "caption": [f"patches {n}" for n in range(ROWS)]})
    out = io.BytesIO()
    codec = str(rng.choice(["snappy", "zstd", "none"]))
    pq.write_table(rows, out, row_group_size=2, compression=codec, use_dictionary=bool(rng.integers(2)))
    path = place.with_suffix(".parquet")
    path.write_bytes(damaged(rng, out.getvalue()))
    return path


SOURCES: dict[str, Make] = {f.__name__: f for f in (folder, captions, archive, table)}


# One source ----------------------------------------------------------------------------------------------------------
def outcome(source: Path, workspace: Workspace) -> str:
    """How a damaged source ends: refused, whole, quarantined, or uncounted. Errors: whatever is a fault."""
    try:
        found = ingest(workspace, source)
    except UsageError:
        return "refused"
    shards = pool.shards(workspace)
    rows = [row for s in shards for row in pq.read_table(s.path, columns=["image", "caption"]).to_pylist()]
    items = [Item(row["image"], row["caption"]) for row in rows]
    for name in _SCORERS:
        if len(load(name).score(items)) != len(items):
            return "uncounted"
    explained = pool.quarantined_at_ingest(workspace)
    adds_up = found.found == found.new + found.known + found.quarantined
    if not adds_up or (found.new, found.quarantined) != (len(rows), len(explained)):
        return "uncounted"
    # A damaged archive may lose several rows to one damaged stretch, which is one entry.
    lost = len(rows) < ROWS or any(row["caption"] is None for row in rows)
    if lost and not explained and not _sound(source) or (source.is_dir() and len(rows) + len(explained) < ROWS):
        return "uncounted"
    return "quarantined" if explained else "whole"


def _sound(source: Path) -> bool:
    """Whether this is a tar exactly as a writer makes one: zeros over its last members can leave a shorter one."""
    if source.suffix != ".tar":
        return False
    data = source.read_bytes()
    return any(
        _rewritten(data, form) == data for form in (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT)
    )


def _rewritten(data: bytes, form: int) -> bytes | None:
    """The members of a tar as a writer of this format puts them; None where a strict reader stumbles."""
    out = io.BytesIO()
    try:
        with (
            tarfile.open(fileobj=io.BytesIO(data)) as read,
            tarfile.open(fileobj=out, mode="w", format=form) as written,
        ):
            for member in read:
                written.addfile(member, read.extractfile(member))
    except (tarfile.TarError, ValueError, OSError):
        return None
    return out.getvalue()


def _case(number: int, seed: int, limit: int, keep: Path | None) -> tuple[str, str]:
    """(kind of source, how it ends); a fault's traceback goes to the standard error."""
    rng = np.random.default_rng([seed, number])
    kind = list(SOURCES)[number % len(SOURCES)]
    with tempfile.TemporaryDirectory() as scratch:
        source = SOURCES[kind](rng, Path(scratch, "source"))
        signal.alarm(limit)
        try:
            end = outcome(source, Workspace(Path(scratch, "w")))
        except TimeoutError:
            end = "hang"
        except Exception:  # noqa: BLE001 - any is the fault that is looked for
            traceback.print_exc()
            end = "traceback"
        finally:
            signal.alarm(0)
        if end in FAULTS:
            print(f"source {number} of seed {seed} ({kind}): {end}", file=sys.stderr, flush=True)
            if keep:
                kept = keep / f"{seed}-{number}-{source.name}"
                shutil.copytree(source, kept, dirs_exist_ok=True) if source.is_dir() else shutil.copy2(source, kept)
    return kind, end


def _batch(numbers: range, seed: int, limit: int, keep: Path | None, answers: Connection) -> None:
    def late(*_: object) -> None:
        raise TimeoutError

    signal.signal(signal.SIGALRM, late)
    for number in numbers:
        answers.send(_case(number, seed, limit, keep))


def fuzz(count: int, seed: int, limit: int, keep: Path | None) -> Iterator[tuple[str, str]]:
    """(kind of source, how it ends) of `count` sources. A process that dies or never answers costs one of them."""
    number, kinds = 0, list(SOURCES)
    while number < count:
        ours, theirs = get_context("fork").Pipe(duplex=False)
        numbers = range(number, min(count, number + _BATCH))
        worker = get_context("fork").Process(target=_batch, args=(numbers, seed, limit, keep, theirs))
        worker.start()
        theirs.close()
        for number in numbers:
            answer = _answer(ours, 2 * limit)
            yield answer if isinstance(answer, tuple) else (kinds[number % len(kinds)], answer)
            if not isinstance(answer, tuple):
                break
        number += 1
        worker.kill()
        worker.join()


def _answer(answers: Connection, seconds: int) -> tuple[str, str] | str:
    """The next (kind, end); "hang" without one in time, "crash" where the process is gone."""
    try:
        return answers.recv() if answers.poll(seconds) else "hang"
    except EOFError:
        return "crash"


def main() -> None:
    """Print the ends of sources by kind, then the result as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=5000, help="sources to damage")
    parser.add_argument("--seed", type=int, default=0, help="another seed damages others")
    parser.add_argument("--limit", type=int, default=20, help="seconds after which a source counts as hanging")
    parser.add_argument("--keep", type=Path, help="folder for sources at fault")
    arguments = parser.parse_args()
    if arguments.keep:
        arguments.keep.mkdir(parents=True, exist_ok=True)
    ends: Counter[tuple[str, str]] = Counter()
    for n, end in enumerate(fuzz(arguments.count, arguments.seed, arguments.limit, arguments.keep), 1):
        ends[end] += 1
        if n % 500 == 0:
            print(f"{n} sources", file=sys.stderr, flush=True)
    for kind in SOURCES:
        print(f"{kind:<10}" + ", ".join(f"{end} {n}" for (k, end), n in sorted(ends.items()) if k == kind))
    totals = Counter[str]()
    for (_, end), n in ends.items():
        totals[end] += n
    faults = {name: totals.pop(name, 0) for name in FAULTS}
    result = {"fuzz_files": ends.total(), "fuzz_faults": sum(faults.values()), **faults, **totals}
    print(json.dumps(result))


if __name__ == "__main__":
    main()
