"""A look at a source: what would be read, which columns and why, the first rows, and what is not understood."""

from __future__ import annotations

import posixpath
import tarfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from curation.sources import BadInput, Input, Source, files
from curation.sources.columns import IMAGE_NAMES, MASK_NAMES, REFERENCE_NAMES
from curation.sources.files import File
from curation.sources.folder import Folder
from curation.sources.layout import Layout, arranged, kind_of
from curation.sources.mix import listed
from curation.sources.parquet import Parquet, open_parquet
from curation.sources.sidecars import attached
from curation.sources.tar import HEAD_MEMBERS, Tar
from curation.sources.urls.lists import UrlColumns, is_parquet, pages, url_columns
from curation.sources.zips import open_zip
from flywheel.core.errors import UsageError
from flywheel.core.image import BadImage, open_image, upright_size

FILES = 100_000  # that are listed at most
SECONDS = 5.0  # after which the listing and the counting stop
_SIDE_CARS = 100  # pictures whose side-cars are read
_SHOWN = 20  # names of each kind of file that is not understood
_TRIED = 8  # files of a kind that are opened until one can be read


@dataclass(frozen=True)
class Part:
    """Files of one kind. rows: of all its files, None if unknown; at_least: not all were counted.

    columns: (role, column, why). first: its first rows. ignored: fields or columns that are not read.
    """

    kind: str
    files: int
    bytes: int
    rows: int | None
    at_least: bool
    columns: tuple[tuple[str, str, str], ...]
    first: tuple[dict[str, Any], ...]
    ignored: tuple[str, ...]
    notes: str = ""  # where captions come from, and what the beginning holds


@dataclass(frozen=True)
class Survey:
    """What a source holds. whole: all files were listed. not_understood: (name, why); left_out: (name, why)."""

    address: str
    files: int
    bytes: int
    whole: bool
    parts: tuple[Part, ...]
    not_understood: tuple[tuple[str, str], ...]
    left_out: tuple[tuple[str, str], ...]


def survey(address: str | Path, captions: Path | None = None, *, rows: int = 3, seconds: float = SECONDS) -> Survey:
    """Look at a source within about twice `seconds`, reading only beginnings. Errors: `UsageError`."""
    place, stop = files.absolute(address), time.monotonic() + seconds
    found: list[File] = []
    whole = True
    for file in listed(place, FILES + 1):
        if len(found) >= FILES or (found and time.monotonic() > stop):
            whole = False
            break
        found.append(file)
    if not found:
        raise UsageError(f"source {place} holds no files: give a folder with images in it")
    layout = arranged(found, captions)
    bad: list[tuple[str, str | None]] = [(f.name, f.fault) for f in (*layout.containers, *layout.lists) if f.fault]
    parts: list[Part] = []
    looks: tuple[tuple[Sequence[File], Callable[..., Part]], ...] = (
        (layout.pictures, lambda group: _pictures(place, group, captions, rows, bad)),
        (layout.tars, lambda group: _tars(group, rows)),
        (layout.parquets, lambda group: _parquets(group, rows, stop + seconds)),
        (layout.zips, lambda group: _zips(group, rows)),
        (layout.lists, lambda group: _lists(group, rows, stop + seconds)),
    )
    for group, look in looks:
        for start in range(min(len(group), _TRIED)):  # a file that cannot be read costs itself
            try:
                parts.append(look(group[start:]))
                break
            except (UsageError, OSError) as error:
                bad.append((group[start].name, str(error)))
    unknown = tuple(dict.fromkeys((n, why or "") for n, why in bad))
    size = sum(f.size for f in found)
    return Survey(place, len(found), size, whole, tuple(parts), unknown, layout.left_out)


def is_picture(address: str) -> bool:
    """True for one file on this machine that is neither a container nor a list: `inspect` shows what is in it."""
    path = Path(address).expanduser()
    if not path.is_file() or kind_of(path.name) != "picture":
        return False
    layout: Layout = arranged([files.state(files.absolute(path))])
    return bool(layout.pictures)


