"""Erasing what people uploaded to the playground: by the picture, by its looks, or by the name of what was drawn."""

from __future__ import annotations

import hashlib
import io
import shutil
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from flywheel.core.errors import UsageError
from flywheel.core.files import write_bytes
from flywheel.core.ledger import Ledger
from flywheel.core.workspace import Workspace
from flywheel.operate.erase import erase
from flywheel.operate.fsck import fsck
from flywheel.rounds import playground
from flywheel.rounds.playground import Played, play

WHO = {"by": "ada", "why": "asked by its author"}
NAME = "picture-001.jpg"


class Copier:
    """Draws the first reference again, a little darker; or noise."""

    def draw(self, prompts: Sequence[str], *, seeds: Sequence[int], size: tuple[int, int], references: Any) -> list:
        if references is None:
            return [np.random.default_rng(seeds[0]).integers(0, 256, (*size, 3), np.uint8)]
        return [np.asarray(Image.fromarray(references[0][0]).resize(size[::-1])) // 2 + 60]


@pytest.fixture
def work(curated: SimpleNamespace, tmp_path: Path) -> SimpleNamespace:
    """A copy of the curated pool with a playground: a picture of the pool, one of nobody's, and one that stays."""
    workspace = Workspace(shutil.copytree(curated.workspace.root, tmp_path / "w"))
    known, other = curated.files[NAME], _encoded(7)

    def ask(prompt: str, *pictures: bytes) -> Played:
        played = play(workspace, Copier(), prompt, size=(32, 32), seed=1, pictures=pictures)
        assert playground.answer(workspace, played, "down", "it is wrong", by="bob")
        return played

    smaller = Image.open(io.BytesIO(known)).convert("RGB")
    smaller = smaller.resize((smaller.width * 3 // 4, smaller.height * 3 // 4), Image.Resampling.LANCZOS)
    asked = {
        "same": ask("make the sky of ada green", known),
        "smaller": ask("make the grass of ada green", _png(smaller)),
        "alone": ask("make it blue, says bob", other),
        "both": ask("put them together", _encoded(8), other),
        "text": ask("a red circle"),
        "stays": ask("make it redder", _encoded(9)),
    }
    return SimpleNamespace(workspace=workspace, known=known, other=other, **asked)


def _encoded(seed: int) -> bytes:
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), np.uint8)
    return _png(Image.fromarray(coarse).resize((48, 48), Image.Resampling.NEAREST))


def _png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def left(workspace: Workspace, *gone: Played) -> list[str]:
    """Ids of those pictures of which any file, or any word, is left."""
    out = []
    for played in gone:
        files = [workspace.path(n) for n in (played.image, *played.references, f"playground/{played.id}.json")]
        texts = [r["prompt"] for r in Ledger(workspace, "signals").rows()]
        if any(f.exists() for f in files) or played.prompt in texts:
            out.append(played.id)
    return out


def test_a_picture_of_the_pool_goes_from_the_playground_too(work: SimpleNamespace) -> None:
    kept = {p: work.workspace.path(p).read_bytes() for p in (*work.same.references, work.same.image)}
    (erased,) = erase(work.workspace, [NAME], **WHO)
    assert set(erased.played) == {work.same.id, work.smaller.id}
    assert left(work.workspace, work.same, work.smaller) == [] and fsck(work.workspace).findings == ()
    others = (work.alone, work.both, work.text, work.stays)
    assert left(work.workspace, *others) == [p.id for p in others]
    with pytest.raises(UsageError, match="was erased from this workspace"):
        play(work.workspace, Copier(), "again", size=(32, 32), seed=2, pictures=[work.known])
    for name, data in kept.items():  # a copy that turns up is found by its content
        write_bytes(work.workspace.path("feedback", Path(name).name), data)
    assert len(fsck(work.workspace).findings) == len(kept)


@pytest.mark.parametrize("how", ["id", "file", "upload", "sha256"])
def test_an_upload_that_the_pool_does_not_know_is_named_by_what_was_drawn(work: SimpleNamespace, how: str) -> None:
    sha256 = hashlib.sha256(work.other).hexdigest()
    name = {
        "id": work.alone.id,
        "file": str(work.workspace.path(work.alone.image)),
        "upload": work.alone.references[0],
        "sha256": sha256,
    }[how]
    (erased,) = erase(work.workspace, [name], **WHO)
    gone = [work.alone, work.both]
    assert set(erased.played) == {p.id for p in gone} and erased.rows == 0
    assert left(work.workspace, *gone) == [] and fsck(work.workspace).findings == ()
    assert left(work.workspace, work.same, work.stays, work.text) == [work.same.id, work.stays.id, work.text.id]
    with pytest.raises(UsageError, match="was erased"):
        play(work.workspace, Copier(), "again", size=(32, 32), seed=2, pictures=[work.other])


def test_a_picture_drawn_from_text_goes_by_its_id(work: SimpleNamespace) -> None:
    (erased,) = erase(work.workspace, [work.text.id], **WHO)
    assert erased.played == (work.text.id,) and left(work.workspace, work.text) == []
    assert fsck(work.workspace).findings == ()
