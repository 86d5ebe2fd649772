"""The capability of a signal from its evidence: the taxonomy's rules as one DuckDB expression."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import pyarrow as pa

from flywheel.core.config import read_toml
from flywheel.core.errors import UsageError
from flywheel.core.storage import quoted

KEYS = ("verifier", "task", "failed", "script", "said", "prompt")
_OTHER = r"[\p{Han}\p{Hiragana}\p{Katakana}\p{Hangul}\p{Arabic}\p{Cyrillic}\p{Devanagari}\p{Thai}\p{Hebrew}\p{Greek}]"

# The columns that rules read, computed from a signal. `text` is the text that the check expected, or else the text that
# the prompt quotes.
FEATURES = f"""
SELECT *, CASE WHEN text = '' THEN '' WHEN regexp_matches(text, '{_OTHER}') THEN 'other' ELSE 'latin' END AS script
FROM (
    SELECT id, verifier, task, prompt, coalesce(evidence->>'$.failed[0]', '') AS failed,
           lower(concat_ws(' ', evidence->>'$.reason', evidence->>'$.aspect',
                           split_part(evidence->>'$.question', ' The description: ', 1))) AS said,
           coalesce(evidence->>'$.expected', regexp_extract(prompt, '["“「『]([^"”」』]+)["”」』]', 1), '') AS text
    FROM {{source}}
)
"""


@dataclass(frozen=True)
class Taxonomy:
    """`capabilities`: name → meaning. `rules`, in order: the first that matches decides."""

    capabilities: Mapping[str, str]
    rules: tuple[Mapping[str, Any], ...]

    def query(self, source: str) -> str:
        """SQL that selects `id`, `capability` and `sure` for each row of `source`.

        `sure` is false where only the prompt tells the capability. `source` has the columns id, verifier, task, prompt,
        evidence (JSON).
        """
        cases = " ".join(f"WHEN {_condition(r)} THEN {n}" for n, r in enumerate(self.rules, 1))
        names = ", ".join(quoted(r["capability"]) for r in self.rules)
        sure = ", ".join(str(r.get("sure", True)).lower() for r in self.rules)
        return f"""
        SELECT id, ([{names}])[rule] AS capability, ([{sure}])[rule] AS sure
        FROM (SELECT id, CASE {cases} END AS rule FROM ({FEATURES.replace("{source}", source)}))
        """

    def tell(self, signals: Sequence[Mapping[str, Any]]) -> list[tuple[str, bool]]:
        """(capability, sure) of each signal {verifier, task, prompt, evidence (JSON)}."""
        import duckdb

        con = duckdb.connect(config={"autoinstall_known_extensions": "false"})
        rows = [{k: s.get(k) for k in _SIGNAL.names} | {"id": n} for n, s in enumerate(signals)]
        con.register("signals", pa.Table.from_pylist(rows, schema=_SIGNAL))
        try:
            return con.execute(f"SELECT capability, sure FROM ({self.query('signals')}) ORDER BY id").fetchall()
        finally:
            con.close()


_SIGNAL = pa.schema([("id", pa.int64()), *((k, pa.string()) for k in ("verifier", "task", "prompt", "evidence"))])


def load_taxonomy(path: Path | None = None) -> Taxonomy:
    """The built-in taxonomy, or one from a TOML file. Errors: `UsageError` naming the rule and its error."""
    name = str(path or "the built-in taxonomy")
    data = read_toml(path or resources.files("flywheel.cases") / "taxonomy.toml")
    capabilities, rules = data.get("capabilities", {}), data.get("rule", [])
    for n, rule in enumerate(rules, 1):
        if unknown := rule.keys() - {"capability", "sure", *KEYS}:
            raise UsageError(f"{name}, rule {n}: unknown key {min(unknown)}; use {', '.join(KEYS)}")
        if rule.get("capability") not in capabilities:
            raise UsageError(f"{name}, rule {n}: capability {rule.get('capability')!r} is not under [capabilities]")
    if not rules or any(k in rules[-1] for k in KEYS):
        raise UsageError(f"{name}: the last rule must match everything: give it no key but capability and sure")
    taxonomy = Taxonomy(capabilities, tuple(rules))
    _require_valid(taxonomy, name)
    return taxonomy


def _require_valid(taxonomy: Taxonomy, name: str) -> None:
    import duckdb

    try:
        taxonomy.tell([{"verifier": "x", "task": "t2i", "prompt": "x", "evidence": '{"reason": "x"}'}])
    except duckdb.Error as error:
        raise UsageError(f"{name}: a pattern is not a regular expression: {error}") from error


def _condition(rule: Mapping[str, Any]) -> str:
    parts = []
    for key in ("verifier", "failed"):
        if key in rule:
            parts.append(f"{key} IN ({', '.join(quoted(v) for v in rule[key])})")
    parts += [f"{key} = {quoted(rule[key])}" for key in ("task", "script") if key in rule]
    parts += [f"regexp_matches({key}, {quoted(rule[key])})" for key in ("said", "prompt") if key in rule]
    return " AND ".join(parts) or "true"
