"""Records stored in JSON files: shard manifests, systems, plans and results of rounds; one reader and writer each."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeVar

from flywheel.core.errors import UsageError
from flywheel.core.files import digest, read_json, write_json

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Record = TypeVar("Record", bound="DataclassInstance")
BASE = "base"  # slice of the rows that curation admitted; all other slices are capabilities


@dataclass(frozen=True, kw_only=True)
class ShardFile:
    """One Parquet file of a shard manifest. `path` is relative to the manifest; all rows share one layout.

    bucket, width, height: pixels. references: reference pictures per row. stages: the stages that admitted the rows.
    slice: None if the rows have it in a column. least_weight: smallest weight of a row that is drawn;
    None if no row has a weight.
    """

    path: str
    sha256: str
    bytes: int
    rows: int
    bucket: int
    width: int
    height: int
    task: str
    references: int
    stages: tuple[str, ...]
    slice: str | None = None
    least_weight: float | None = None


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """The shards of a snapshot, or of a round's remedies.

    balanced: stages that draw rows by weight. weights: {bucket: {group of the row: its weight}}; rows without a group
    have weight 1. Manifests of earlier versions have none, and their shards a column `weight`.
    """

    snapshot: str
    files: tuple[ShardFile, ...]
    balanced: tuple[str, ...] = ()
    weights: Mapping[str, Mapping[str, float]] | None = None
    policy: str | None = None
    policy_sha256: str | None = None
    round: int | None = None

    @classmethod
    def read(cls, path: Path) -> Self:
        """The manifest in `path`. Errors: `UsageError` for a file that holds something else."""
        return cls.of(_json(path), path)

    @classmethod
    def of(cls, value: Any, where: object) -> Self:
        """The manifest that a JSON value describes; `where` it came from is named in errors. Errors: `UsageError`."""
        return _record(cls, value, where, lambda v: v | {"files": tuple(_shard_file(f) for f in v["files"])})

    def write(self, path: Path) -> None:
        """Write the manifest to `path` atomically."""
        write_json(path, _without_none(self) | {"files": [_without_none(f) for f in self.files]})


@dataclass(frozen=True, kw_only=True)
class System:
    """What draws the picture of a prompt, and what the gate judges: a generator, an enhancer and sampling settings.

    checkpoint: workspace path of the generator's folder; weights: its fingerprint; generator: its kind, and the model
    that it was made from (see `flywheel.generators`), None for a checkpoint of ours. enhancer: {backend, model,
    key_variable, sha256}, which every prompt goes through; None: prompts are drawn as written. side: pixels; steps,
    cfg: None: the generator's own. schedule: its time grid. student: workspace path of a checkpoint that draws the same
    in few steps; student_weights: its fingerprint. Whatever a system of an older workspace does not record is None.
    """

    checkpoint: str
    weights: str | None = None
    enhancer: Mapping[str, str] | None = None
    side: int | None = None
    steps: int | None = None
    cfg: float | None = None
    schedule: str | None = None
    student: str | None = None
    student_weights: str | None = None
    generator: Mapping[str, str] | None = None

    @property
    def id(self) -> str:
        """16 hex digits of the content: equal weights, enhancers and settings make equal systems, wherever they are."""
        known = asdict(self)
        if self.generator is None:  # as in systems from before there were other generators
            del known["generator"]
        content = {k: v for k, v in known.items() if k not in ("checkpoint", "student")}
        return digest(content if self.weights else known)[:16]

    @classmethod
    def read(cls, path: Path) -> Self:
        """The system in `path`. Errors: `UsageError` for a file that holds something else."""
        return _record(cls, _json(path), path, lambda v: {k: part for k, part in v.items() if k != "id"})

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON, with the id."""
        return {"id": self.id, **asdict(self)}

    def write(self, path: Path) -> None:
        """Write the system to `path` atomically."""
        write_json(path, self.as_dict())


@dataclass(frozen=True, kw_only=True)
class MixEntry:
    """A slice's share of a round's training batches, with the reason.

    samples: number of new samples that the remedies provide; cases: open cases behind the share; round: the earlier
    round whose remedies are kept.
    """

    slice: str
    share: float
    reason: str
    samples: int | None = None
    cases: int | None = None
    round: int | None = None


