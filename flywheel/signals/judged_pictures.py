"""Judge a folder of pictures by a suite's own checks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from flywheel.core.image import BadImage, decode
from flywheel.signals.evaluation import Verifiers, judge_images
from flywheel.signals.suite import Prompt

ENDINGS = (".png", ".jpg", ".jpeg")


def judge_folder(suite: Sequence[Prompt], folder: Path, *, by: Verifiers | None = None) -> list[dict[str, Any]]:
    """One row per prompt and check: {prompt_id, capability, check, passed | None, score | None, reason}.

    The picture of a prompt is `<prompt_id>.png`, `.jpg` or `.jpeg` in the folder. A missing or unreadable one costs the
    rows of its own prompt: their `passed` is None, and `reason` says why.
    """
    found = {p.prompt_id: _picture(p, folder) for p in suite}
    there = [p for p in suite if isinstance(found[p.prompt_id], bytes)]
    images = [image for p in there if isinstance(image := found[p.prompt_id], bytes)]
    outcomes = {p.prompt_id: o for p, o in zip(there, judge_images(there, images, by=by))}
    rows = []
    for prompt in suite:
        if prompt.prompt_id in outcomes:
            for o in outcomes[prompt.prompt_id]:
                reason = "" if o.passed is not None else str(o.evidence.get("not_applied", "it could not be applied"))
                rows.append(_row(prompt.prompt_id, o.capability, o.verifier, o.passed, o.score, reason))
        else:
            for check in prompt.checks:
                rows.append(_unjudged(prompt, check, str(found[prompt.prompt_id])))
    return rows


def _picture(prompt: Prompt, folder: Path) -> bytes | str:
    """The picture's bytes, or why there are none."""
    if missing := [r for r in prompt.references if not r.is_file()]:
        return f"the reference {missing[0]} is missing"
    path = next((p for e in ENDINGS if (p := folder / f"{prompt.prompt_id}{e}").is_file()), None)
    if path is None:
        return f"there is no picture {prompt.prompt_id}.png or .jpg in {folder}"
    image = path.read_bytes()
    try:
        decode(image)
    except BadImage as error:
        return f"{path.name} cannot be read: {error}"
    return image


def _unjudged(prompt: Prompt, check: Mapping[str, Any], reason: str) -> dict[str, Any]:
    return _row(prompt.prompt_id, check["capability"], check["verifier"], None, None, reason)


def _row(
    prompt_id: str, capability: str, check: str, passed: bool | None, score: float | None, reason: str
) -> dict[str, Any]:
    keys = ("prompt_id", "capability", "check", "passed", "score", "reason")
    return dict(zip(keys, (prompt_id, capability, check, passed, score, reason)))
