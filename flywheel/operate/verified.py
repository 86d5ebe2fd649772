"""Every file of a workspace against the hash that its writer recorded, folder by folder.

A kind of file needs no code here: whoever writes it through `flywheel.core.files` has recorded it, and what nobody
recorded is named.
"""

from __future__ import annotations

import glob
import hashlib
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from flywheel.core import hashes
from flywheel.core.hashes import Entry
from flywheel.core.storage import remote
from flywheel.operate.findings import ERROR, NOTE, Check

_COPY = "restore it from a copy"
_NOTHING = "nothing to do"
# What to do about a damaged file, by its folder below the root.
_ADVICE = {
    "pool": "restore it from a copy, or remove the batch's folder and run again: the batch is ingested again",
    "scores": "remove it and run again: missing scores are computed",
    "tables": "remove it: the next run derives it again",
    "derived": "remove it: it is derived again when it is needed",
    "reports": "write it again with `flywheel report`",
    "captions": "remove it and run `flywheel caption` again: missing captions are requested",
    "shards": "remove its manifest and run again: missing files are written again, with the same bytes",
    "remedies": "remove its manifest and run again: missing files are written again, with the same bytes",
    "samples": "remove it: evaluation draws it again with the same bytes",
    "probes": "remove it: evaluation draws it again with the same bytes",
    "checkpoints": "restore it from a copy, or remove the folder and train again",
    "ledger": "restore the ledger's folder from a copy: it is the only record of its events",
    ".prefect": "remove the folder `.prefect`: it holds only the history of Prefect's runs",
}
HASHED = 3  # the first format of workspaces whose files have hashes
_CACHES = ("tables", "derived", "reports")  # may be deleted at any time
_THREADS = 4
_CHUNK = 256  # files hashed together
_LOOKS = 5  # at a file that is written while it is read
_SECOND_LOOK = 1.0  # seconds until a file that differs is looked at again: a run may just have written it


@dataclass(frozen=True)
class _Content:
    size: int
    sha256: str  # of the whole file
    prefix: str = ""  # of as many bytes as a growing file's record covers


def verify_files(check: Check) -> None:
    """Compare every file with its record; name those that are missing, and those that nobody recorded.

    What differs is looked at again a moment later, because a run may just have written it.
    """
    root = check.workspace.root
    if _from_before(check) and not (root / hashes.FOLDER).exists():
        check.fault(root, "written before files had hashes: only manifests are verified", _NOTHING, NOTE)
        return
    suspects: list[_Suspects] = []
    with ThreadPoolExecutor(_THREADS) as pool:
        _folder(check, pool, root, {}, suspects)
    if suspects:
        time.sleep(_SECOND_LOOK)
    for suspect in suspects:
        again = hashes.read(suspect.folder)
        if again.torn:
            _torn(
                check, suspect.folder, [n for n in suspect.names if _unknown(suspect.folder / n, again, suspect.above)]
            )
        for name in suspect.names:
            _look(check, suspect, name, again)


@dataclass(frozen=True)
class _Suspects:
    """Names in a folder that differ from their records; above: what folders above recorded about them."""

    folder: Path
    above: Mapping[str, Entry]
    names: list[str]


def _look(check: Check, suspect: _Suspects, name: str, records: hashes.Records) -> None:
    """Report what is wrong with a name; nothing where a run records it anew each time that it is read."""
    for _ in range(_LOOKS):
        entry = records.newest.get(name, suspect.above.get(name))
        found = Check(check.workspace, None)
        _judge(found, suspect.folder / name, entry, records.older.get(name, ()))
        records = hashes.read(suspect.folder) if found.findings else records
        if records.newest.get(name, suspect.above.get(name)) == entry:
            for one in found.findings:
                check.fault(check.workspace.root / one.path, one.problem, one.advice, one.severity)
            return


