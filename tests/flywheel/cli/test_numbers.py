"""No option of any verb takes a number that is not one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from flywheel.cli.main import app
from flywheel.cli.numbers import require_numbers
from flywheel.core.ranges import MOST
from tests.flywheel.cli.command import wrong


def options(command: Any) -> Iterator[Any]:
    """Every option and argument that takes numbers, of a command and those below it."""
    for parameter in command.params:
        if parameter.type_descriptor.annotation in (int, float):
            yield parameter
    for below in getattr(command, "commands", {}).values():
        yield from options(below)


def test_every_option_has_a_range_and_refuses_what_is_no_number():
    command = typer.main.get_command(app)
    require_numbers(command)
    found = list(options(command))
    assert len(found) > 60
    for parameter in found:
        assert parameter.min is not None and parameter.min >= 0, parameter.opts
        for number in (float("nan"), float("inf"), -float("inf"), MOST + 1, [1, float("nan")]):
            with pytest.raises(typer.BadParameter):
                parameter.callback(None, parameter, number)
        assert parameter.callback(None, parameter, 3) == 3 and parameter.callback(None, parameter, None) is None


@pytest.mark.parametrize(
    "line", ["sample p --cfg=nan", "sample p --seed -1", "evaluate vae --seed 1e30", "fetch a --delay inf -w w"]
)
def test_the_command_line_names_the_option(line: str):
    said = wrong(*line.split())
    assert "Invalid value for" in said and line.split("--")[1].split("=")[0].split()[0] in said


def test_so_does_the_project_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    for value in ("-1", str(2**60)):
        Path("flywheel.toml").write_text(f"workspace = 'w'\nseed = {value}\n")
        assert f"flywheel.toml, line 2: seed is {value}: " in wrong("run", "--source", "s")
