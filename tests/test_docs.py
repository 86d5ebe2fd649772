"""The documentation: the tutorial runs as printed, the generated reference is up to date, links lead somewhere."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import flywheel as fw
from flywheel.catalog.database import query
from tests.dashboards.workspace import build

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])
BLOCK = re.compile(r"^```(sh|output)\n(.*?)^```$", re.M | re.S)


def test_the_tutorial_does_what_it_says(tmp_path: Path):
    text = (ROOT / "docs" / "tutorial.md").read_text()
    paths = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    environment = {**os.environ, "PATH": paths, "COLUMNS": "160", "PYTHONPATH": str(ROOT)}
    seen, ran = "", 0
    for kind, block in BLOCK.findall(text):
        if kind == "output":
            assert all(line in seen for line in block.splitlines()), seen
            continue
        command = ["bash", "-euo", "pipefail", "-c", block]
        done = subprocess.run(
            command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        seen, ran = done.stdout, ran + 1
        assert done.returncode == 0, f"{block}\n{seen}"
    assert ran > 8


def said_of(page: Path) -> Iterator[list[str]]:
    """Every `flywheel …` command on a page, as words; what a reader fills in is written in capitals or as …."""
    text = page.read_text()
    for block in re.findall(r"^```(?:sh)?\n(.*?)^```$", text, re.M | re.S):
        for line in block.replace("\\\n", " ").splitlines():
            if found := re.search(r"(?:^|[ /])flywheel ((?:[a-z-]+ ?)+.*)", line):
                yield shlex.split(re.split(r" #| \| | && | > ", found[1])[0], comments=True)


@pytest.mark.parametrize("page", [p for p in PAGES if p.stem not in ("tutorial", "cli")], ids=lambda p: p.stem)
def test_commands_exist_with_their_options(page: Path):
    from typer.main import get_command

    from flywheel.cli.main import app

    for words in said_of(page):
        command, rest = get_command(app), list(words)
        while hasattr(command, "commands") and not (rest and rest[0].startswith("-")):
            assert rest and rest[0] in command.commands, f"flywheel {' '.join(words)}"
            command = command.commands[rest.pop(0)]
        known = {o for p in command.params for o in (*p.opts, *p.secondary_opts)} | {"--help"}
        unknown = {w.partition("=")[0] for w in rest if re.match(r"-{1,2}[a-z]", w)} - known
        assert not unknown, f"flywheel {' '.join(words)}"


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path):
    for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text()):
        assert (page.parent / target).exists(), target


def test_the_notebook_runs_on_an_export(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    from flywheel.cases.events import detect, event, load_cases, retest
    from flywheel.catalog.database import export
    from flywheel.core.ledger import Ledger
    from flywheel.core.workspace import Workspace

    workspace, events = Workspace(tmp_path / "w"), Ledger(Workspace(tmp_path / "w"), "case_events")
    signal = {"prompt_id": "p", "prompt": "two cats", "capability": "count", "kind": "evaluation", "arm": "candidate"}
    signal |= {"signal_id": "s", "verifier": "count", "score": 0.0, "threshold": 1.0, "evidence": "{}", "image": "i"}
    rounds = [signal | {"round": n, "passed": n == 2} for n in (1, 2)]
    Ledger(workspace, "signals").append(rounds, key="signals")
    events.append(detect(rounds[:1], {}, 1), key="detect")
    events.append(
        [event(c, 1, "routed", {"reason": "why"}, track="rl") for c in load_cases(workspace).values()], key="r"
    )
    events.append(retest({("p", "count"): True}, load_cases(workspace), 2), key="retest")
    export(workspace, tmp_path / "flywheel.duckdb")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MPLBACKEND", "agg")
    names: dict[str, object] = {}
    cells = [c for c in json.loads((ROOT / "docs" / "analysis.ipynb").read_text())["cells"] if c["cell_type"] == "code"]
    for cell in cells:
        exec("".join(cell["source"]), names)
    assert names["rates"]["failure_rate"].tolist() == [1.0, 0.0] and len(cells) > 5


def test_the_reference_is_up_to_date(tmp_path: Path):
    subprocess.run([sys.executable, ROOT / "docs" / "reference" / "write.py", tmp_path], check=True, timeout=120)
    for made in tmp_path.iterdir():
        assert made.read_text() == (ROOT / "docs" / "reference" / made.name).read_text(), "run docs/reference/write.py"


def test_sql_and_python_answer_each_of_an_analysts_questions_alike(tmp_path: Path):
    workspace = build(tmp_path / "w")
    w, parts = fw.open(workspace.root), (ROOT / "docs" / "questions.md").read_text().split("\n## ")[1:]
    assert len(parts) == 10
    empty = []
    for part in parts:
        sql, python = (re.search(rf"```{kind}\n(.+?)\n```", part, re.S).group(1) for kind in ("sql", "python"))
        rows = query(workspace, sql)
        assert eval(python, {"w": w}).rows() == rows, part
        if not rows:
            empty.append(part.splitlines()[0])
    assert len(empty) <= 1, empty


def test_every_guarantee_names_a_test_that_exists() -> None:
    rows = [r for r in (ROOT / "docs" / "guarantees.md").read_text().splitlines() if r.startswith("| ")][1:]
    named = [re.findall(r"`([^`]+\.py[^`]*)`", row.split(" | ")[-1]) for row in rows]
    assert len(rows) > 30 and all(named), [row[:60] for row, name in zip(rows, named) if not name]
    for name in sum(named, []):
        path, _, test = name.partition("::")
        text = (ROOT / path if path.startswith("benchmarks/") else ROOT / "tests" / path).read_text()
        assert f"def {test}(" in text or path.startswith("benchmarks/"), name
