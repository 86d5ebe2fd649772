"""The playground: a person asks for a picture, sees it and says what is wrong, which is user feedback like any other.

Each picture stays in the workspace's folder `playground`, with what was asked for beside it, so that a case can show it
and probes can start from the same references.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from flywheel.core.erased import require_allowed
from flywheel.core.errors import UsageError
from flywheel.core.files import digest, read_json, write_bytes, write_json
from flywheel.core.generator import Generator, Pixels, Undrawn, png
from flywheel.core.image import BadImage, decode, shrunk
from flywheel.core.workspace import Workspace
from flywheel.rounds.promotion import incumbent
from flywheel.signals.feedback import Feedback, record

FOLDER = "playground"
MAX_SIDE = 2048  # pixels of a reference that is kept, long side


@dataclass(frozen=True)
class Played:
    """A picture that was drawn for a person. image, references: workspace paths; checkpoint: in service then.

    uploads: SHA-256 of the files that the references were uploaded as.
    """

    id: str
    prompt: str
    seed: int
    image: str
    references: tuple[str, ...] = ()
    checkpoint: str | None = None
    uploads: tuple[str, ...] = ()

    @property
    def task(self) -> str:
        """`ti2i` for an edit."""
        return "ti2i" if self.references else "t2i"


def play(
    workspace: Workspace,
    generator: Generator,
    prompt: str,
    *,
    size: tuple[int, int],
    seed: int,
    pictures: Sequence[bytes] = (),
) -> Played:
    """Draw a picture and keep it; `pictures`: encoded references of an edit.

    Errors: `UsageError` if there is none, or for a reference that was erased.
    """
    if not prompt.strip():
        raise UsageError("write what to draw")
    references = [_reference(data) for data in pictures]
    encoded = [png(r) for r in references]
    require_allowed(workspace, *pictures, *encoded)
    served = incumbent(workspace)
    (image,) = generator.draw([prompt], seeds=[seed], size=size, references=[references] if references else None)
    if isinstance(image, Undrawn):
        raise UsageError(f"no picture was drawn: {image.reason}")
    drawn = png(image)
    paths = [_keep(workspace, data) for data in encoded]
    name = digest(prompt, seed, paths, drawn)[:32]
    write_bytes(workspace.path(FOLDER, f"{name}.png"), drawn)
    place, checkpoint = f"{FOLDER}/{name}.png", served.checkpoint if served else None
    uploads = tuple(hashlib.sha256(data).hexdigest() for data in pictures)
    played = Played(name, prompt, seed, place, tuple(paths), checkpoint, uploads)
    write_json(workspace.path(FOLDER, f"{name}.json"), asdict(played))
    return played


def load(workspace: Workspace, name: str) -> Played | None:
    """A picture that was drawn before; None if there is none of that id."""
    path = workspace.path(FOLDER, f"{name}.json")
    if not re.fullmatch(r"[0-9a-f]{32}", name) or not path.is_file():
        return None
    values: dict[str, Any] = read_json(path)
    return Played(**values | {k: tuple(values.get(k, ())) for k in ("references", "uploads")})


def answer(workspace: Workspace, played: Played, thumbs: str, reason: str, *, by: str) -> bool:
    """Record a person's thumb as feedback; False if this person had answered before. Errors: `UsageError`."""
    if thumbs not in ("up", "down"):
        raise UsageError(f"unknown thumb {thumbs!r}: use up or down")
    said = {"thumbs": thumbs, "reason": reason.strip()[:5_000], "prompt": played.prompt, "task": played.task}
    shown = {"image": played.image, "references": list(played.references), "checkpoint": played.checkpoint}
    event = Feedback.model_validate({"event_id": f"playground-{played.id}-{digest(by)[:8]}", **said, **shown})
    return record(workspace, [event], key=f"feedback/{event.event_id}")[0] == 1


def _reference(data: bytes) -> Pixels:
    try:
        return shrunk(np.asarray(decode(data)), MAX_SIDE)
    except BadImage as error:
        raise UsageError(f"the picture to edit cannot be read ({error}): choose a file such as PNG or JPEG") from error


def _keep(workspace: Workspace, data: bytes) -> str:
    path = f"{FOLDER}/{digest(data)[:32]}.png"
    write_bytes(workspace.path(path), data)
    return path
