"""What a source holds beside what is read: said once, because it is no fault of any row."""

from __future__ import annotations

from curation.sources import Source
from curation.sources.files import is_remote
from curation.sources.mix import Mix
from curation.sources.parquet import Parquet
from curation.sources.tar import Tar
from flywheel.core.errors import UsageError

_SHOWN = 12  # names
_LOOKED_AT = 32  # Parquet files


def not_read(source: Source) -> tuple[str, ...]:
    """Sentences about the beginning of the first local tar, and the first Parquet file without captions of some.

    They stand for the others: to look at all would take as long as to list them.
    """
    holders = [source]
    if isinstance(source, Mix):
        firsts = (*source.layout.tars[:1], *source.layout.parquets[:_LOOKED_AT])
        holders = [source.container(file.uri) for file in firsts]
    notes = list[str]()
    for holder in holders:
        try:
            if isinstance(holder, Parquet):
                notes += [_of_parquet(holder)] if not any(" column: " in note for note in notes) else []
            elif isinstance(holder, Tar) and not is_remote(holder.file.uri):
                notes.append(_of_tar(Tar(holder.file, head=True)))
        except UsageError:
            continue  # it is in the quarantine as a whole
    return tuple(filter(None, notes))


def _of_parquet(source: Parquet) -> str:
    columns = source.columns
    if columns.captions or columns.instructions or "captions" in columns.more:
        return ""
    return f"{source.file.name} has no caption column: its columns are {_shown(source.names)}"


def _of_tar(source: Tar) -> str:
    if not source.unread:
        return ""
    return f"{source.file.name}: fields that are not read: {_shown([f'.{suffix}' for suffix in source.unread])}"


def _shown(names: list[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