# Kinds ---------------------------------------------------------------------------------------------------------------
def _pictures(
    place: str, group: Sequence[File], captions: Path | None, rows: int, bad: list[tuple[str, str | None]]
) -> Part:
    """Side-cars are read for the first pictures only, lists of captions as a whole."""
    beside = attached([f.name for f in group])
    used = {text for texts in beside.values() for text in texts}
    read = {text for name in islice(beside, _SIDE_CARS) for text in beside[name]}
    folder = Folder(place, tuple(f for f in group if f.name not in used or f.name in read), captions)
    inputs = folder.inputs()
    pictures = [i for i in inputs if folder.lists(i.uri)]
    suffixes = Counter(posixpath.splitext(i.uri)[1].lower() for i in pictures if i.fault is None)
    bad += [(i.uri.removeprefix(place.rstrip("/") + "/"), i.fault) for i in inputs if i.fault]
    lists = [f.name for f in group if folder.is_list(f)]
    noted = sum(bool(i.captions) for i in pictures)
    said = [*([f"{len(beside)} side-cars"] if beside else []), *lists]
    told = f"captions: {', '.join(said) or 'none'}"
    if not beside:  # side-cars are read for the first pictures only
        told += f"; {noted} of {len(pictures)} pictures have one"
    kinds = ", ".join(f"{count} × {suffix or 'no suffix'}" for suffix, count in suffixes.most_common(8))
    first = _first(folder, pictures, rows)
    size = sum(f.size for f in group)
    return Part("folder", len(group), size, len(pictures), False, (), first, (), f"{told}; files: {kinds}")


def _tars(group: Sequence[File], rows: int) -> Part:
    """Of the first archive, the first members."""
    tar = Tar(group[0], head=True)
    fields, ignored = _fields(tar)
    cut = sum(fields.values()) >= HEAD_MEMBERS or not group[0].name.lower().endswith(".tar")
    inputs = [i for i in tar.inputs() if not (cut and i.uri.endswith("::"))]  # the cut is no damage
    told = f"fields of the first archive: {', '.join(f'{count} × .{suffix}' for suffix, count in fields.items())}"
    size, first = sum(f.size for f in group), _first(tar, inputs, rows)
    return Part("tar", len(group), size, len(inputs), cut or len(group) > 1, (), first, ignored, told)


def _fields(tar: Tar) -> tuple[dict[str, int], tuple[str, ...]]:
    """(suffix → count, suffixes that are not read) of the first members."""
    counts: Counter[str] = Counter()
    with suppress(tarfile.TarError), tar.open() as raw, tarfile.open(fileobj=raw, mode="r:") as archive:
        for member in islice(archive, HEAD_MEMBERS):  # damage is a row of its own
            if member.isreg():
                counts[posixpath.basename(member.name).partition(".")[2].lower()] += 1
    return dict(counts), tuple(f".{s}" for s in counts if not Tar.reads(s))


def _parquets(group: Sequence[File], rows: int, stop: float) -> Part:
    source = Parquet(group[0])
    chosen = source.columns
    names = source.names
    roles = (
        ("image", chosen.image, IMAGE_NAMES, "the first column of pictures"),
        ("references", chosen.references, REFERENCE_NAMES, ""),
        ("mask", chosen.mask, MASK_NAMES, ""),
        *_texts("caption", chosen.captions),
        *_texts("instruction", chosen.instructions),
        *((name, name, (name,), "") for name in chosen.more),
    )
    columns = tuple((role, name, _why(name, known, other)) for role, name, known, other in roles if name)
    read = {name for _, name, _ in columns}
    count, whole = _footers(group, stop)
    first = _first(source, list(islice(source.first_inputs(), rows)), rows)
    size, ignored = sum(f.size for f in group), tuple(n for n in names if n not in read)
    return Part("parquet", len(group), size, count, not whole, columns, first, ignored)


def _texts(role: str, names: Sequence[str]) -> Iterator[tuple[str, str, tuple[str, ...], str]]:
    """The column of a text, and those that serve the rows where it is empty."""
    for number, name in enumerate(names):
        yield (role, name, (), "where the one before is empty") if number else (role, name, (name.lower(),), "")