@dataclass(frozen=True, kw_only=True)
class Pins:
    """The inputs of a round, each with its digest.

    policy, preset: name and sha256; suites: path, sha256 and number of prompts; incumbent: workspace path;
    checkpoint: SHA-256 of the incumbent's weights.
    """

    snapshot: str
    policy: Mapping[str, str]
    incumbent: str | None
    checkpoint: str | None
    code: str
    preset: Mapping[str, str]
    suites: tuple[Mapping[str, Any], ...]
    seed: int


@dataclass(frozen=True, kw_only=True)
class Remedy:
    """What a round does for the open cases of one track; a remedy that does nothing says why.

    track: of its cases; None serves all. kind: data | grpo | sft | review | distil. samples: new training samples, or
    pictures to look at; prompts: to draw for; updates: optimiser steps; cases: open cases that it serves, case_ids:
    which; targets: their capabilities.
    """

    track: str | None = None
    kind: str
    reason: str
    cases: int = 0
    samples: int | None = None
    prompts: int | None = None
    updates: int | None = None
    targets: tuple[str, ...] = ()
    case_ids: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Submission:
    """A checkpoint that a person made the candidate of a round: its workspace path, where it came from, who and why."""

    checkpoint: str
    source: str
    by: str
    why: str


@dataclass(frozen=True, kw_only=True)
class RoundPlan(Pins):
    """What a round does, for how long and why.

    recipe: name and changes of a training recipe; steps: optimiser steps of the data phase, 0 if it is empty; targets:
    capabilities; cases: ids of the cases that it serves; waiting: {track: open cases that nothing serves}; remedies: by
    track, in the order in which they run; incumbent_round: the round that made the incumbent; submitted: the candidate,
    where the round trains nothing.
    """

    round: int
    recipe: Mapping[str, Any]
    steps: int
    targets: tuple[str, ...]
    cases: tuple[str, ...]
    cases_open: int
    waiting: Mapping[str, int]
    mix: tuple[MixEntry, ...]
    remedies: tuple[Remedy, ...] = ()
    incumbent_round: int | None = None
    submitted: Submission | None = None

    @property
    def requests(self) -> tuple[MixEntry, ...]:
        """The entries that ask for new samples; the others are the base pool and remedies of earlier rounds."""
        return tuple(m for m in self.mix if m.samples is not None)

    @property
    def aimed(self) -> tuple[MixEntry, ...]:
        """The requests that serve cases; the others rehearse what a given checkpoint can do."""
        return tuple(m for m in self.requests if m.cases != 0)

    def remedy(self, track: str | None, kind: str) -> Remedy:
        """The remedy of a track and kind; an empty one in plans that were pinned before there were any."""
        mine = (r for r in self.remedies if (r.track, r.kind) == (track, kind))
        return next(mine, Remedy(track=track, kind=kind, reason="not planned"))

    def updates(self, track: str | None, kind: str) -> int:
        """Optimiser steps of a remedy; 0 if it is empty."""
        return self.remedy(track, kind).updates or 0

    @classmethod
    def read(cls, path: Path) -> Self:
        """The plan in `path`. Errors: `UsageError` for a file that holds something else."""
        return _record(cls, _json(path), path, _plan_parts)

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self) | {
            "mix": [_without_none(m) for m in self.mix],
            "remedies": [_without_none(r) for r in self.remedies],
        }

    def write(self, path: Path) -> None:
        """Write the plan to `path` atomically."""
        write_json(path, self.as_dict())


