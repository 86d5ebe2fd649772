"""Verbs that make data for the pool: captions by a model, synthetic text, edit pairs."""

from __future__ import annotations

import os
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flywheel.cli.console import json_text, out, say
from flywheel.cli.options import JsonOption, SeedOption, WorkersOption, WorkspaceOption
from flywheel.core.errors import UsageError
from flywheel.core.workspace import Workspace

if TYPE_CHECKING:
    from curation.synthesis.pictures import Picture
    from curation.synthesis.source import EditJob, TextJob

app = typer.Typer()


class Kind(StrEnum):
    """Kinds of captions in the report."""

    GENERAL = "general"
    TEXT = "text"
    KNOWLEDGE = "knowledge"
    STRUCTURED = "structured"


class Use(StrEnum):
    """How written captions are used."""

    FILL = "fill"
    ADD = "add"
    REPLACE = "replace"


@app.command(epilog="Example: flywheel caption --endpoint http://localhost:8000/v1 --model qwen3-vl -w w")
def caption(
    workspace: WorkspaceOption,
    endpoint: Annotated[str, typer.Option(help="OpenAI-compatible URL, up to and including /v1.")],
    model: Annotated[str, typer.Option(help="Model name at the endpoint.")],
    kind: Annotated[Kind, typer.Option(help="Kind of caption.")] = Kind.GENERAL,
    use: Annotated[
        Use, typer.Option(help="fill: for images without a caption; replace: instead of all; add: beside them.")
    ] = Use.FILL,
    prompt: Annotated[Path | None, typer.Option(help="File with a prompt of your own. Default: the kind's.")] = None,
    key: Annotated[str, typer.Option(help="Environment variable that holds the API key.")] = "OPENAI_API_KEY",
    limit: Annotated[int | None, typer.Option(min=1, help="Caption at most this many images. Default: all.")] = None,
    concurrency: Annotated[int, typer.Option(min=1, help="Number of concurrent requests.")] = 8,
    as_json: JsonOption = False,
) -> None:
    """Caption the pool with a vision model. The source's captions are kept. Run it again for those still missing.

    Exit code 1 if the endpoint left some without an answer, 2 if it captioned none.
    """
    from curation.captioning.captioner import PROMPTS, Captioner
    from curation.captioning.recaption import caption_pool
    from flywheel.core.endpoint import Endpoint
    from flywheel.core.progress import Progress

    words = _text_of(prompt, "--prompt").strip() if prompt else PROMPTS[kind]
    captioner = Captioner(Endpoint(endpoint, model, key if os.environ.get(key) else ""), words)
    progress = Progress()
    with progress.step(f"captions ({kind}) by {model}"):
        result = caption_pool(
            Workspace(workspace, create=False), captioner, kind=kind, use=use, limit=limit, concurrency=concurrency,
            progress=progress,
        )  # fmt: skip
    counts = {k: getattr(result, k) for k in ("wanted", "there", "captioned", "refused", "unanswered", "left")}
    reasons = dict(result.reasons.most_common(5))
    if as_json:
        out(json_text(counts | {"prompt": captioner.version, "reasons": reasons}))
    else:
        out(", ".join(f"{name} {count}" for name, count in counts.items()))
        for reason, count in reasons.items():
            say(f"refused {count}: {reason}")
        if result.left:
            say(f"{result.left} are left: run the same command again")
    if result.unanswered:
        raise typer.Exit(1)


synthesise = typer.Typer(
    help="Make verified synthetic samples: a source folder for `flywheel run --source`.", no_args_is_help=True
)
app.add_typer(synthesise, name="synthesise")

PhotosOption = Annotated[Path | None, typer.Option(help="Folder of photographs to start from. Or use --workspace.")]
PoolOption = Annotated[
    Path | None, typer.Option("--workspace", "-w", help="Workspace whose pooled images to start from.")
]
CountOption = Annotated[int, typer.Option(min=1, help="Number of samples.")]
OutputOption = Annotated[Path, typer.Option(help="New folder for the images and captions.jsonl.")]


