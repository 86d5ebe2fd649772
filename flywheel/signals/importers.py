"""Importers of public prompt suites: read a benchmark's own file, return prompts with their checks.

GenEval `evaluation_metadata.jsonl`; PartiPrompts TSV or JSON Lines; LongText-Bench JSON Lines (en, zh); CVTG-2K JSON;
DPG-Bench CSV with its question graph, or prompts alone; edit suites as JSON Lines with `references`. A file with one
unreadable row is refused, because a benchmark with missing rows is a different benchmark.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from flywheel.core.errors import UsageError
from flywheel.core.files import given_file, text_lines
from flywheel.signals.suite import copy_reference, read_prompt, write_rows

Row = dict[str, Any]

GENEVAL_CAPABILITY = {
    "single_object": "object",
    "two_object": "object",
    "counting": "count",
    "colors": "color",
    "position": "position",
    "color_attr": "color",
}
DPG_CAPABILITY = {  # by detailed category, otherwise by broad category
    "count": "count",
    "text": "typography",
    "color": "color",
    "spatial": "position",
    "entity": "object",
    "relation": "relation",
    "attribute": "instruction_following",
    "global": "aesthetics",
    "other": "instruction_following",
}
DESCRIPTION = " The description: "  # in a question, the prompt follows
WHOLE = ("instruction_following", "Does the picture show all that is described, and nothing that contradicts it?")
PARTI_QUESTIONS = {  # categories and challenges that test a capability; the others are subjects and difficulties
    "Quantity": ("count", "Is the number of every thing the one that is described?"),
    "Writing & Symbols": ("typography", "Is every text and symbol written as described?"),
    "Properties & Positioning": ("position", "Is every thing in the described position, and as described?"),
    "Perspective": ("composition", "Are viewpoint, distance and framing as described?"),
    "Style & Format": ("aesthetics", "Is the picture in the described style and medium?"),
    "Arts": ("aesthetics", "Is the picture in the described style and medium?"),
    "World Knowledge": ("knowledge", "Are the named places, works and persons recognisable as the real ones?"),
    "People": ("portrait", "Are the faces, hands and bodies of people sound?"),
}


def import_suite(kind: str, source: Path, output: Path) -> int:
    """Convert `source`, a file of benchmark `kind`, to the suite `output`; returns the number of prompts.

    Reference images are copied beside the suite. Errors: `UsageError` naming file, row and error.
    """
    if kind not in IMPORTERS:
        raise UsageError(f"unknown suite {kind!r}: choose from {', '.join(IMPORTERS)}")
    source = given_file(source, "the benchmark's own prompt file")
    if output.exists():
        raise UsageError(f"{output} exists: suites are never replaced, choose a new name")
    rows: list[Row] = []
    read, make = IMPORTERS[kind]
    for number, row in enumerate(read(source), 1):
        try:
            made = make(row, number)
            for one in made:
                read_prompt(one, source.parent)
            rows += made
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            raise UsageError(
                f"{source}, row {number}: not a {kind} prompt ({type(error).__name__}: {error})"
            ) from error
    if not rows:
        raise UsageError(f"{source} has no prompts")
    if kind == "dpg":
        rows = _merged(rows)
    for row in rows:
        row["references"] = [copy_reference(source.parent / r, output.parent) for r in row["references"]]
    write_rows(output, rows)
    return len(rows)


def _row(benchmark: str, identity: object, prompt: str, category: str, checks: list[Row], **more: Any) -> Row:
    if not isinstance(prompt, str) or not prompt.strip():
        raise ValueError("the prompt is empty")
    return {
        "prompt_id": f"{benchmark}-{identity}",
        "prompt": prompt,
        "task": "t2i",
        "references": [],
        "checks": checks,
        "benchmark": benchmark,
        "category": category,
    } | more


def _geneval(row: Row, number: int) -> list[Row]:
    check = {"verifier": "geneval", "capability": GENEVAL_CAPABILITY[row["tag"]], "tag": row["tag"]}
    check |= {k: row[k] for k in ("include", "exclude") if k in row}
    return [_row("geneval", f"{number - 1:05d}", row["prompt"], row["tag"], [check])]


def _parti(row: Row, number: int) -> list[Row]:
    row = {k.lower(): v for k, v in row.items()}
    prompt, names = row["prompt"], (row["category"], row["challenge"])
    questions = dict.fromkeys([WHOLE, *(PARTI_QUESTIONS[n] for n in names if n in PARTI_QUESTIONS)])
    checks = [question(q + DESCRIPTION + prompt, c, id=n) for n, (c, q) in enumerate(questions)]
    checks.append({"verifier": "alignment", "capability": "instruction_following"})
    category = f"{row['category']} / {row['challenge']}"
    return [_row("partiprompts", f"{number - 1:05d}", prompt, category, checks)]


def _longtext(row: Row, number: int) -> list[Row]:
    language = "zh" if any("\u4e00" <= c <= "\u9fff" for c in row["prompt"]) else "en"
    capability = "typography" if language == "en" else "multilingual_text"
    check = {"verifier": "written", "capability": capability, "language": language, "texts": list(row["text"])}
    identity, category = f"{language}-{row['prompt_id']}", f"{language} / {row['category']}"
    return [_row("longtext", identity, row["prompt"], category, [check])]


def _cvtg(row: Row, number: int) -> list[Row]:
    texts = row.get("sentence_list") or row["texts"]
    check = {"verifier": "words", "capability": "typography", "texts": list(texts)}
    return [_row("cvtg", row.get("index", number - 1), row["prompt"], f"{len(texts)} texts", [check])]


def _dpg(row: Row, number: int) -> list[Row]:
    if "item_id" not in row:  # prompts without their question graph: one question about the whole
        checks = [question(WHOLE[1] + DESCRIPTION + row["prompt"], WHOLE[0])]
        return [_row("dpg", row["id"], row["prompt"], "", checks)]
    broad, _, detail = (row["tuple"] or row["category_broad"]).split("(")[0].partition("-")
    detail = (detail or row.get("category_detailed", "")).strip()
    check = question(
        row["question_natural_language"],
        DPG_CAPABILITY.get(detail, DPG_CAPABILITY.get(broad.strip(), "instruction_following")),
        id=int(row["proposition_id"]),
        parents=[int(p) for p in str(row["dependency"]).split(",") if int(p)],
        aspect=f"{broad.strip()} - {detail}" if detail else broad.strip(),
    )
    return [_row("dpg", row["item_id"], row["text"], "", [check])]


def _merged(rows: list[Row]) -> list[Row]:
    """One row per prompt from DPG's one row per question; parents come before their children."""
    merged: dict[str, Row] = {}
    for row in rows:
        merged.setdefault(row["prompt_id"], row | {"checks": []})["checks"] += row["checks"]
    for row in merged.values():
        row["checks"].sort(key=lambda c: c.get("id", 0))
        known = {c.get("id") for c in row["checks"]}
        for check in row["checks"]:
            if unknown := set(check.get("parents", ())) - known:
                raise UsageError(f"{row['prompt_id']}, question {check['id']}: parent {min(unknown)} does not exist")
    return list(merged.values())


