"""Suites drawn and judged by several processes: the same pictures and verdicts as by this one."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from flywheel.core.errors import UsageError
from flywheel.core.workspace import Workspace
from flywheel.demo.suite import write_suite
from flywheel.generators import describe, open_generator
from flywheel.presets import load_preset
from flywheel.signals import sheets as module
from flywheel.signals.sheets import Sheet, Workers, draw_and_judge
from flywheel.signals.suite import Prompt, load_suite


def sheets(suite: list[Prompt], folder: Path) -> list[Sheet]:
    return [Sheet(suite, suite, folder / f"seed-{n}", n) for n in range(2)]


def pictures(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*.png")}


@pytest.fixture
def suite(tmp_path: Path) -> list[Prompt]:
    """Prompts with and without references, in an order that drawing does not keep."""
    write_suite(tmp_path / "suite", size="quick")
    prompts = load_suite(tmp_path / "suite" / "suite.jsonl")
    edits, plain = [p for p in prompts if p.references], [p for p in prompts if not p.references]
    return [edits[0], *plain[:8], edits[1]]


def test_workers_draw_and_judge_what_this_process_does(one_step, suite, tmp_path, ray_session):
    workspace, shown, verdicts = Workspace(tmp_path / "w"), [], {}
    settings = replace(load_preset("tiny").evaluation, side=32, steps=1)
    table = describe(one_step)
    for name, workers in (("here", None), ("there", Workers(partial(open_generator, table), 2))):
        found = draw_and_judge(
            sheets(suite, tmp_path / name),
            open_generator(table),
            workspace=workspace,
            settings=settings,
            workers=workers,
            progress=lambda done, total, note, name=name: shown.append((name, done, total)),
        )
        verdicts[name] = list(found)
    assert verdicts["there"] == verdicts["here"] and [len(sheet) for sheet in verdicts["here"]] == [len(suite)] * 2
    assert any(outcome.passed is False for sheet in verdicts["here"] for _, outcomes in sheet for outcome in outcomes)
    assert pictures(tmp_path / "here") == pictures(tmp_path / "there") and len(pictures(tmp_path / "here")) == 20
    assert shown[-1] == ("there", 20, 20) and ("here", 20, 20) in shown


def test_what_a_worker_cannot_open_is_said_as_here(suite, tmp_path, ray_session):
    workspace, settings = Workspace(tmp_path / "w"), load_preset("tiny").evaluation
    table = {"kind": "checkpoint", "model": str(tmp_path / "none")}
    said = []
    for workers in (None, Workers(partial(open_generator, table), 2)):
        found = draw_and_judge(
            sheets(suite, tmp_path / "p"),
            open_generator(table),
            workspace=workspace,
            settings=settings,
            workers=workers,
        )
        with pytest.raises(UsageError) as error:
            list(found)
        said.append(str(error.value))
    assert said[0] == said[1]


@pytest.mark.parametrize(("count", "few"), [(2, True), (None, False)])
def test_local_processes_draw_where_no_cluster_is_named(one_step, suite, tmp_path, monkeypatch, count, few):
    asked = []

    @contextmanager
    def cluster(workers, *, few):
        asked.append((workers, few))
        yield

    monkeypatch.setattr(module, "cluster", cluster)
    monkeypatch.setattr(module, "run_all", lambda f, calls, needs: ((n, f(*call)) for n, call in enumerate(calls)))
    found = draw_and_judge(
        [Sheet(suite[1:2], suite[1:2], tmp_path / "p", 0)],
        open_generator(describe(one_step)),
        workspace=Workspace(tmp_path / "w"),
        settings=replace(load_preset("tiny").evaluation, side=32, steps=1),
        workers=Workers(partial(open_generator, describe(one_step)), count),
    )
    assert len(list(found)) == 1 and asked == [(count or 1, few)]


def test_small_parts_come_last_and_every_prompt_once(suite, tmp_path):
    edit, plain = suite[0], suite[1]
    shown = [plain] * 40 + [edit] * 24
    parts = module._longest_first([Sheet(shown, shown, tmp_path / str(n), n) for n in range(2)])
    kinds = [(number, len(places), places[0] >= 40) for number, places in parts]
    assert kinds == [(0, 24, True), (1, 24, True), (0, 32, False), (1, 32, False), (0, 8, False), (1, 8, False)]
    drawn = sorted((number, place) for number, places in parts for place in places)
    assert drawn == [(number, place) for number in range(2) for place in range(64)]