@synthesise.command(
    epilog="Example: flywheel synthesise text --style slide --script chinese --count 500 --output slides"
)
def text(
    output: OutputOption,
    style: Annotated[
        str, typer.Option(help="paragraph, slide, poster, infographic, comic, or scene (text in photographs).")
    ],
    count: CountOption = 100,
    script: Annotated[
        list[str] | None, typer.Option(help="latin, chinese, traditional or japanese. Repeatable. Default: latin.")
    ] = None,
    side: Annotated[int, typer.Option(min=256, help="Short side in pixels.")] = 768,
    tokens: Annotated[int, typer.Option(min=20, max=950, help="Maximum tokens of text on a paragraph page.")] = 950,
    texts: Annotated[Path | None, typer.Option(help="File with your own texts, one per line.")] = None,
    photos: PhotosOption = None,
    workspace: PoolOption = None,
    seed: SeedOption = 0,
    workers: WorkersOption = 2,
    as_json: JsonOption = False,
) -> None:
    """Make images with text in real fonts: pages, layouts, text in photographs. OCR must read each one back."""
    from curation.synthesis.source import TextJob

    given = _text_of(texts, "--texts").replace("\r\n", "\n") if texts else ""
    lines = tuple(given.removesuffix("\n").split("\n")) if given else ()
    pictures = _pictures(photos, workspace, seed) if style == "scene" else []
    job = TextJob(style, tuple(script or ["latin"]), seed, side, tokens, lines)
    _write(output, job, count, pictures, workers, as_json)


@synthesise.command(
    epilog="Example: flywheel synthesise edits -w w --kind recolour --kind text --count 400 --output edits"
)
def edits(
    output: OutputOption,
    kind: Annotated[
        list[str] | None,
        typer.Option(help="recolour, background, object, text, tone, restoration or style. Repeatable. Default: all."),
    ] = None,
    count: CountOption = 100,
    photos: PhotosOption = None,
    workspace: PoolOption = None,
    seed: SeedOption = 0,
    workers: WorkersOption = 2,
    as_json: JsonOption = False,
) -> None:
    """Make edit pairs from photographs, each with its inverse, and with a mask where only a part is edited."""
    from curation.synthesis.source import EDIT_KINDS, EditJob

    job = EditJob(tuple(kind or EDIT_KINDS), seed)
    _write(output, job, count, _pictures(photos, workspace, seed), workers, as_json)


def _text_of(path: Path, option: str) -> str:
    try:
        return path.read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{option} {path} cannot be read as UTF-8 text: {error}") from error


def _pictures(photos: Path | None, workspace: Path | None, seed: int) -> list[Picture]:
    from curation.synthesis.pictures import in_folder, in_pool, shuffled
    from flywheel.core.lens import latest_snapshot

    if photos and not workspace:
        return shuffled(in_folder(photos), str(seed))
    if photos or not workspace:
        raise UsageError("give either --photos FOLDER or --workspace W, to start from its pool")
    opened = Workspace(workspace, create=False)
    return shuffled(in_pool(opened, latest_snapshot(opened)), str(seed))


def _write(
    output: Path, job: TextJob | EditJob, count: int, pictures: Sequence[Picture], workers: int, as_json: bool
) -> None:
    from curation.synthesis.source import write_source
    from flywheel.core.progress import Progress

    progress = Progress()
    with progress.step(f"{count} samples into {output}"):
        written = write_source(output, job, count, pictures=pictures, workers=workers, progress=progress)
    reasons = dict(written.reasons.most_common(5))
    if as_json:
        summary = {"folder": written.folder, "samples": written.samples, "refused": written.refused, "reasons": reasons}
        out(json_text(summary))
        return
    out(f"{written.samples} samples in {written.folder}; {written.refused} candidates refused")
    for reason, number in reasons.items():
        say(f"refused {number}: {reason}")
    say(f"next: flywheel run --source {written.folder} -w WORKSPACE")
