"""What is made for the pool: captions by a model, synthetic text, edit pairs."""

from __future__ import annotations

import json
import os
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from flywheel.commands.options import JsonOption, WorkspaceOption
from flywheel.console import out, say
from flywheel.workspace import UsageError, Workspace

app = typer.Typer()


class Kind(StrEnum):
    """Caption kinds of the report."""

    general = "general"
    text = "text"
    knowledge = "knowledge"
    structured = "structured"


class Use(StrEnum):
    """What generated captions are for."""

    fill = "fill"
    add = "add"
    replace = "replace"


@app.command(epilog="Example: flywheel caption --endpoint http://localhost:8000/v1 --model qwen3-vl -w w")
def caption(
    workspace: WorkspaceOption,
    endpoint: Annotated[str, typer.Option(help="OpenAI-compatible URL, up to and including /v1.")],
    model: Annotated[str, typer.Option(help="Model name, as the endpoint knows it.")],
    kind: Annotated[Kind, typer.Option(help="Kind of caption.")] = Kind.general,
    use: Annotated[
        Use, typer.Option(help="fill: for pictures without a caption; replace: in place of all; add: beside them.")
    ] = Use.fill,
    prompt: Annotated[Path | None, typer.Option(help="File with a prompt of your own.")] = None,
    key: Annotated[str, typer.Option(help="Environment variable that holds the API key.")] = "OPENAI_API_KEY",
    limit: Annotated[int | None, typer.Option(min=1, help="Ask for this many pictures at most.")] = None,
    concurrency: Annotated[int, typer.Option(min=1, help="Calls at once.")] = 8,
    as_json: JsonOption = False,
) -> None:
    """Caption the pool with a vision model; the source's captions are kept. Run again, it asks for what is missing."""
    from curation.captioner import PROMPTS, Captioner
    from curation.recaption import caption_pool
    from flywheel.progress import Progress

    if prompt and not prompt.is_file():
        raise UsageError(f"--prompt {prompt} is no file: give a text file")
    words = prompt.read_text("utf-8").strip() if prompt else PROMPTS[kind]
    captioner = Captioner(endpoint, model, words, os.environ.get(key, ""))
    progress = Progress()
    with progress.step(f"captions ({kind}) by {model}"):
        found = caption_pool(
            Workspace(workspace, create=False), captioner, kind=kind, use=use, limit=limit, concurrency=concurrency,
            progress=progress,
        )  # fmt: skip
    counts = {k: getattr(found, k) for k in ("wanted", "there", "captioned", "refused", "unanswered", "left")}
    reasons = dict(found.reasons.most_common(5))
    if as_json:
        out(json.dumps(counts | {"prompt": captioner.version, "reasons": reasons}, ensure_ascii=False))
        return
    out(", ".join(f"{name} {count}" for name, count in counts.items()))
    for reason, count in reasons.items():
        say(f"refused {count}: {reason}")
    if found.left:
        say(f"{found.left} are left: run the same command again")