def _folder(
    check: Check, pool: ThreadPoolExecutor, folder: Path, above: Mapping[str, Entry], suspects: list[_Suspects]
) -> None:
    """One folder and those below it. above: what folders above recorded about this one, names relative to it."""
    records = hashes.read(folder)
    itself = records.newest.get(hashes.SELF)
    if itself and itself.kind == hashes.LIVING:
        return
    log = folder / hashes.FOLDER / hashes.LOG
    if records.damaged:
        check.fault(log, f"{records.damaged} of its records are damaged", _COPY)
    known = {**above, **records.newest}
    files, folders = _listed(folder)
    if not records.exist and not above and not _just_made(folder):
        check.fault(log, "missing: the files of its folder cannot be verified", _COPY)
    differ = _differing(check, pool, folder, known, files)
    gone = [n for n, e in known.items() if e.kind == hashes.FOLDERS and n[:-1] not in folders and n != hashes.SELF]
    unknown = []
    nested: dict[str, dict[str, Entry]] = {}
    for name, entry in known.items():
        first, slash, rest = name.partition("/")
        if slash and rest:
            nested.setdefault(first, {})[rest] = entry
    for name in folders:
        below = nested.get(name, {})
        if below or (folder / name / hashes.FOLDER).exists() or f"{name}/" in known:
            _folder(check, pool, folder / name, below, suspects)
        elif known and not name.startswith(".") and any((folder / name).iterdir()):
            unknown.append(name)
    names = [*differ, *gone, *unknown]
    if records.torn and not names:
        _torn(check, folder, [])
    if names:
        suspects.append(_Suspects(folder, {n: known[n] for n in names if n in above}, names))


def _just_made(folder: Path) -> bool:
    """Whether all that is below a folder are temporary files: its first writer was killed before it recorded one."""
    names = [p.name for p in folder.rglob("*") if not p.is_dir()]
    return bool(names) and all(n.startswith(".") and n.endswith(".tmp") for n in names)


def _torn(check: Check, folder: Path, lost: list[str]) -> None:
    """Report a log of which a line is incomplete; lost: names in the folder that no record is left of."""
    log = folder / hashes.FOLDER / hashes.LOG
    if lost:
        check.fault(log, f"cut off: {len(lost)} files of its folder have no record, such as {lost[0]}", _COPY)
    else:
        problem = "a line is incomplete, as a kill leaves it; every file that is there is as it was written"
        check.fault(log, problem, "nothing to do after a kill; if this is a copy, complete it", NOTE)


def _unknown(path: Path, records: hashes.Records, above: Mapping[str, Entry]) -> bool:
    """Whether nothing is known of what is there: neither by a record nor by what it carries itself."""
    if path.name in records.newest or path.name in above:
        return False
    return path.is_dir() or (path.is_file() and hashes.tagged(path) != hashes.content(path)[1])


def _differing(
    check: Check, pool: ThreadPoolExecutor, folder: Path, known: Mapping[str, Entry], files: list[str]
) -> list[str]:
    """Names of the files of a folder that differ from their records, lack one, or are missing."""
    differ = []
    for path, content in _contents(pool, [folder / name for name in files], known):
        check.opened()
        entry = known.get(path.name)
        if entry is None:
            if known and content.size and not path.name.startswith(".") and not _tagged(path, content):
                differ.append(path.name)
        elif entry.kind != hashes.LIVING and not _fits(content, entry):
            differ.append(path.name)
    present = set(files)
    return differ + [n for n, e in known.items() if e.kind in _WHOLE and "/" not in n and n not in present]


_WHOLE = (hashes.FILE, hashes.GROWING)


def _judge(check: Check, path: Path, entry: Entry | None, older: tuple[Entry, ...]) -> None:
    """Report a file that differs from its record, lacks one, or is missing; or such a folder."""
    if entry is not None and entry.kind == hashes.FOLDERS:
        if not path.is_dir():
            _missing(check, path)
        return
    if path.is_dir():
        if not (path / hashes.FOLDER).exists():
            _unrecorded(check, path, None)
        return
    try:
        content = _content(path, entry)
    except FileNotFoundError:
        unfinished = any(path.parent.glob(f".{glob.escape(path.name)}.*.tmp"))  # reported as such
        if entry is not None and entry.kind in _WHOLE and not unfinished:
            _missing(check, path)
        return
    except OSError as error:
        check.fault(path, f"cannot be read: {error}", _advice(check, path))
        return
    if entry is None:
        if not _tagged(path, content):
            _unrecorded(check, path, content)
    elif entry.kind == hashes.LIVING or _fits(content, entry) or _tagged(path, content):
        return
    elif any(e.kind in _WHOLE and e.size == content.size and _fits(_content(path, e), e) for e in older[-1:]):
        check.fault(path, "is as it was before its last change, which was interrupted", _NOTHING, NOTE)
    elif entry.kind == hashes.REMOVED:
        check.fault(path, "there, though it was removed", f"{_COPY} or remove it")
    elif content.size != entry.size and entry.kind == hashes.FILE:
        check.fault(path, f"has {content.size} bytes instead of {entry.size}", _advice(check, path))
    else:
        check.fault(path, "its content does not match the sha256 that its writer recorded", _advice(check, path))


