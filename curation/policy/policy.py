"""A policy: six stages, each with its resolutions, the streams that enter, and filters in order. Thresholds live here.

`curation.policy.reader` reads one from TOML.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from dataclasses import replace as replaced
from types import MappingProxyType
from typing import Any

from flywheel.core.errors import UsageError
from flywheel.core.files import digest
from flywheel.core.schema import RIGHTS

BALANCE_KEYS = ("source", "task", "stream")
RIGHTS_KEYS = tuple(f.name for f in RIGHTS)
_UNLIMITED = math.inf

# check → (required options, optional ones), besides `streams` and `bucket`
CHECKS: Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "readable": ((), ()),
    "duplicates": (("hamming", "colour"), ("agreement",)),
    "copies": (("agreement",), ()),
    "similar": (("cosine",), ()),
    "balance": (("per", "cap"), ("caps", "quotas", "tail", "most")),
    "rights": (("of",), ("allow", "deny", "unknown")),
}
# option → (whole number?, least, most)
NUMBERS: Mapping[str, tuple[bool, float, float]] = {
    "hamming": (True, 0, 64),
    "colour": (True, 0, 255),
    "agreement": (False, 0, 1),
    "cosine": (False, 0, 1),
    "cap": (True, 0, _UNLIMITED),
    "tail": (False, 0, 1),
    "most": (False, 1, _UNLIMITED),
}
GROUPS = {"caps": (True, _UNLIMITED), "quotas": (False, 1)}  # option by group → (whole number?, most)
# check → score column it compares rows by
COMPARED = {"duplicates": "pixels.phash", "copies": "copies.hashes", "similar": "clip.embedding"}
SKETCH = "copies.sketch"  # score column in which two pictures are compared


@dataclass(frozen=True)
class Filter:
    """A filter of a stage: either `score` with `min`/`max` (null scores pass), or a `check` with its options."""

    name: str
    score: str | None = None  # <scorer>.<column>
    min: float | None = None
    max: float | None = None
    references: bool = False  # the score of each reference is judged too
    check: str | None = None  # readable | duplicates | copies | similar | balance | rights
    hamming: int = 0
    colour: int = 0
    agreement: float | None = None  # share of the sketches that must agree; duplicates: None: they are not compared
    cosine: float | None = None  # similarity from which two pictures count as the same
    per: str | None = None  # source | task | stream | <scorer>.<text column>
    cap: int = 0  # rows per group …
    caps: tuple[tuple[str, int], ...] = ()  # … and for groups with their own cap
    quotas: tuple[tuple[str, float], ...] = ()  # share of all draws that a group gets
    tail: float | None = None  # the other groups are drawn in proportion to rows ** tail; None: to their size
    most: float | None = None  # upper bound of a row's weight relative to uniform drawing
    of: str | None = None  # license | source_url | consent
    allow: tuple[str, ...] = ()  # values that pass, in any letter case, * for any text; (): all that are not denied
    deny: tuple[str, ...] = ()  # values that do not
    unknown: str | None = None  # keep | drop: rows that state none; None: drop where `allow` lists what passes
    bucket: int | None = None  # None: every bucket of the stage
    streams: tuple[str, ...] = ()  # (): every stream

    @property
    def column(self) -> str | None:
        """The score column it requires; None if it needs none."""
        grouped = self.per if self.per and "." in self.per else None
        return self.score or grouped or COMPARED.get(self.check or "")

    @property
    def columns(self) -> tuple[str, ...]:
        """All score columns that it reads."""
        sketch = SKETCH if self.agreement is not None else None
        return tuple(dict.fromkeys(c for c in (self.column, sketch) if c))

    @property
    def compares(self) -> bool:
        """Whether it compares rows with other rows."""
        return self.check in COMPARED

    @property
    def tolerance(self) -> float | None:
        """The number by which a check that compares rows drops one: bits, agreement or cosine."""
        return {"duplicates": self.hamming, "copies": self.agreement, "similar": self.cosine}.get(self.check or "")

    @property
    def bounds(self) -> tuple[str, ...]:
        """Names of its numbers."""
        if self.score:
            return ("min", "max")
        needed, optional = CHECKS.get(self.check or "", ((), ()))
        return tuple(k for k in (*needed, *optional) if k in NUMBERS)

    @property
    def weighs(self) -> bool:
        """Whether it sets how often a row is drawn."""
        return self.check == "balance" and bool(self.quotas or self.tail is not None)

    @property
    def keeps_unknown(self) -> bool:
        """Whether a rights check lets rows pass that state nothing."""
        return self.unknown == "keep" or (self.unknown is None and not self.allow)

    def applies_to(self, bucket: int) -> bool:
        """Whether it acts on this bucket of its stage."""
        return self.bucket in (None, bucket)


@dataclass(frozen=True)
class Stage:
    """One stage: its resolutions, the streams that enter, and the filters it adds."""

    name: str
    resolutions: tuple[int, ...]
    enters: tuple[str, ...]
    filters: tuple[Filter, ...]


@dataclass(frozen=True)
class Policy:
    """Stages in order, and the options of the scorers they read.

    >>> import flywheel as fw
    >>> policy: fw.Policy = fw.load_policy("qwen-image-2")
    >>> [stage.name for stage in policy.stages]
    ['S1', 'S2', 'S3', 'S4', 'S5', 'S6']
    """

    name: str
    stages: tuple[Stage, ...]
    scorers: Mapping[str, Mapping[str, Any]] = field(default_factory=lambda: MappingProxyType({}))
    prompt_similarity: float = 1.0  # captions this similar to an evaluation prompt are dropped; 1: equal ones only

    @property
    def sha256(self) -> str:
        """Digest of everything that affects a decision; the name does not."""
        scorers = {k: dict(v) for k, v in self.scorers.items()}
        return digest([asdict(s) for s in self.stages], scorers, self.prompt_similarity)

    def scorer_names(self) -> tuple[str, ...]:
        """Scorers that its filters read, in order of first use."""
        used = [c.partition(".")[0] for s in self.stages for f in s.filters for c in f.columns]
        return tuple(dict.fromkeys(used))

    def scorer_values(self) -> list[Any]:
        """The values of all options of the scorers that its filters read."""
        return [v for name in self.scorer_names() for v in self.scorers.get(name, {}).values()]

    def replace(self, path: str, value: float) -> Policy:
        """The policy with one number changed, as in `replace("S4.aesthetic.min", 5.0)`. Errors: `UsageError`."""
        stage, filter_, key = self._locate(path)
        if key in NUMBERS:
            if fault := number_fault(key, value, *NUMBERS[key]):
                raise UsageError(f"{path} = {value}: {fault}")
            value = int(value) if NUMBERS[key][0] else value
        changed = _with(filter_, key, value)
        if fault := range_fault(changed):
            raise UsageError(f"{path} = {value}: {fault}")
        filters = tuple(changed if f is filter_ else f for f in stage.filters)
        stages = tuple(replaced(s, filters=filters) if s is stage else s for s in self.stages)
        return replaced(self, stages=stages)

    def number(self, path: str) -> float | None:
        """The number at `STAGE.FILTER.BOUND`; None if that bound is open. Errors: `UsageError`."""
        _, filter_, key = self._locate(path)
        return getattr(filter_, key)

    def record(self) -> dict[str, Any]:
        """The policy as plain JSON values; `from_record` reads them back."""
        return {
            "name": self.name,
            "stages": json.loads(json.dumps([asdict(s) for s in self.stages])),
            "scorers": {k: dict(v) for k, v in self.scorers.items()},
            "prompt_similarity": self.prompt_similarity,
        }

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Policy:
        """The policy written by `record`."""
        stages = tuple(
            Stage(
                s["name"],
                tuple(s["resolutions"]),
                tuple(s["enters"]),
                tuple(_filter_from(f) for f in s["filters"]),
            )
            for s in record["stages"]
        )
        scorers = MappingProxyType({k: MappingProxyType(dict(v)) for k, v in record["scorers"].items()})
        return cls(record["name"], stages, scorers, record.get("prompt_similarity", 1.0))

    def _locate(self, path: str) -> tuple[Stage, Filter, str]:
        """(stage, filter, bound) named by a dotted path. Errors: `UsageError` that lists the choices."""
        stage_name, _, rest = path.partition(".")
        filter_name, _, key = rest.rpartition(".")
        stage = next((s for s in self.stages if s.name == stage_name), None)
        if stage is None:
            known = ", ".join(s.name for s in self.stages)
            raise UsageError(f"nothing to set at {path!r}: no stage {stage_name!r}, choose from {known}")
        if whole := next((f for f in stage.filters if f.name == rest and f.bounds), None):
            known = ", ".join(f"{path}.{bound}" for bound in whole.bounds)
            raise UsageError(f"nothing to set at {path!r}, which is a filter: name its number, {known}")
        filter_ = next((f for f in stage.filters if f.name == filter_name), None)
        if filter_ is None:
            known = ", ".join(f"{stage.name}.{f.name}" for f in stage.filters if f.bounds)
            wanted = filter_name or rest
            raise UsageError(f"nothing to set at {path!r}: {stage.name} has no filter {wanted!r}, choose from {known}")
        if key not in filter_.bounds:
            known = ", ".join(filter_.bounds) or "none: it has no number"
            raise UsageError(f"nothing to set at {path!r}: {stage.name}.{filter_.name} has the bounds {known}")
        return stage, filter_, key


def range_fault(filter_: Filter) -> str | None:
    """What is wrong with the filter's `min` and `max`; None if nothing is."""
    if filter_.min is not None and filter_.max is not None and filter_.min > filter_.max:
        return f"min {filter_.min} is over max {filter_.max}"
    if filter_.score and filter_.min is None and filter_.max is None:
        return f"filter {filter_.name} has neither min nor max"
    return None


def number_fault(key: str, value: Any, whole: bool, least: float, most: float) -> str | None:
    """What is wrong with an option's value; None if it is a number in its range."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if is_number and math.isfinite(value) and least <= value <= most and (not whole or value == int(value)):
        return None
    limits = f"of {least} or more" if most == _UNLIMITED else f"from {least} to {most}"
    return f"{key} is not a {'whole ' if whole else ''}number {limits}"


def _with(filter_: Filter, key: str, value: float) -> Filter:
    """The filter with one number changed."""
    changes: dict[str, Any] = {key: value}
    return replaced(filter_, **changes)


def _filter_from(record: Mapping[str, Any]) -> Filter:
    groups = {k: tuple((n, v) for n, v in record.get(k, ())) for k in GROUPS}
    lists = {k: tuple(record.get(k, ())) for k in ("streams", "allow", "deny")}
    return Filter(**dict(record) | groups | lists)