def _why(name: str, known: Sequence[str], other: str) -> str:
    return "by its name" if name.lower() in known else other


def _footers(group: Sequence[File], stop: float) -> tuple[int, bool]:
    """(rows of the files whose footers could be read in time, whether that was all)."""
    count = 0
    for number, file in enumerate(group):
        if number and time.monotonic() > stop:
            return count, False
        try:
            with open_parquet(file) as opened:
                count += opened.metadata.num_rows
        except UsageError:
            continue  # it is quarantined as a whole
    return count, True


def _zips(group: Sequence[File], rows: int) -> Part:
    folder = open_zip(group[0])
    inputs = folder.inputs()
    first = _first(folder, inputs, rows)
    return Part("zip", len(group), sum(f.size for f in group), len(inputs), len(group) > 1, (), first, ())


def _lists(group: Sequence[File], rows: int, stop: float) -> Part:
    columns = url_columns(group[0])
    if columns is None:
        raise UsageError(f"source {group[0].uri} has no column of URLs")
    page = next(iter(pages(group[0]))).slice(0, 1000).to_pylist()
    hosts = Counter(_host(r["uri"]) for r in page if r["fault"] is None)
    first = tuple({k: v for k, v in r.items() if v not in (None, [])} for r in page[:rows])
    count, whole = _footers(group, stop) if is_parquet(group[0].name) else _lines(group, stop)
    captions = f"hosts in the first {len(page)} rows: {', '.join(f'{h} ({n})' for h, n in hosts.most_common(5))}"
    size = sum(f.size for f in group)
    ignored = tuple(n for n in columns.names if n not in columns.read)
    return Part("url list", len(group), size, count, not whole, _roles(columns), first, ignored, captions)


def _host(url: str) -> str:
    try:
        return urlsplit(url).netloc or "no host"
    except ValueError:  # such as http://[::1/x.jpg
        return "no host"


def _roles(columns: UrlColumns) -> tuple[tuple[str, str, str], ...]:
    why = "by its name" if columns.header else "by what it holds: the list has no header"
    texts = ((role, name, other or why) for role, name, _, other in _texts("caption", columns.captions))
    rights = ((role, name, why) for role in ("license", "consent") if (name := getattr(columns, role)))
    return (("url", columns.url, why), *texts, *rights)


def _lines(group: Sequence[File], stop: float) -> tuple[int, bool]:
    """(rows of the lists that could be read in time, whether that was all)."""
    count = 0
    for file in group:
        for page in pages(file):
            count += page.num_rows
            if time.monotonic() > stop:
                return count, False
    return count, True


def _first(source: Source, inputs: Iterable[Input], rows: int) -> tuple[dict[str, Any], ...]:
    """The first inputs with what their bytes say."""
    wanted = list(islice(inputs, rows))
    sound = [i for i in wanted if i.fault is None]
    contents = dict(zip([i.uri for i in sound], source.read(sound)))
    return tuple(_row(item, contents.get(item.uri, BadInput(item.fault or ""))) for item in wanted)


def _row(item: Input, content: bytes | BadInput) -> dict[str, Any]:
    row: dict[str, Any] = {"uri": item.uri, "caption": item.caption, "task": item.task}
    try:
        if isinstance(content, BadInput):
            raise content
        image = open_image(content)
        width, height = upright_size(image)
        return row | {"picture": f"{image.format} {width}x{height}, {len(content)} bytes"}
    except (BadInput, BadImage) as error:
        return row | {"picture": f"quarantined: {error}"}


def shortened(found: Survey) -> Survey:
    """With as many names of what is not understood or left out as a person reads."""
    return replace(found, not_understood=_cut(found.not_understood), left_out=_cut(found.left_out))


def _cut(entries: tuple[tuple[str, str], ...]) -> tuple[tuple[str, str], ...]:
    more = ((f"… and {len(entries) - _SHOWN} more", ""),) if len(entries) > _SHOWN else ()
    return (*entries[:_SHOWN], *more)