def _fits(content: _Content, entry: Entry) -> bool:
    if entry.kind == hashes.GROWING:
        return content.size >= entry.size and content.prefix == entry.sha256
    return entry.kind == hashes.FILE and (content.size, content.sha256) == (entry.size, entry.sha256)


def _tagged(path: Path, content: _Content) -> bool:
    """Whether an object's own metadata holds its hash: its writer was stopped before it could record it."""
    return remote(path) and hashes.tagged(path) == content.sha256


def _missing(check: Check, path: Path) -> None:
    cache = path.relative_to(check.workspace.root).parts[0] in _CACHES
    check.fault(path, "missing, but its writer recorded it", _advice(check, path), NOTE if cache else ERROR)


def _from_before(check: Check) -> bool:
    """Whether the workspace is from before files had hashes: some of its files may have no records."""
    kept = [check.workspace.root / f"workspace.format-{number}.json" for number in range(1, HASHED)]  # by upgrades
    return check.workspace.format < HASHED or any(path.exists() for path in kept)


def _unrecorded(check: Check, path: Path, content: _Content | None) -> None:
    ledger = path.relative_to(check.workspace.root).parts[0] == "ledger"
    tag = hashes.tagged(path) if content else ""
    if content and tag and tag != content.sha256:
        check.fault(path, "its content does not match the sha256 that its writer stored with it", _advice(check, path))
    elif ledger and path.suffix == ".parquet" and not path.parent.name.startswith("_") and not _from_before(check):
        problem = "no record of it: the ledger's records are older than this file, as after an incomplete restore"
        check.fault(path, problem, _advice(check, path))
    elif not (ledger and path.suffix == ".json"):  # commits are chained: `verify_ledgers` checks them
        if tag:
            check.fault(path, "its record is lost, as after a power cut, but it is as it was written", _NOTHING, NOTE)
            return
        problem = "no record of its hash: another program put it here, or a version before records did"
        check.fault(path, problem, "nothing reads what flywheel did not write: remove it if you do not know it", NOTE)


def _advice(check: Check, path: Path) -> str:
    return _ADVICE.get(path.relative_to(check.workspace.root).parts[0], _COPY)


def _listed(folder: Path) -> tuple[list[str], list[str]]:
    """Names of a folder's files and folders; temporary files of killed writers are reported elsewhere."""
    files, folders = [], []
    for path in sorted(folder.iterdir()):
        if path.is_dir():
            folders.append(path.name)
        elif not (path.name.startswith(".") and path.name.endswith(".tmp")):
            files.append(path.name)
    return files, folders


def _contents(
    pool: ThreadPoolExecutor, paths: list[Path], known: Mapping[str, Entry]
) -> Iterator[tuple[Path, _Content]]:
    """Size and hash of each file that can be read, many at a time."""

    def content(path: Path) -> _Content | None:
        try:
            return _content(path, known.get(path.name))
        except OSError:
            return _Content(-1, "")  # removed meanwhile, or unreadable: a second look says which

    rest = iter(paths)
    while chunk := list(islice(rest, _CHUNK)):
        yield from ((p, c) for p, c in zip(chunk, pool.map(content, chunk)) if c is not None)


def _content(path: Path, entry: Entry | None) -> _Content:
    if entry is None or entry.kind != hashes.GROWING:
        return _Content(*hashes.content(path))
    with path.open("rb") as file:
        prefix = hashlib.sha256(file.read(entry.size)).hexdigest()
        return _Content(path.stat().st_size, "", prefix)
