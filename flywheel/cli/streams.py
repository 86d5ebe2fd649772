"""What is made for the pool: captions by a model, synthetic text, edit pairs."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flywheel.cli.console import out, say
from flywheel.cli.options import JsonOption, SeedOption, WorkersOption, WorkspaceOption
from flywheel.core.errors import UsageError
from flywheel.core.workspace import Workspace

if TYPE_CHECKING:
    from curation.synthesis.pictures import Picture
    from curation.synthesis.source import SynthesisJob

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
    from curation.captioning.captioner import PROMPTS, Captioner
    from curation.captioning.recaption import caption_pool
    from flywheel.core.endpoint import Endpoint
    from flywheel.core.progress import Progress

    words = _text_of(prompt, "--prompt").strip() if prompt else PROMPTS[kind]
    captioner = Captioner(Endpoint(endpoint, model, key if os.environ.get(key) else ""), words)
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


synthesise = typer.Typer(
    help="Make verified samples as a source folder for `flywheel run --source`.", no_args_is_help=True
)
app.add_typer(synthesise, name="synthesise")

PhotosOption = Annotated[Path | None, typer.Option(help="Folder of photographs to start from.")]
PoolOption = Annotated[Path | None, typer.Option("--workspace", "-w", help="Workspace whose pool to start from.")]
CountOption = Annotated[int, typer.Option(min=1, help="Samples.")]
OutputOption = Annotated[Path, typer.Option(help="New folder for the pictures and captions.jsonl.")]


@synthesise.command(
    epilog="Example: flywheel synthesise text --style slide --script chinese --count 500 --output slides"
)
def text(
    output: OutputOption,
    style: Annotated[str, typer.Option(help="paragraph, slide, poster, infographic, comic or scene (in photographs).")],
    count: CountOption = 100,
    script: Annotated[
        list[str] | None, typer.Option(help="latin, chinese, traditional or japanese; may be given again.")
    ] = None,
    side: Annotated[int, typer.Option(min=256, help="Pixels of the short side.")] = 768,
    tokens: Annotated[int, typer.Option(min=20, max=950, help="Longest text of a paragraph page.")] = 950,
    texts: Annotated[Path | None, typer.Option(help="File with texts of your own, one a line.")] = None,
    photos: PhotosOption = None,
    workspace: PoolOption = None,
    seed: SeedOption = 0,
    workers: WorkersOption = 2,
    as_json: JsonOption = False,
) -> None:
    """Pictures with text in real fonts, read back by OCR before they are kept: pages, layouts, texts in photographs."""
    from curation.synthesis.source import TextJob

    lines = tuple(_text_of(texts, "--texts").splitlines()) if texts else ()
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
        typer.Option(help="recolour, background, object, text, tone, restoration or style; default: all."),
    ] = None,
    count: CountOption = 100,
    photos: PhotosOption = None,
    workspace: PoolOption = None,
    seed: SeedOption = 0,
    workers: WorkersOption = 2,
    as_json: JsonOption = False,
) -> None:
    """Edit pairs from photographs, each with its inverse, and with a mask where only a part is edited."""
    from curation.synthesis.source import EDIT_KINDS, EditJob

    job = EditJob(tuple(kind or EDIT_KINDS), seed)
    _write(output, job, count, _pictures(photos, workspace, seed), workers, as_json)


def _text_of(path: Path, option: str) -> str:
    try:
        return path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{option} {path} cannot be read as UTF-8 text: {error}") from error


def _pictures(photos: Path | None, workspace: Path | None, seed: int) -> list[Picture]:
    from curation.synthesis.pictures import in_folder, in_pool, shuffled
    from flywheel.core.lens import latest_snapshot

    if (photos is None) == (workspace is None):
        raise UsageError("give either --photos FOLDER or --workspace W, whose pool is taken")
    if photos:
        return shuffled(in_folder(photos), str(seed))
    opened = Workspace(workspace, create=False)
    return shuffled(in_pool(opened, latest_snapshot(opened)), str(seed))


def _write(
    output: Path, job: SynthesisJob, count: int, pictures: Sequence[Picture], workers: int, as_json: bool
) -> None:
    from curation.synthesis.source import write_source
    from flywheel.core.progress import Progress

    progress = Progress()
    with progress.step(f"{count} samples into {output}"):
        made = write_source(output, job, count, pictures=pictures, workers=workers, progress=progress)
    reasons = dict(made.reasons.most_common(5))
    if as_json:
        summary = {"folder": made.folder, "samples": made.samples, "refused": made.refused, "reasons": reasons}
        out(json.dumps(summary, ensure_ascii=False))
        return
    out(f"{made.samples} samples in {made.folder}; {made.refused} candidates refused")
    for reason, number in reasons.items():
        say(f"refused {number}: {reason}")
    say(f"next: flywheel run --source {made.folder} -w WORKSPACE")
