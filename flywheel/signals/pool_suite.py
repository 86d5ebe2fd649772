"""A held-out suite from a user's own pool: some images are permanently kept from training and used for tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from flywheel.core.errors import UsageError
from flywheel.core.files import digest, read_json, write_bytes, write_json
from flywheel.core.image import BadImage, decode
from flywheel.core.scorer import Item
from flywheel.core.storage import readable
from flywheel.core.workspace import Workspace
from flywheel.signals.suite import write_rows

SHARE = 10  # at most one captioned image in ten is kept from training
TYPOGRAPHY = 16  # prompts that quote a word
PICTURE_EDITING = "photo_editing"
STATISTICS = ("entropy", "contrast", "sharpness")
QUANTILES = (0.02, 0.98)  # a generated image must lie within these of the held-out images


def write(workspace: Workspace, path: Path, *, count: int, side: int, seed: int) -> Path:
    """Write the suite to `path`, and `held_out.json` beside it.

    Three kinds of prompts: held-out captions, whose images must have the pixel statistics of the held-out images at
    `side` pixels (photorealism); edits of held-out images (photo editing); short words to write (typography).
    Errors: `UsageError` if the pool has too few captioned images to hold any out.
    """
    chosen = _choose(workspace, count, seed)
    pictures = {i: _square(image, side) for i, (_, image) in chosen.items()}
    ranges = _ranges(list(pictures.values()))
    rows: list[dict[str, Any]] = []
    for sample_id, (caption, _) in chosen.items():
        check = {"verifier": "photo", "capability": "photorealism", "ranges": ranges}
        rows.append(_row(f"photo-{sample_id[:12]}", caption, "t2i", [], [check]))
    rows += _edits(path.parent, pictures, seed)
    rows += _words(seed)
    write_json(path.parent / "held_out.json", sorted(chosen))
    return write_rows(path, rows)


def _choose(workspace: Workspace, count: int, seed: int) -> dict[str, tuple[str, bytes]]:
    """{sample_id: (caption, image)} of the captioned, readable t2i rows that are first by keyed hash."""
    rows = {i: c for i, c, _ in _captioned(workspace)}
    order = sorted(rows, key=lambda i: digest(seed, "held-out", i))[
        : 2 * count
    ]  # twice as many, because some may not decode
    images = {i: image for i, _, image in _captioned(workspace, frozenset(order)) if _readable(image)}
    keep = [i for i in order if i in images][: min(count, len(rows) // SHARE)]
    if not keep:
        raise UsageError(
            f"the pool has {len(rows)} readable pictures with a caption; at least {SHARE} are needed to keep one for "
            "evaluation: give captions (--captions FILE.jsonl)"
        )
    return {i: (rows[i], images[i]) for i in keep}


def _captioned(workspace: Workspace, only: frozenset[str] | None = None) -> Iterator[tuple[str, str, bytes]]:
    """(sample_id, caption, image) of captioned t2i rows; images are read only for the samples in `only`."""
    columns = ["sample_id", "task", "caption", *(["image"] if only else [])]
    for manifest in (batch / "manifest.json" for batch in workspace.batches()):
        for shard in read_json(manifest)["shards"]:
            for row in pq.read_table(readable(manifest.parent / shard["path"]), columns=columns).to_pylist():
                if row["task"] == "t2i" and row["caption"].strip() and (only is None or row["sample_id"] in only):
                    yield row["sample_id"], row["caption"], row.get("image", b"")


def _readable(image: bytes) -> bool:
    try:
        decode(image)
    except BadImage:
        return False
    return True


def _square(image: bytes, side: int) -> bytes:
    from curation.shards.writer import fit

    return fit(image, side, side)


def _ranges(pictures: list[bytes]) -> dict[str, list[float]]:
    from curation.scorers import load

    scores = load("pixels").score([Item(image=p) for p in pictures])
    values = {k: np.array([row[k] for row in scores if isinstance(row, dict)]) for k in STATISTICS}
    return {k: [float(q) for q in np.quantile(v, QUANTILES)] for k, v in values.items()}


def _words(seed: int) -> list[dict[str, Any]]:
    from curation.synthesis import synthesise

    samples = synthesise("typography", TYPOGRAPHY, seed=seed, exclude=frozenset())
    return [_row(f"word-{n:03d}", s.caption, "t2i", [], list(s.checks)) for n, s in enumerate(samples)]


def _edits(folder: Path, pictures: dict[str, bytes], seed: int) -> list[dict[str, Any]]:
    """One edit per held-out image, with the operations in turn; references are written beside the suite."""
    from curation.synthesis.photos import photo_edits

    rows = []
    for n, (sample_id, picture) in enumerate(pictures.items()):
        edits = list(photo_edits(picture, seed=f"{seed}-{sample_id}"))
        edit = edits[n % len(edits)]
        name = f"references/{sample_id[:12]}.png"
        write_bytes(folder / name, edit.references[0])
        rows.append(
            _row(
                f"edit-{sample_id[:12]}",
                edit.caption,
                "ti2i",
                [name],
                [{**c, "capability": PICTURE_EDITING} for c in edit.checks],
            )
        )
    return rows


def _row(prompt_id: str, prompt: str, task: str, references: list[str], checks: list[dict[str, Any]]) -> dict[str, Any]:
    return {"prompt_id": prompt_id, "prompt": prompt, "task": task, "references": references, "checks": checks}
