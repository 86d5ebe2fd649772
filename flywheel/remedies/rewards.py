"""The rewards of reinforcement learning by name, on the columns of the scorers that curation and evaluation use."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from curation.scorers import load
from curation.verify.checks import verify
from flywheel.core.errors import UsageError
from flywheel.core.scorer import Scorer
from training.rewards import Request, Scores

Columns = Mapping[str, Any]
AESTHETIC_TOP = 10.0  # LAION's head: about 1 to 10
COLOR_SHIFT = (5.0, 20.0)  # ΔE of a tint: from seen at a glance to other colours altogether
FACE_DETAIL = 100.0  # variance of a face's Laplacian at which the portrait reward is one half


def _ocr(request: Request, seen: Columns) -> float | None:
    """max(1 − edit distance / reference length, 0) over comparable characters; only where the prompt quotes text."""
    from rapidfuzz.distance import Levenshtein

    from curation.scorers.ocr import comparable, quoted_text

    wanted = comparable(quoted_text(request.item.caption) or "")
    if not wanted:
        return None
    return max(0.0, 1 - Levenshtein.distance(comparable(seen["text"] or ""), wanted) / len(wanted))


def _alignment(request: Request, seen: Columns) -> float | None:
    return seen["similarity"]


def _aesthetic(request: Request, seen: Columns) -> float | None:
    return None if seen.get("aesthetic") is None else seen["aesthetic"] / AESTHETIC_TOP


def _portrait(request: Request, seen: Columns) -> float | None:
    """A frontal face with detail [D: the report names the reward, not its formula]; 0 without one."""
    return 0.0 if seen["sharpness"] is None else seen["sharpness"] / (seen["sharpness"] + FACE_DETAIL)


def _consistency(request: Request, seen: Columns) -> float | None:
    """Mean of the subject's identity, the likeness of what was not to change, and its colour; None without references.

    Colour, because likeness alone is raised by a tint of the whole picture. With several references it is unknown.
    A shift that is not seen counts for nothing: it would drown what the subject says.
    """
    if seen["identity"] is None:
        return None
    parts = [seen["identity"], seen["unchanged"]]
    if seen["color_shift"] is not None:
        low, high = COLOR_SHIFT
        parts.append(1 - min(1.0, max(0.0, seen["color_shift"] - low) / (high - low)))
    return sum(parts) / len(parts)


_OF_SCORERS: dict[str, tuple[str, Callable[[Request, Columns], float | None]]] = {
    "ocr": ("ocr", _ocr),
    "alignment": ("clip", _alignment),
    "aesthetic": ("clip", _aesthetic),
    "portrait": ("face", _portrait),
    "consistency": ("similarity", _consistency),
}
INSTRUCTION = "instruction"  # the prompt's own checks
REWARDS = (*_OF_SCORERS, INSTRUCTION)


@dataclass
class Local:
    """Rewards computed in this process. `options`: scorer name → its options, such as clip's `model` and `pretrained`.

    A scorer runs once per batch, whatever number of rewards reads it. A picture that a scorer cannot read has None
    there, and costs nobody else anything. Errors: `UsageError` for an unknown reward, `Unavailable` without weights.
    """

    names: tuple[str, ...]
    options: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    workers: int = 1

    def __post_init__(self) -> None:
        if unknown := sorted(set(self.names) - set(REWARDS)):
            raise UsageError(f"unknown reward {unknown[0]!r}: choose from {', '.join(REWARDS)}")
        needed = dict.fromkeys(_OF_SCORERS[n][0] for n in self.names if n != INSTRUCTION)
        self._scorers: dict[str, Scorer] = {name: load(name, **self.options.get(name, {})) for name in needed}
        self._configured = {name: load(name, **given) for name, given in self.options.items() if name not in needed}

    def score(self, requests: Sequence[Request]) -> list[Scores]:
        """See `training.rewards.Rewards`."""
        out: list[dict[str, float | None]] = [dict.fromkeys(self.names) for _ in requests]
        for scorer_name, scorer in self._scorers.items():
            mine = [n for n in self.names if n != INSTRUCTION and _OF_SCORERS[n][0] == scorer_name]
            rows = [i for i, r in enumerate(requests) if _concerns(mine, r)]
            for i, seen in zip(rows, scorer.score([requests[i].item for i in rows])):
                if not isinstance(seen, Exception):
                    out[i] |= {n: _finite(_OF_SCORERS[n][1](requests[i], seen)) for n in mine}
        if INSTRUCTION in self.names:
            for row, value in zip(out, instruction(requests, self._scorers | self._configured)):
                row[INSTRUCTION] = value
        return out


def instruction(requests: Sequence[Request], scorers: Mapping[str, Scorer]) -> list[float | None]:
    """Instruction following: mean over the checks of score/threshold, at most 1, so that 1 means all pass.

    None where no check could be applied.
    """
    judged = verify([r.item for r in requests], [r.checks for r in requests], scorers=scorers)
    out: list[float | None] = []
    for outcomes in judged:
        parts = [min(1.0, o.score / o.threshold) for o in outcomes if o.score is not None and o.threshold]
        out.append(sum(parts) / len(parts) if parts else None)
    return out


def _concerns(names: Sequence[str], request: Request) -> bool:
    """Reading text is dear: pictures whose prompt quotes none are not read."""
    from curation.scorers.ocr import quoted_text

    return set(names) != {"ocr"} or quoted_text(request.item.caption) is not None


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