@dataclass(frozen=True)
class GateLine:
    """One capability at the gate: the candidate's failure rate against the incumbent's and the best promoted one.

    All rates are shares of pictures, over the same prompts. low, high: limits of candidate - incumbent, each one-sided
    at level 1 - alpha, as are best_low and best_high of candidate - best. The fields from `margin` on are None in
    results of older versions; those of the best, also where no promoted checkpoint failed less than the incumbent.
    """

    check: str
    n: int  # prompts
    incumbent: float
    candidate: float
    fixed: int  # prompts with fewer failing pictures than the incumbent's
    broken: int  # prompts with more
    low: float
    high: float
    p_value: float  # of a win, adjusted for the number of capabilities
    targeted: bool
    outcome: str  # win | tie | regression | unclear
    margin: float | None = None  # loss that the gate must rule out
    best: float | None = None
    best_round: int | None = None
    best_low: float | None = None
    best_high: float | None = None
    needed: int | None = None  # prompts that would tell, where these do not


@dataclass(frozen=True, kw_only=True)
class RoundResult:
    """The result of a round: the gate's verdict, failure rates by capability, and the changed cases.

    Rates are shares in [0, 1] of the checks; prompts: {capability: checks}; fixed, broken: case ids; system: the
    candidate, as `System.as_dict`; student: {verdict, reason, failure_rate} against its teacher, None without one.
    hidden_…: of the candidate on the prompts that nothing chases (`flywheel.signals.hidden`).
    """

    round: int
    verdict: str
    reason: str
    checkpoint: str
    incumbent: str | None
    snapshot: str
    targets: tuple[str, ...]
    failure_rate: Mapping[str, float]
    incumbent_failure_rate: Mapping[str, float]
    control_failure_rate: Mapping[str, float]
    prompts: Mapping[str, int]
    gate: tuple[GateLine, ...]
    fixed: tuple[str, ...]
    broken: tuple[str, ...]
    hidden_failure_rate: Mapping[str, float] = field(default_factory=dict)
    hidden_prompts: Mapping[str, int] = field(default_factory=dict)
    system: Mapping[str, Any] | None = None
    student: Mapping[str, Any] | None = None

    @classmethod
    def read(cls, path: Path) -> Self:
        """The result in `path`. Errors: `UsageError` for a file that holds something else."""
        return cls.of(_json(path), path)

    @classmethod
    def of(cls, value: Any, where: object) -> Self:
        """The result that a JSON value describes; `where` it came from is named in errors. Errors: `UsageError`."""
        return _record(cls, value, where, lambda v: v | {"gate": tuple(GateLine(**line) for line in v["gate"])})

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)

    def write(self, path: Path) -> None:
        """Write the result to `path` atomically."""
        write_json(path, self.as_dict())


def _json(path: Path) -> Any:
    try:
        return read_json(path)
    except ValueError as error:
        raise UsageError(f"{path} is damaged, it is not JSON ({error}): restore the file") from error


def _record(cls: type[Record], value: Any, where: object, parts: Callable[[Any], Mapping[str, Any]]) -> Record:
    """The record of a JSON value; parts: replaces the entries of the value that are records themselves."""
    try:
        return cls(**_tuples(parts(value)))
    except (TypeError, KeyError, AttributeError) as error:
        names = ", ".join(f.name for f in fields(cls))
        raise UsageError(f"{where} is not a {cls.__name__} ({error!r}); it needs {names}: restore the file") from error


def _plan_parts(value: Mapping[str, Any]) -> dict[str, Any]:
    submitted = value.get("submitted")
    return dict(value) | {
        "mix": tuple(_mix_entry(m) for m in value["mix"]),
        "remedies": tuple(Remedy(**_tuples(r)) for r in value.get("remedies", ())),
        "submitted": Submission(**submitted) if submitted else None,
    }


def _shard_file(value: Mapping[str, Any]) -> ShardFile:
    return ShardFile(**_tuples(_with_slice(value)))


def _mix_entry(value: Mapping[str, Any]) -> MixEntry:
    return MixEntry(**_with_slice(value))


def _with_slice(value: Mapping[str, Any]) -> dict[str, Any]:
    """In workspaces of format 1 the slice is named `track`."""
    return {"slice" if key == "track" else key: part for key, part in value.items()}


def _tuples(value: Mapping[str, Any]) -> dict[str, Any]:
    return {key: tuple(part) if isinstance(part, list) else part for key, part in value.items()}


def _without_none(record: DataclassInstance) -> dict[str, Any]:
    return {key: part for key, part in asdict(record).items() if part is not None}
