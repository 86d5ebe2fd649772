"""The verbs of `flywheel --help` in panels: by what a person wants to do."""

from __future__ import annotations

from typing import Any

from typer.core import TyperGroup

from flywheel.cli.numbers import require_numbers

PANELS = {
    "Start": ("demo", "init", "run", "doctor"),
    "Data: what comes in, what is kept and why": (
        "curate", "inspect", "fetch", "caption", "synthesise", "funnel", "what-if", "explain", "policy", "snapshot",
        "export", "erase",
    ),
    "Failures and rounds": (
        "suite", "evaluate", "signals", "arena", "calibration", "cases", "review", "round", "rounds", "why",
    ),
    "Analysis": ("report", "dashboard", "map", "mcp", "sql", "queries", "tables"),
    "Models": ("sample", "model", "train", "latents", "rl", "distil", "enhancer", "weights"),
    "Operation": ("serve", "stop", "unlock", "fsck", "maintain"),
}  # fmt: skip
_PLACE = {verb: (panel, n) for n, (panel, verb) in enumerate((p, v) for p, verbs in PANELS.items() for v in verbs)}


class PanelGroup(TyperGroup):
    """Commands in the order of `PANELS`, each in its panel."""

    def list_commands(self, ctx: Any) -> list[str]:
        """Names, panel by panel."""
        return sorted(super().list_commands(ctx), key=lambda verb: _PLACE[verb][1])

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """The command, which knows its panel."""
        command = super().get_command(ctx, cmd_name)
        if command is not None:
            require_numbers(command)
            command.rich_help_panel = _PLACE[cmd_name][0]  # type: ignore[attr-defined]
        return command
