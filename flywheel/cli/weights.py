"""Verbs for model weights that no package contains: list, fetch and check them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flywheel.cli.console import print_rows, say
from flywheel.cli.options import JsonOption

if TYPE_CHECKING:
    from flywheel.core.weights import Weights

app = typer.Typer()
weights = typer.Typer(
    help="Model weights that no package contains, kept in ~/.cache/flywheel/weights or FLYWHEEL_WEIGHTS.",
    no_args_is_help=True,
)
app.add_typer(weights, name="weights")

NamesArgument = Annotated[list[str] | None, typer.Argument(help="Names of weights. Default: all.")]


@weights.command("list", epilog="Example: flywheel weights list")
def list_weights(as_json: JsonOption = False) -> None:
    """List the weights that policies and presets can name: licence, size, address, and whether they are here."""
    rows = _rows(())
    if not as_json:
        rows = [{k: r[k] for k in ("name", "about", "licence", "MB", "here")} for r in rows]
    print_rows(rows, as_json)


@weights.command(epilog="Example: flywheel weights pull")
def pull(names: NamesArgument = None, as_json: JsonOption = False) -> None:
    """Fetch weights and check their SHA-256; an interrupted download is resumed.

    FLYWHEEL_WEIGHTS_MIRROR is asked in place of their addresses, HF_ENDPOINT in place of huggingface.co. On a machine
    without a network, copy a file to the path that `flywheel weights list --json` shows.
    """
    from flywheel.core.progress import Progress
    from flywheel.core.weights import fetch

    progress = Progress()
    for entry in _chosen(names):
        if not entry.present:
            with progress.step(f"fetching {entry.name} from {entry.source}"):
                fetch(entry, progress)
    print_rows([{k: r[k] for k in ("name", "path", "sha256")} for r in _rows(names)], as_json)


@weights.command(epilog="Example: flywheel weights verify")
def verify(names: NamesArgument = None, as_json: JsonOption = False) -> None:
    """Read the weights that are here and compare their SHA-256 with the pinned one. Exit code 1 if one differs."""
    from flywheel.core.weights import intact

    rows = [{"name": w.name, "path": str(w.path), "intact": intact(w)} for w in _chosen(names) if w.path.exists()]
    if not rows and not as_json:
        say("no weights are here: run `flywheel weights pull`")
        return
    print_rows(rows, as_json)
    if not all(r["intact"] for r in rows):
        say("a file differs from its pinned SHA-256: delete it, then run `flywheel weights pull`")
        raise typer.Exit(1)


def _chosen(names: Sequence[str] | None) -> list[Weights]:
    from flywheel.core.weights import catalogue, named

    return [named(n) for n in names] if names else list(catalogue().values())


def _rows(names: Sequence[str] | None) -> list[dict[str, Any]]:
    return [
        {
            "name": w.name,
            "about": w.about,
            "licence": w.licence,
            "MB": round(w.bytes / 1e6, 3),
            "here": w.present,
            "sha256": w.sha256,
            "address": w.source,
            "path": str(w.path),
        }
        for w in _chosen(names)
    ]
