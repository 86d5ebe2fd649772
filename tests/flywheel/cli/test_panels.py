"""Every verb has a place in the help."""

from __future__ import annotations

from typer.main import get_command

from flywheel.cli.main import app
from flywheel.cli.panels import PANELS
from tests.flywheel.cli.command import flywheel


def test_every_verb_is_in_one_panel():
    placed = [verb for verbs in PANELS.values() for verb in verbs]
    assert sorted(placed) == sorted(get_command(app).commands)


def test_help_shows_the_panels_in_order():
    shown = flywheel("--help").stdout
    places = [shown.index(f" {panel} ") for panel in PANELS]
    assert places == sorted(places) and "─ Commands ─" not in shown
    assert shown.index(" demo ") < shown.index(" curate ") < shown.index(" maintain ")


def test_a_shell_can_complete_the_verbs():
    done = flywheel("--show-completion", "bash")
    assert done.returncode == 0 and "complete -o default -F" in done.stdout
