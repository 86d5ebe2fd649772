"""Prompt suites as data: one line of JSON per prompt, with the checks that judge its image."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flywheel.core.errors import UsageError
from flywheel.core.files import file_digest, given_file, json_lines, text_lines, write_bytes
from flywheel.core.ranges import unusable
from flywheel.core.storage import located

TASKS = ("t2i", "ti2i")
JUDGED = ("question", "edit")  # verifiers that a VLM judge answers


@dataclass(frozen=True)
class Prompt:
    """A prompt, its reference images (ti2i) and its checks (see `curation.verify.checks`; a VLM judges `JUDGED`)."""

    prompt_id: str
    text: str
    task: str
    references: tuple[Path, ...]
    checks: tuple[dict[str, Any], ...]
    benchmark: str = ""  # whose scoring rule applies; empty for your own suite
    category: str = ""  # name of the prompt's group in the benchmark

    def reference_bytes(self) -> tuple[bytes, ...]:
        """Encoded reference images, in order."""
        return tuple(p.read_bytes() for p in self.references)


def load_suite(path: Path) -> list[Prompt]:
    """The prompts of a suite file. Errors: `UsageError` naming file, line and error."""
    path = given_file(path, "a suite file, such as `flywheel suite import` writes")
    prompts = []
    for number, line in enumerate(text_lines(path), 1):
        if not line.strip():
            continue
        try:
            prompts.append(read_prompt(json.loads(line), path.parent))
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise UsageError(f"{path}, line {number}: not a suite prompt ({type(error).__name__}: {error})") from error
    if not prompts:
        raise UsageError(f"{path} has no prompts: a round cannot be judged without an evaluation suite")
    if len({p.prompt_id for p in prompts}) < len(prompts):
        raise UsageError(f"{path}: prompt_id values must be unique")
    return prompts


def read_prompt(row: Mapping[str, Any], folder: Path) -> Prompt:
    """A prompt from its row; references are relative to `folder`.

    Errors: `KeyError`, `TypeError`, `ValueError` for a wrong row.
    """
    if fault := _fault(row):
        raise ValueError(fault)
    return Prompt(
        prompt_id=row["prompt_id"],
        text=row["prompt"],
        task=row["task"],
        references=tuple(folder / r for r in row.get("references", ())),
        checks=tuple(row["checks"]),
        benchmark=row.get("benchmark", ""),
        category=row.get("category", ""),
    )


def _fault(row: Mapping[str, Any]) -> str:
    """What is wrong with a row; empty for a prompt. Errors: `KeyError`, `TypeError`, `UnicodeEncodeError`."""
    for _, fault in unusable(row):
        return fault
    for key in ("prompt_id", "prompt"):
        if not isinstance(row[key], str):
            return f"{key} is {row[key]!r}: give a text"
    if not row["prompt_id"].strip():
        return "prompt_id is empty"
    if row["task"] not in TASKS:
        return f"task is {row['task']!r}: give {' or '.join(TASKS)}"
    references, checks = row.get("references", ()), row["checks"]
    if not isinstance(references, list | tuple) or not all(isinstance(r, str) for r in references):
        return "references are not a list of paths"
    if not isinstance(checks, list | tuple) or not all(isinstance(c, Mapping) for c in checks):
        return "checks are not a list of objects"
    if not all(isinstance(c.get(k), str) and c[k] for c in checks for k in ("verifier", "capability")):
        return "each check needs a verifier and a capability, which are texts"
    json.dumps(row, ensure_ascii=False).encode()  # half of a surrogate pair is no text
    return ""


def write_rows(path: Path, rows: Sequence[dict[str, Any]]) -> Path:
    """Write suite rows as JSON Lines, atomically."""
    write_bytes(path, "".join(json.dumps(r, ensure_ascii=False, sort_keys=True) + "\n" for r in rows).encode())
    return path


def copy_suite(source: Path, path: Path) -> Path:
    """Copy a suite with its reference images, so that a round's suite never changes. Errors: `UsageError`."""
    load_suite(source)
    source = located(source)
    rows = json_lines(source)
    for row in rows:
        row["references"] = [copy_reference(source.parent / r, path.parent) for r in row.get("references", ())]
    return write_rows(path, rows)


def copy_reference(reference: Path, folder: Path) -> str:
    """Copy an image to `folder`/references, named by its content; returns its path there. Errors: `UsageError`."""
    try:
        if not reference.is_file():
            raise UsageError(f"reference {reference} does not exist: paths are relative to the suite file")
        data = reference.read_bytes()
    except OSError as error:  # a name that is too long, no permission
        raise UsageError(f"reference {reference} cannot be read ({error.strerror}): correct its path") from error
    name = f"references/{file_digest(reference)[:16]}{reference.suffix}"
    write_bytes(folder / name, data)
    return name
