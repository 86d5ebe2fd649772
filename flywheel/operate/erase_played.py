"""Erase pictures from the playground: what people uploaded there, what was drawn of it, and what they said of it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from curation.decide.judging import Look
from flywheel.core.files import discard, file_digest
from flywheel.core.workspace import Workspace
from flywheel.operate.victims import alike, look_of
from flywheel.rounds.playground import FOLDER, Played, load


def everything(workspace: Workspace) -> Iterator[Played]:
    """Every picture of the playground, with what it was drawn from."""
    for path in sorted(workspace.path(FOLDER).glob("*.json")):
        if (played := load(workspace, path.stem)) is not None:
            yield played


def meant(workspace: Workspace, names: Sequence[str]) -> list[str]:
    """The names, with image ids in place of those that mean a picture of the playground: its id, or a file there.

    The picture that was drawn means what was uploaded for it; without uploads, itself.
    """
    uploads: dict[str, list[str]] = {}
    for played in everything(workspace) if names else ():
        found = _uploads(workspace, played) or list(_digests(workspace, [played.image]))
        uploads |= {played.id: found, str(workspace.path(played.image)): found}
        for reference, upload in zip(played.references, found, strict=False):
            uploads[str(workspace.path(reference))] = [upload]
    places = ((n, (n, str(Path(n).absolute()), str(workspace.path(n)))) for n in names)
    return [i for name, same in places for i in next((uploads[x] for x in same if x in uploads), [name])]


def looks_of(workspace: Workspace, images: Iterable[str]) -> dict[str, Look]:
    """Image id → what it looks like, of those of the images that were uploaded."""
    wanted, found = frozenset(images), {}
    for played in everything(workspace):
        for upload, reference in zip(_uploads(workspace, played), played.references, strict=False):
            if upload in wanted and (look := _look(workspace, reference)):
                found[upload] = look
    return found


def find(workspace: Workspace, looks: Mapping[str, Look], images: Sequence[str]) -> dict[str, str]:
    """Id of each playground's picture that goes → the image because of which it goes.

    It goes if an upload is one of the images or looks like one, or if it is one itself. looks: of the images.
    """
    found = {}
    for played in everything(workspace):
        own = {*_uploads(workspace, played), *_digests(workspace, [played.image])}
        shown = [look for name in played.references if (look := _look(workspace, name))] if looks else []
        because = [i for i in images if i in own or (i in looks and any(alike(looks[i], look) for look in shown))]
        if because:
            found[played.id] = because[0]
    return found


def blobs(workspace: Workspace, ids: Iterable[str]) -> set[str]:
    """SHA-256 of the files that go with these pictures."""
    return {b for i in ids if (p := load(workspace, i)) for b in _digests(workspace, [p.image, *p.references])}


def prompts_of(workspace: Workspace, ids: Iterable[str]) -> list[str]:
    """Ids of the prompts that signals and cases of these pictures have."""
    from flywheel.signals.feedback import prompt_id

    return sorted({prompt_id(p.task, p.prompt, p.references) for i in ids if (p := load(workspace, i))})


def erase(workspace: Workspace, journal: Mapping[str, Any]) -> None:
    """Remove the journal's pictures of the playground, with their uploads, and what was drawn for their cases."""
    ids = set(journal.get("played", ()))
    if not ids:
        return
    records = [p for p in everything(workspace) if p.id in ids]
    for played in records:
        for name in (*played.references, played.image):
            discard(workspace.path(name))
    for name in sorted(ids):  # last: they say what goes
        discard(workspace.path(FOLDER, f"{name}.json"))


def _uploads(workspace: Workspace, played: Played) -> list[str]:
    """SHA-256 of the files that were uploaded; for records of earlier versions, of the pictures that were kept."""
    return list(played.uploads) or list(_digests(workspace, played.references))


def _digests(workspace: Workspace, names: Iterable[str]) -> Iterator[str]:
    yield from (file_digest(path) for name in names if (path := workspace.path(name)).is_file())


def _look(workspace: Workspace, name: str) -> Look | None:
    path = workspace.path(name)
    return look_of([path.read_bytes()])[0] if path.is_file() else None
