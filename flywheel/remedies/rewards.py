"""The rewards of reinforcement learning, computed from the columns of the scorers that curation also uses."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from curation.scorers import Unavailable, load
from curation.verify.checks import verify
from flywheel.core.errors import UsageError
from flywheel.core.scorer import Scorer
from training.rewards import Request, Scores
from training.rl.recipe import RLRecipe

Columns = Mapping[str, Any]
AESTHETIC_TOP = 10.0  # LAION's head gives about 1 to 10
COLOR_SHIFT = (5.0, 20.0)  # ΔE of a tint: from visible at a glance to different colours
FACE_DETAIL = 20.0  # detail of a face at which the portrait reward is at most 0.5
FACE_NOISE = 2.5  # levels of noise that a photograph may have; more lowers the reward, by 1/e for as many again
ROUGHNESS = (0.007, 0.07)  # of the photographs it was measured on, all but the extremes
SATURATION = 0.7  # mean saturation from which a picture is garish
FACE_GRID = 1.25  # blockiness that a photograph may have; more lowers the reward in proportion


def _ocr(request: Request, columns: Columns) -> float | None:
    """max(1 − edit distance / reference length, 0) over comparable characters; None if the prompt quotes no text."""
    from rapidfuzz.distance import Levenshtein

    from curation.scorers.quotes import comparable, quoted_text

    wanted = comparable(quoted_text(request.item.caption) or "")
    if not wanted:
        return None
    return max(0.0, 1 - Levenshtein.distance(comparable(columns["text"] or ""), wanted) / len(wanted))


def _alignment(request: Request, columns: Columns) -> float | None:
    return columns["similarity"]


def _aesthetic(request: Request, columns: Columns) -> float | None:
    return None if columns.get("aesthetic") is None else columns["aesthetic"] / AESTHETIC_TOP


def _portrait(request: Request, columns: Columns) -> float | None:
    """Detail of a frontal face, less for each damage that looks like detail; 0 without a face.

    The formula is ours: the report only names the reward. Sharpness alone prefers a posterised, noisy or blocky face to
    the photograph that it was made from, so flat areas, noise and JPEG's grid lower it.
    """
    if columns["detail"] is None:
        return 0.0
    detail = columns["detail"] / (columns["detail"] + FACE_DETAIL)
    calm = math.exp(-max(0.0, columns["noise"] / FACE_NOISE - 1))
    return detail * (1 - columns["flat"]) * calm * min(1.0, FACE_GRID / columns["blockiness"])


def _natural(request: Request, columns: Columns) -> float | None:
    """1 for a roughness and saturation as photographs have, less for blur, noise and garish colours; None if flat.

    Roughness is the variance of the Laplacian over that of white noise of the same contrast. No reward of the report:
    it watches the others without weights.
    """
    if not columns["contrast"]:
        return None
    roughness = columns["sharpness"] / (20 * columns["contrast"] ** 2)
    low, high = ROUGHNESS
    garish = max(0.0, columns["saturation"] - SATURATION) / (1 - SATURATION)
    return min(1.0, roughness / low) * min(1.0, high / max(roughness, low)) * (1 - garish)


def _consistency(request: Request, columns: Columns) -> float | None:
    """Mean of the subject's identity and of the likeness and colour of the unchanged area; None without references.

    Colour is included because a tint of the whole picture raises likeness. It is left out with several references,
    where it is unknown. Invisible shifts do not lower it: they would outweigh the identity.
    """
    if columns["identity"] is None:
        return None
    parts = [columns["identity"], columns["unchanged"]]
    if columns["color_shift"] is not None:
        low, high = COLOR_SHIFT
        parts.append(1 - min(1.0, max(0.0, columns["color_shift"] - low) / (high - low)))
    return sum(parts) / len(parts)


_OF_SCORERS: dict[str, tuple[str, Callable[[Request, Columns], float | None]]] = {
    "ocr": ("ocr", _ocr),
    "alignment": ("clip", _alignment),
    "aesthetic": ("clip", _aesthetic),
    "portrait": ("face", _portrait),
    "consistency": ("similarity", _consistency),
    "natural": ("pixels", _natural),
}
INSTRUCTION = "instruction"  # the prompt's own checks
REWARDS = (*_OF_SCORERS, INSTRUCTION)


@dataclass
class Local:
    """Rewards computed in this process. options: {scorer name: its options}, such as clip's `model` and `pretrained`.

    Each scorer runs once per batch, however many rewards read it. Rewards of a picture that a scorer cannot read are
    None; other pictures are not affected. Errors: `UsageError` for an unknown reward, and for one that is not
    available, with what to install or pull.
    """

    names: tuple[str, ...]
    options: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    workers: int = 1

    def __post_init__(self) -> None:
        if unknown := sorted(set(self.names) - set(REWARDS)):
            raise UsageError(f"unknown reward {unknown[0]!r}: choose from {', '.join(REWARDS)}")
        if missing := unavailable(self.options, self.names):
            raise UsageError("; ".join(f"reward {name} is {why}" for name, why in missing.items()))
        needed = dict.fromkeys(_OF_SCORERS[n][0] for n in self.names if n != INSTRUCTION)
        self._scorers: dict[str, Scorer] = {name: load(name, **self.options.get(name, {})) for name in needed}
        self._configured: dict[str, Scorer] = {}
        for name, options in self.options.items():
            if name not in needed:
                with suppress(Unavailable):  # checks that need it are then not applied
                    self._configured[name] = load(name, **options)

    def score(self, requests: Sequence[Request]) -> list[Scores]:
        """See `training.rewards.Rewards`."""
        out: list[dict[str, float | None]] = [dict.fromkeys(self.names) for _ in requests]
        for scorer_name, scorer in self._scorers.items():
            mine = [n for n in self.names if n != INSTRUCTION and _OF_SCORERS[n][0] == scorer_name]
            rows = [i for i, r in enumerate(requests) if _concerns(mine, r)]
            for i, columns in zip(rows, scorer.score([requests[i].item for i in rows])):
                if not isinstance(columns, Exception):
                    out[i] |= {n: _finite(_OF_SCORERS[n][1](requests[i], columns)) for n in mine}
        if INSTRUCTION in self.names:
            for row, value in zip(out, instruction(requests, self._scorers | self._configured)):
                row[INSTRUCTION] = value
        return list(out)


def for_recipe(recipe: RLRecipe, options: Mapping[str, Mapping[str, Any]], *, watch: Sequence[str] = ()) -> Local:
    """The rewards that a recipe trains on, the available verifiers that watch them, and those in `watch`.

    Errors: as of `Local`.
    """
    watchers = dict.fromkeys(w for reward in recipe.rewards for w in recipe.watchers(reward) if w in REWARDS)
    missing = unavailable(options, [*watchers])
    names = [*recipe.rewards, *(w for w in watchers if w not in missing), *recipe.proxies.values(), *watch]
    return Local(tuple(dict.fromkeys(names)), options)


def unavailable(options: Mapping[str, Mapping[str, Any]], names: Sequence[str] = REWARDS) -> dict[str, str]:
    """{reward that cannot be computed here: "not available: <what to install or pull>"}."""
    out = {}
    for name in names:
        if name != INSTRUCTION and (why := _missing(name, *_OF_SCORERS[name], options)):
            out[name] = f"not available: {why}"
    return out


def _missing(name: str, scorer: str, _: object, options: Mapping[str, Mapping[str, Any]]) -> str | None:
    try:
        loaded = load(scorer, **options.get(scorer, {}))
    except Unavailable as error:
        return str(error)
    if name == "aesthetic" and not any(f.name == "aesthetic" for f in loaded.fields):
        return "clip has no aesthetic head: set aesthetic_head, a file with its weight and bias, in the table clip"
    return None


def instruction(requests: Sequence[Request], scorers: Mapping[str, Scorer]) -> list[float | None]:
    """Instruction following: mean of score / threshold over the checks, each at most 1, so that 1 means all pass.

    None if no check could be applied.
    """
    judged = verify([r.item for r in requests], [r.checks for r in requests], scorers=scorers)
    out: list[float | None] = []
    for outcomes in judged:
        parts = [min(1.0, o.score / o.threshold) for o in outcomes if o.score is not None and o.threshold]
        out.append(sum(parts) / len(parts) if parts else None)
    return out


def _concerns(names: Sequence[str], request: Request) -> bool:
    """False for requests that would only be read for text and quote none: OCR is expensive."""
    from curation.scorers.quotes import quoted_text

    return set(names) != {"ocr"} or quoted_text(request.item.caption) is not None


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
