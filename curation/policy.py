"""A policy: six stages, each with its resolutions, the stream that enters, and filters in order. Thresholds live here.

Read from TOML (`curation/policies/*.toml`); every error names the file and, where it has one, the line.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from dataclasses import replace as replaced
from pathlib import Path
from types import MappingProxyType
from typing import Any

from curation.captions import STREAMS
from curation.scorers import SCORERS, scorer_class
from flywheel.workspace import UsageError, digest

STAGES = ("S1", "S2", "S3", "S4", "S5", "S6")
BUILTIN = Path(__file__).parent / "policies"
BALANCE_KEYS = ("source", "task", "stream")

# check → options it needs beside `streams` and `bucket`
_CHECKS: Mapping[str, tuple[str, ...]] = {
    "readable": (),
    "duplicates": ("hamming", "colour"),
    "balance": ("per", "cap"),
}
_WHOLE = ("hamming", "colour", "cap")  # options that are whole numbers


@dataclass(frozen=True)
class Filter:
    """One line of a stage. Either `score` with `min`/`max` (null scores pass), or a `check` with its options."""

    name: str
    score: str | None = None  # <scorer>.<column>
    min: float | None = None
    max: float | None = None
    check: str | None = None  # readable | duplicates | balance
    hamming: int = 0
    colour: int = 0
    per: str | None = None
    cap: int = 0
    bucket: int | None = None  # None: every bucket of the stage
    streams: tuple[str, ...] = ()  # (): every stream

    @property
    def scorer(self) -> str | None:
        """Name of the scorer whose column it reads."""
        return self.score.partition(".")[0] if self.score else None

    @property
    def bounds(self) -> tuple[str, ...]:
        """Names of its numbers."""
        return ("min", "max") if self.score else tuple(k for k in _CHECKS.get(self.check or "", ()) if k in _WHOLE)

    def applies_to(self, bucket: int) -> bool:
        """Does it act on this bucket of its stage?"""
        return self.bucket in (None, bucket)


@dataclass(frozen=True)
class Stage:
    """One stage: what it trains at, who enters, and the filters it newly applies."""

    name: str
    resolutions: tuple[int, ...]
    enters: tuple[str, ...]
    filters: tuple[Filter, ...]


@dataclass(frozen=True)
class Policy:
    """Stages in order, and the options of the scorers they read."""

    name: str
    stages: tuple[Stage, ...]
    scorers: Mapping[str, Mapping[str, Any]] = field(default_factory=lambda: MappingProxyType({}))

    @property
    def sha256(self) -> str:
        """Digest of everything that decides; the name is no part of it."""
        return digest([asdict(s) for s in self.stages], {k: dict(v) for k, v in self.scorers.items()})

    def scorer_names(self) -> tuple[str, ...]:
        """Scorers that its filters read, in order of appearance."""
        used = [f.scorer for s in self.stages for f in s.filters if f.scorer]
        return tuple(dict.fromkeys(used))

    def replace(self, path: str, value: float) -> Policy:
        """The policy with one number changed, as in `replace("S4.aesthetic.min", 5.0)`. Errors: `UsageError`."""
        stage, line, key = self._locate(path)
        if key in _WHOLE:
            if value < 0 or value != int(value):
                raise UsageError(f"{path} = {value}: {key} is a whole number of 0 or more")
            value = int(value)
        changed = replaced(line, **{key: value})
        if fault := _range_fault(changed):
            raise UsageError(f"{path} = {value}: {fault}")
        filters = tuple(changed if f is line else f for f in stage.filters)
        stages = tuple(replaced(s, filters=filters) if s is stage else s for s in self.stages)
        return replaced(self, stages=stages)

    def number(self, path: str) -> float | None:
        """The number at `STAGE.FILTER.BOUND`; None where that bound is open. Errors: `UsageError`."""
        _, line, key = self._locate(path)
        return getattr(line, key)

    def record(self) -> dict[str, Any]:
        """Everything in it as plain JSON values; `from_record` is the way back."""
        return {
            "name": self.name,
            "stages": json.loads(json.dumps([asdict(s) for s in self.stages])),
            "scorers": {k: dict(v) for k, v in self.scorers.items()},
        }

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Policy:
        """The policy that `record` was made of."""
        stages = tuple(
            Stage(
                s["name"],
                tuple(s["resolutions"]),
                tuple(s["enters"]),
                tuple(Filter(**f | {"streams": tuple(f["streams"])}) for f in s["filters"]),
            )
            for s in record["stages"]
        )
        scorers = MappingProxyType({k: MappingProxyType(dict(v)) for k, v in record["scorers"].items()})
        return cls(record["name"], stages, scorers)

    def _locate(self, path: str) -> tuple[Stage, Filter, str]:
        """(stage, filter, bound) that a dotted path names. Errors: `UsageError` that lists the choices."""
        stage_name, _, rest = path.partition(".")
        filter_name, _, key = rest.rpartition(".")
        stage = next((s for s in self.stages if s.name == stage_name), None)
        if stage is None:
            known = ", ".join(s.name for s in self.stages)
            raise UsageError(f"nothing to set at {path!r}: no stage {stage_name!r}, choose from {known}")
        line = next((f for f in stage.filters if f.name == filter_name), None)
        if line is None:
            known = ", ".join(f"{stage.name}.{f.name}" for f in stage.filters if f.bounds)
            wanted = filter_name or rest
            raise UsageError(f"nothing to set at {path!r}: {stage.name} has no filter {wanted!r}, choose from {known}")
        if key not in line.bounds:
            known = ", ".join(line.bounds) or "none: it has no number"
            raise UsageError(f"nothing to set at {path!r}: {stage.name}.{line.name} has the bounds {known}")
        return stage, line, key


def load_policy(source: str | Path) -> Policy:
    """Read a policy by the name of a built-in one, or from a .toml file.

    Errors: `UsageError` with file and line for anything that is not a policy.
    """
    path = Path(source)
    if not path.is_file():
        builtin = BUILTIN / f"{source}.toml"
        if path.suffix or "/" in str(source) or not builtin.is_file():
            names = ", ".join(sorted(p.stem for p in BUILTIN.glob("*.toml")))
            raise UsageError(f"policy {source} is neither a file nor a built-in policy ({names})")
        path = builtin
    try:
        text = path.read_text("utf-8")
        table = tomllib.loads(text)
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"policy {path} cannot be read: {error}") from error
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"policy {path} is not valid TOML: {error}") from error
    return _Reader(path, text).policy(table)


class _Reader:
    """Turns the TOML table into a policy, and knows the line of every table and key."""

    def __init__(self, path: Path, text: str) -> None:
        self._path = path
        self._lines = _locate(text)

    def policy(self, table: dict[str, Any]) -> Policy:
        scorers = table.pop("scorers", {})
        for name in table:
            if name not in STAGES:
                raise self._fault((name,), f"unknown stage {name!r}: choose from {', '.join(STAGES)}")
        stages = tuple(self._stage(name, table[name]) for name in STAGES if name in table)
        if not stages:
            raise self._fault((), "no stage: write at least [S1]")
        self._require_scorers(scorers)
        return Policy(self._path.stem, stages, MappingProxyType({k: MappingProxyType(v) for k, v in scorers.items()}))

    def _stage(self, name: str, table: Any) -> Stage:
        at = (name,)
        if not isinstance(table, dict):
            raise self._fault(at, f"{name} is not a table")
        self._only(at, table, ("resolutions", "enters", "filters"))
        sides = table.get("resolutions")
        if not _is_list(sides, int) or not sides or sorted(set(sides)) != sides or min(sides) < 16:
            raise self._fault((*at, "resolutions"), "resolutions is no ascending list of pixels, such as [512, 1024]")
        enters = table.get("enters", [])
        if not _is_list(enters, str) or not set(enters) <= set(STREAMS):
            raise self._fault((*at, "enters"), f"enters is not a list of streams ({', '.join(STREAMS)})")
        filters = table.get("filters", {})
        if not isinstance(filters, dict):
            raise self._fault((*at, "filters"), "filters is not a table of filters")
        lines = tuple(self._filter((*at, "filters", n), n, f, sides, enters) for n, f in filters.items())
        if any(f.check == "balance" for f in lines[:-1]):
            raise self._fault((*at, "filters"), "balance counts what is left: it must be the last filter of its stage")
        return Stage(name, tuple(sides), tuple(enters), lines)

    def _filter(self, at: tuple[str, ...], name: str, table: Any, sides: list[int], enters: list[str]) -> Filter:
        if not isinstance(table, dict):
            raise self._fault(at, f"filter {name} is not a table")
        if ("score" in table) == ("check" in table):
            raise self._fault(at, f"filter {name} needs either score or check")
        streams = table.get("streams", [])
        if not _is_list(streams, str) or not set(streams) <= set(STREAMS):
            raise self._fault((*at, "streams"), f"streams is not a list of streams ({', '.join(STREAMS)})")
        if "bucket" in table and table["bucket"] not in sides:
            raise self._fault((*at, "bucket"), f"bucket {table['bucket']} is none of the stage's resolutions {sides}")
        if "score" in table:
            self._only(at, table, ("score", "min", "max", "bucket", "streams"))
            self._require_column(at, table["score"])
            for key in ("min", "max"):
                if key in table and (isinstance(table[key], bool) or not isinstance(table[key], int | float)):
                    raise self._fault((*at, key), f"{key} is not a number")
        else:
            self._check_options(at, table, streams, enters)
        line = Filter(name, **(table | {"streams": tuple(streams)}))
        if fault := _range_fault(line):
            raise self._fault((*at, "min"), fault)
        return line

    def _check_options(self, at: tuple[str, ...], table: dict[str, Any], streams: list[str], enters: list[str]) -> None:
        check = table["check"]
        if check not in _CHECKS:
            raise self._fault((*at, "check"), f"unknown check {check!r}: choose from {', '.join(_CHECKS)}")
        self._only(at, table, ("check", "bucket", "streams", *_CHECKS[check]))
        for key in _CHECKS[check]:
            if key == "per":
                if table.get(key) not in BALANCE_KEYS:
                    raise self._fault((*at, key), f"per is not one of {', '.join(BALANCE_KEYS)}")
            elif not isinstance(table.get(key), int) or isinstance(table[key], bool) or table[key] < 0:
                raise self._fault((*at, key), f"{key} is not a whole number of 0 or more")
        if check in ("duplicates", "readable") and not set(streams or enters) <= set(enters):
            raise self._fault((*at, "streams"), f"{check} acts where a stream enters; this stage admits {enters}")
        if check == "duplicates" and not enters:
            raise self._fault((*at, "check"), "duplicates acts where a stream enters, and none enters at this stage")

    def _require_column(self, at: tuple[str, ...], score: Any) -> None:
        scorer, _, name = score.partition(".") if isinstance(score, str) else ("", "", "")
        if scorer not in SCORERS:
            raise self._fault((*at, "score"), f"unknown scorer in {score!r}: choose from {', '.join(sorted(SCORERS))}")
        columns = [f.name for f in scorer_class(scorer).fields if _is_number(f.type)]
        if name not in columns:
            raise self._fault((*at, "score"), f"{scorer} has no number {name!r}: choose from {', '.join(columns)}")

    def _require_scorers(self, scorers: Any) -> None:
        if not isinstance(scorers, dict):
            raise self._fault(("scorers",), "scorers is not a table")
        for name, options in scorers.items():
            if name not in SCORERS or not isinstance(options, dict):
                known = ", ".join(sorted(SCORERS))
                raise self._fault(("scorers", name), f"unknown scorer {name!r}: choose from {known}")

    def _only(self, at: tuple[str, ...], table: dict[str, Any], known: tuple[str, ...]) -> None:
        for key in table:
            if key not in known:
                raise self._fault((*at, key), f"unknown key {key!r}: choose from {', '.join(known)}")

    def _fault(self, at: tuple[str, ...], message: str) -> UsageError:
        line = next((self._lines[at[:n]] for n in range(len(at), 0, -1) if at[:n] in self._lines), None)
        where = f"{self._path}, line {line}" if line else str(self._path)
        return UsageError(f"policy {where}: {message}")


def _range_fault(line: Filter) -> str | None:
    if line.min is not None and line.max is not None and line.min > line.max:
        return f"min {line.min} is over max {line.max}"
    if line.score and line.min is None and line.max is None:
        return f"filter {line.name} has neither min nor max"
    return None


def _is_number(kind: Any) -> bool:
    import pyarrow as pa

    return pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)


def _is_list(value: Any, kind: type) -> bool:
    return isinstance(value, list) and all(isinstance(v, kind) and not isinstance(v, bool) for v in value)


def _locate(text: str) -> dict[tuple[str, ...], int]:
    """Line number of every table header and of every key below it, by dotted path. tomllib keeps no positions."""
    table: tuple[str, ...] = ()
    lines: dict[tuple[str, ...], int] = {}
    for number, line in enumerate(text.splitlines(), 1):
        if header := re.match(r"\s*\[\[?([^\[\]]+)\]", line):
            table = _path(header[1])
            lines.setdefault(table, number)
        elif key := re.match(r"""\s*([\w."'-]+)\s*=""", line):
            lines.setdefault((*table, *_path(key[1])), number)
    return lines


def _path(dotted: str) -> tuple[str, ...]:
    return tuple(part.strip().strip("\"'") for part in dotted.split("."))
