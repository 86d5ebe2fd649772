"""Read and check a policy's TOML: every error names the file and, where possible, the line."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from pathlib import Path
from types import MappingProxyType
from typing import Any

from curation.policy.policy import (
    BALANCE_KEYS,
    CHECKS,
    COMPARED,
    GROUPS,
    NUMBERS,
    RIGHTS_KEYS,
    Filter,
    Policy,
    Stage,
    number_fault,
    range_fault,
)
from curation.scorers import SCORERS, scorer_class
from curation.sources.captions import STREAMS
from flywheel.core.config import Lines, merged, read_toml, toml_text
from flywheel.core.errors import UsageError
from flywheel.core.ranges import unusable
from flywheel.core.schema import STAGES
from flywheel.core.settings_paths import Paths

_SIDES = 16, 8192  # pixels of a bucket's side: a row is encoded as a whole
_BUILTIN = Path(__file__).parent
PATHS = Paths(either=[("scorers",)])


def load_policy(source: str | Path) -> Policy:
    """Read a built-in policy by name, or one from a .toml file.

    Errors: `UsageError` with file and line for anything that is not a valid policy.

    >>> import flywheel as fw
    >>> fw.load_policy("demo").name
    'demo'
    """
    path = Path(source)
    if not path.is_file():
        builtin = _BUILTIN / f"{source}.toml"
        if path.suffix or "/" in str(source) or not builtin.is_file():
            names = ", ".join(sorted(p.stem for p in _BUILTIN.glob("*.toml")))
            raise UsageError(f"policy {source} is neither a file nor a built-in policy ({names})")
        path = builtin
    return Reader(path).policy(_based(path))


def _based(path: Path, seen: tuple[Path, ...] = ()) -> dict[str, Any]:
    """The tables of a policy over those of the policy that it names as its base.

    A filter of the base is changed key by key; new ones act behind it, before its balance.
    """
    table = PATHS.absolute(read_toml(path), path.parent)
    if (name := table.pop("base", None)) is None:
        return table
    where = f"policy {path}, line {Lines(toml_text(path)).at(('base',))}"
    if not isinstance(name, str):
        raise UsageError(f"{where}: base is not the name of a policy")
    base = path.parent / name if name.endswith(".toml") else _BUILTIN / f"{name}.toml"
    if not base.is_file() or base.resolve() in (*seen, path.resolve()):
        names = ", ".join(sorted(p.stem for p in _BUILTIN.glob("*.toml")))
        raise UsageError(f"{where}: base {name!r} is neither a built-in policy ({names}) nor another .toml file")
    whole = merged(_based(base, (*seen, path.resolve())), table)
    for stage in whole.values():
        filters = stage.get("filters") if isinstance(stage, dict) else None
        if isinstance(filters, dict):
            last = {k: f for k, f in filters.items() if isinstance(f, dict) and f.get("check") == "balance"}
            stage["filters"] = {k: f for k, f in filters.items() if k not in last} | last
    return whole


class Reader:
    """Turns a policy's TOML table into a `Policy`; knows the line of every table and key for its errors."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lines = Lines(toml_text(path))

    def policy(self, table: dict[str, Any]) -> Policy:
        numbers = dict(table)
        scorers, evaluation = table.pop("scorers", {}), table.pop("evaluation", {})
        for name in table:
            if name not in STAGES:
                raise self._fault((name,), f"unknown stage {name!r}: choose from {', '.join(STAGES)}")
        stages = tuple(self._stage(name, table[name]) for name in STAGES if name in table)
        if not stages:
            raise self._fault((), "no stage: write at least [S1]")
        self._require_scorers(scorers)
        for place, fault in unusable(numbers):
            raise self._fault(place, fault)
        scorers = MappingProxyType({k: MappingProxyType(v) for k, v in scorers.items()})
        return Policy(self._path.stem, stages, scorers, self._evaluation(evaluation))

    def _evaluation(self, table: Any) -> float:
        at, key = ("evaluation",), "prompt_similarity"
        if not isinstance(table, dict):
            raise self._fault(at, "evaluation is not a table")
        self._only(at, table, (key,))
        if fault := number_fault(key, table.get(key, 1.0), False, 0, 1):
            raise self._fault((*at, key), fault)
        return float(table.get(key, 1.0))

    def _stage(self, name: str, table: Any) -> Stage:
        at = (name,)
        if not isinstance(table, dict):
            raise self._fault(at, f"{name} is not a table")
        self._only(at, table, ("resolutions", "enters", "filters"))
        sides = table.get("resolutions")
        least, most = _SIDES
        if not _is_list(sides, int) or not sides or sorted(set(sides)) != sides or sides[0] < least or sides[-1] > most:
            fault = f"resolutions is not an ascending list of pixels from {least} to {most}, such as [512, 1024]"
            raise self._fault((*at, "resolutions"), fault)
        enters = table.get("enters", [])
        if not _is_list(enters, str) or not set(enters) <= set(STREAMS):
            raise self._fault((*at, "enters"), f"enters is not a list of streams ({', '.join(STREAMS)})")
        filters = table.get("filters", {})
        if not isinstance(filters, dict):
            raise self._fault((*at, "filters"), "filters is not a table of filters")
        checked = tuple(self._filter((*at, "filters", n), n, f, sides, enters) for n, f in filters.items())
        if any(f.check == "balance" for f in checked[:-1]):
            raise self._fault((*at, "filters"), "balance counts what is left: it must be the last filter of its stage")
        return Stage(name, tuple(sides), tuple(enters), checked)

    def _filter(self, at: tuple[str, ...], name: str, table: Any, sides: list[int], enters: list[str]) -> Filter:
        if not isinstance(table, dict):
            raise self._fault(at, f"filter {name} is not a table")
        if ("score" in table) == ("check" in table):
            raise self._fault(at, f"filter {name} needs either score or check")
        streams = table.get("streams", [])
        if not _is_list(streams, str) or not set(streams) <= set(STREAMS):
            raise self._fault((*at, "streams"), f"streams is not a list of streams ({', '.join(STREAMS)})")
        if "bucket" in table and table["bucket"] not in sides:
            raise self._fault(
                (*at, "bucket"), f"bucket {table['bucket']} is not one of the stage's resolutions {sides}"
            )
        if "score" in table:
            self._only(at, table, ("score", "min", "max", "references", "bucket", "streams"))
            self._require_column(at, table["score"])
            if not isinstance(table.get("references", False), bool):
                raise self._fault((*at, "references"), "references is neither true nor false")
            for key in ("min", "max"):
                if key in table and number_fault(key, table[key], False, -sys.float_info.max, sys.float_info.max):
                    raise self._fault((*at, key), f"{key} is not a number")
        else:
            self._check_options(at, table, streams, enters)
        groups = {k: tuple(table[k].items()) for k in GROUPS if k in table}
        lists = {k: tuple(table[k]) for k in ("allow", "deny") if k in table}
        filter_ = Filter(name, **(table | groups | lists | {"streams": tuple(streams)}))
        if fault := range_fault(filter_):
            raise self._fault((*at, "min"), fault)
        return filter_

    def _check_options(self, at: tuple[str, ...], table: dict[str, Any], streams: list[str], enters: list[str]) -> None:
        check = table["check"]
        if not isinstance(check, str) or check not in CHECKS:
            raise self._fault((*at, "check"), f"unknown check {check!r}: choose from {', '.join(CHECKS)}")
        needed, optional = CHECKS[check]
        self._only(at, table, ("check", "bucket", "streams", *needed, *optional))
        for key in (k for k in (*needed, *optional) if k in needed or k in table):
            if key == "per":
                self._require_group(at, table.get(key))
            elif key in ("of", "unknown"):
                choices = RIGHTS_KEYS if key == "of" else ("keep", "drop")
                if table.get(key) not in choices:
                    raise self._fault((*at, key), f"{key} is not one of {', '.join(choices)}")
            elif key in ("allow", "deny"):
                if not _is_list(table[key], str) or not table[key] or not all(v.strip() for v in table[key]):
                    raise self._fault((*at, key), f'{key} is not a list of texts, such as ["CC0-1.0", "CC-BY-*"]')
            elif key in GROUPS:
                self._require_groups((*at, key), table[key], *GROUPS[key])
            elif fault := number_fault(key, table.get(key), *NUMBERS[key]):
                raise self._fault((*at, key), fault)
        if check == "rights" and not {"allow", "deny", "unknown"} & table.keys():
            raise self._fault(at, "a rights check needs allow, deny or unknown: it would drop nothing")
        if round(sum(table.get("quotas", {}).values()), 9) > 1:
            raise self._fault((*at, "quotas"), "quotas are shares of all draws: their sum is over 1")
        if check == "readable" or check in COMPARED:
            if not set(streams or enters) <= set(enters):
                raise self._fault((*at, "streams"), f"{check} acts where a stream enters; this stage admits {enters}")
            if check in COMPARED and not enters:
                fault = f"{check} acts where a stream enters, and none enters at this stage"
                raise self._fault((*at, "check"), fault)

    def _require_group(self, at: tuple[str, ...], per: Any) -> None:
        scorer, _, name = per.partition(".") if isinstance(per, str) else ("", "", "")
        if per in BALANCE_KEYS or (scorer in SCORERS and name in _columns(scorer, _is_word)):
            return
        known = [f"{s}.{c}" for s in sorted(SCORERS) for c in _columns(s, _is_word)]
        raise self._fault((*at, "per"), f"per is not one of {', '.join((*BALANCE_KEYS, *known))}")

    def _require_groups(self, at: tuple[str, ...], table: Any, whole: bool, most: float) -> None:
        if not isinstance(table, dict):
            raise self._fault(at, f"{at[-1]} is not a table of numbers by group, such as {{ portrait = 1 }}")
        for group, value in table.items():
            if fault := number_fault(f"{at[-1]}.{group}", value, whole, 0, most):
                raise self._fault(at, fault)

    def _require_column(self, at: tuple[str, ...], score: Any) -> None:
        scorer, _, name = score.partition(".") if isinstance(score, str) else ("", "", "")
        if scorer not in SCORERS:
            raise self._fault((*at, "score"), f"unknown scorer in {score!r}: choose from {', '.join(sorted(SCORERS))}")
        columns = _columns(scorer, _is_number)
        if name not in columns:
            raise self._fault((*at, "score"), f"{scorer} has no number {name!r}: choose from {', '.join(columns)}")

    def _require_scorers(self, scorers: Any) -> None:
        if not isinstance(scorers, dict):
            raise self._fault(("scorers",), "scorers is not a table")
        for name, options in scorers.items():
            if name not in SCORERS or not isinstance(options, dict):
                known = ", ".join(sorted(SCORERS))
                raise self._fault(("scorers", name), f"unknown scorer {name!r}: choose from {known}")
            self._only(("scorers", name), options, tuple(inspect.signature(scorer_class(name)).parameters))

    def _only(self, at: tuple[str, ...], table: dict[str, Any], known: tuple[str, ...]) -> None:
        for key in table:
            if key not in known:
                choices = f"choose from {', '.join(known)}" if known else "it has none"
                raise self._fault((*at, key), f"unknown key {key!r}: {choices}")

    def _fault(self, at: tuple[str, ...], message: str) -> UsageError:
        line = self._lines.at(at)
        where = f"{self._path}, line {line}" if line else str(self._path)
        return UsageError(f"policy {where}: {message}")


def _columns(scorer: str, kind: Callable[[Any], bool]) -> list[str]:
    return [f.name for f in scorer_class(scorer).fields if kind(f.type)]


def _is_word(kind: Any) -> bool:
    """Whether a column holds words, such as categories; long texts are `large_string`."""
    import pyarrow as pa

    return pa.types.is_string(kind)


def _is_number(kind: Any) -> bool:
    import pyarrow as pa

    return pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)


def _is_list(value: Any, kind: type) -> bool:
    return isinstance(value, list) and all(isinstance(v, kind) and not isinstance(v, bool) for v in value)