def _edit(row: Row, number: int) -> list[Row]:
    references = row.get("references") or ([row["image"]] if row.get("image") else [])
    if not references:
        raise ValueError("an edit needs references")
    category = row.get("category") or row.get("task_type") or "edit"
    checks: list[Row] = [{"verifier": "edit", "capability": row.get("capability", "editing")}, *row.get("checks", ())]
    prompt = row.get("instruction") or row["prompt"]
    more = {"task": "ti2i", "references": list(references)}
    return [_row("edit", row.get("id", f"{number - 1:05d}"), prompt, category, checks, **more)]


def question(text: str, capability: str, **more: Any) -> Row:
    """A check that is a yes-or-no question to a VLM judge."""
    return {"verifier": "question", "capability": capability, "question": text, **more}


def _json_lines(source: Path) -> Iterator[Row]:
    for number, line in enumerate(text_lines(source), 1):
        if line.strip():
            try:
                row = json.loads(line)
            except ValueError as error:
                raise UsageError(f"{source}, line {number}: not JSON ({error})") from error
            if not isinstance(row, dict):
                raise UsageError(f"{source}, line {number}: not a JSON object")
            yield row


def _table(source: Path) -> Iterator[Row]:
    """Rows of a .csv or .tsv file with a header line, or of a JSON Lines file."""
    if source.suffix not in (".csv", ".tsv"):
        yield from _json_lines(source)
        return
    with source.open(encoding="utf-8-sig", newline="") as f:
        yield from csv.DictReader(f, delimiter="\t" if source.suffix == ".tsv" else ",")


def _cvtg_rows(source: Path) -> Iterator[Row]:
    if source.suffix != ".json":
        yield from _json_lines(source)
        return
    try:
        yield from json.loads(source.read_text("utf-8-sig"))["data_list"]
    except (ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{source}: not CVTG-2K's JSON with a data_list ({error})") from error


# benchmark → (function that reads the rows of its file, function that turns one row into suite rows)
IMPORTERS: Mapping[str, tuple[Callable[[Path], Iterator[Row]], Callable[[Row, int], list[Row]]]] = {
    "geneval": (_json_lines, _geneval),
    "partiprompts": (_table, _parti),
    "longtext": (_json_lines, _longtext),
    "cvtg": (_cvtg_rows, _cvtg),
    "dpg": (_table, _dpg),
    "edit": (_json_lines, _edit),
}
