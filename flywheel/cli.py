"""The `flywheel` command: each verb is one call into a package. Heavy imports happen inside the verbs."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from flywheel.console import out, print_differences, print_explanation, print_rows, print_summary, say
from flywheel.workspace import UsageError, Workspace

app = typer.Typer(
    help="Data flywheel and curation for image generators: curate, train, evaluate, route failures, repair, gate.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
policies = typer.Typer(help="Look at curation policies and compare them.", no_args_is_help=True)
app.add_typer(policies, name="policy")

WorkspaceOption = Annotated[Path, typer.Option("--workspace", "-w", help="Folder that holds everything a run makes.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Machine-readable output on stdout.")]
SeedOption = Annotated[int, typer.Option(help="Seed of everything random.")]
RoundsOption = Annotated[int, typer.Option(min=1, help="Rounds to bring the workspace to.")]
WorkersOption = Annotated[int, typer.Option(min=1, help="Ray workers for curation.")]
PrefectOption = Annotated[bool, typer.Option("--prefect/--no-prefect", help="Run the steps as a Prefect flow.")]
PolicyOption = Annotated[str | None, typer.Option(help="Curation policy: a built-in name or a .toml file.")]
PresetOption = Annotated[str, typer.Option(help="Preset: a built-in name (tiny, demo, quick) or a .toml file.")]
DEMO = Path("demo-workspace")

evaluate = typer.Typer(help="Measure parts of a model on their own.", no_args_is_help=True)
app.add_typer(evaluate, name="evaluate")


def main() -> None:
    """Entry point: what the user can fix ends in one sentence and exit code 2."""
    try:
        app()
    except UsageError as error:
        typer.secho(f"error: {error}", fg="red", err=True)
        sys.exit(2)


@app.command(epilog="Example: flywheel demo --quick")
def demo(
    quick: Annotated[bool, typer.Option("--quick", help="A smaller round, in about two minutes.")] = False,
    workspace: WorkspaceOption = DEMO,
    seed: SeedOption = 0,
    workers: WorkersOption = 2,
    prefect: PrefectOption = True,
    as_json: JsonOption = False,
) -> None:
    """Run two complete rounds on the embedded world: poor data, failures, a targeted remedy, a re-test and a gate."""
    from flywheel.demo.world import write_world
    from flywheel.rounds.job import Job

    size = "quick" if quick else "full"
    opened = Workspace(workspace)
    source = opened.path("demo-source", size)
    say(f"writing the demo's world to {source}")
    write_world(source, seed=seed, size=size)
    job = Job(
        workspace=str(opened.root),
        source=str(source),
        preset="quick" if quick else "demo",
        seed=seed,
        rounds=2,
        workers=workers,
    )
    _run(job, prefect=prefect, as_json=as_json)


@app.command(epilog="Example: flywheel run --source photos/ --captions captions.jsonl --workspace w")
def run(
    source: Annotated[Path, typer.Option(help="Folder of images, WebDataset .tar, or Parquet with embedded bytes.")],
    workspace: WorkspaceOption,
    captions: Annotated[Path | None, typer.Option(help="JSON lines: file, caption, and references for edits.")] = None,
    policy: PolicyOption = None,
    preset: PresetOption = "tiny",
    rounds: RoundsOption = 2,
    seed: SeedOption = 0,
    workers: WorkersOption = 2,
    prefect: PrefectOption = True,
    as_json: JsonOption = False,
) -> None:
    """Run the flywheel on your own pictures. Run it again after a kill to resume, after new data for the next round."""
    from flywheel.rounds.job import Job

    if not source.exists():
        raise UsageError(f"--source {source} does not exist: give a folder of images, a .tar or a .parquet file")
    if captions and not captions.is_file():
        raise UsageError(f"--captions {captions} is no file: give a JSON-lines file")
    job = Job(
        workspace=str(Workspace(workspace).root),
        source=str(source.resolve()),
        captions=str(captions.resolve()) if captions else None,
        policy=policy,
        preset=preset,
        seed=seed,
        rounds=rounds,
        workers=workers,
    )
    _run(job, prefect=prefect, as_json=as_json)


@app.command(epilog='Example: flywheel sql "select * from funnel" -w w')
def sql(
    statement: Annotated[str, typer.Argument(help="One SELECT over the views; `flywheel tables` lists them.")],
    workspace: WorkspaceOption,
    as_json: JsonOption = False,
) -> None:
    """Ask the workspace in SQL (DuckDB, read-only)."""
    from flywheel.catalog import query

    print_rows(query(Workspace(workspace, create=False), statement), as_json)


@app.command(epilog="Example: flywheel tables")
def tables(as_json: JsonOption = False) -> None:
    """List the analysts' views and their columns."""
    from flywheel.catalog import documentation

    print_rows(documentation(), as_json)


@app.command(epilog="Example: flywheel funnel -w w --policy mine.toml")
def funnel(workspace: WorkspaceOption, policy: PolicyOption = None, as_json: JsonOption = False) -> None:
    """Rows entering and leaving each filter, in order: of the latest snapshot, or as --policy would have it."""
    from flywheel.catalog import query, snapshot

    opened = Workspace(workspace, create=False)
    if policy is None:
        print_rows(query(opened, "select * from funnel"), as_json)
        return
    from curation.pipeline import funnel as funnel_of
    from curation.what_if import basis

    base = basis(opened, snapshot(opened), policy)
    print_rows(funnel_of(opened, base.policy, base.evaluation), as_json)


@app.command("what-if", epilog="Example: flywheel what-if --set S4.aesthetic.min=5.0 -w w")
def what_if(
    settings: Annotated[list[str], typer.Option("--set", help="STAGE.FILTER.BOUND=NUMBER; may be given again.")],
    workspace: WorkspaceOption,
    policy: PolicyOption = None,
    as_json: JsonOption = False,
) -> None:
    """What enters and what leaves each stage with other thresholds. Only scores are read, no image is touched."""
    from curation.what_if import basis, parse_settings, with_settings
    from curation.what_if import what_if as compare
    from flywheel.catalog import snapshot

    opened = Workspace(workspace, create=False)
    base = basis(opened, snapshot(opened), policy)
    found = compare(opened, base, with_settings(base.policy, parse_settings(settings)))
    if as_json:
        out(json.dumps(found, ensure_ascii=False))
    else:
        print_differences(found)


@policies.command(epilog="Example: flywheel policy show qwen-image-2")
def show(
    name: Annotated[str, typer.Argument(help="Built-in name or .toml file.")], as_json: JsonOption = False
) -> None:
    """The filters of a policy in the order in which they act."""
    from curation.policy import load_policy
    from curation.what_if import lines

    loaded = load_policy(name)
    if as_json:
        out(json.dumps(loaded.record(), ensure_ascii=False))
    else:
        print_rows(lines(loaded), as_json)


@policies.command(epilog="Example: flywheel policy diff qwen-image-2 mine.toml")
def diff(
    before: Annotated[str, typer.Argument(help="Built-in name or .toml file.")],
    after: Annotated[str, typer.Argument(help="Built-in name or .toml file.")],
    as_json: JsonOption = False,
) -> None:
    """Every line that differs between two policies."""
    from curation.policy import load_policy
    from curation.what_if import changes

    print_rows(changes(load_policy(before), load_policy(after)), as_json)


@app.command(epilog="Example: flywheel explain 3f2a -w w")
def explain(
    sample: Annotated[str, typer.Argument(help="Sample id, its first characters, or the file's path.")],
    workspace: WorkspaceOption,
    as_json: JsonOption = False,
) -> None:
    """Why a sample is where it is: scores, decision, stages, duplicates."""
    from curation.pipeline import explain as explain_sample
    from flywheel.catalog import snapshot

    opened = Workspace(workspace, create=False)
    found = explain_sample(opened, snapshot(opened), sample)
    if as_json:
        out(json.dumps(found, ensure_ascii=False, default=str))
    else:
        print_explanation(found)


@app.command(epilog="Example: flywheel cases --status remedied -w w")
def cases(
    workspace: WorkspaceOption,
    capability: Annotated[str | None, typer.Option(help="Only this capability.")] = None,
    status: Annotated[
        str | None, typer.Option(help="detected, routed, reviewed, remedied, closed or re-opened.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """List failure cases."""
    from flywheel.catalog import query

    rows = query(Workspace(workspace, create=False), "select * from cases order by capability, case_id")
    wanted = {"capability": capability, "status": status}
    print_rows([r for r in rows if all(v in (None, r[k]) for k, v in wanted.items())], as_json)


@app.command(epilog="Example: flywheel rounds -w w")
def rounds(workspace: WorkspaceOption, as_json: JsonOption = False) -> None:
    """List rounds with their verdicts."""
    from flywheel.catalog import query

    columns = 'round, verdict, checkpoint, incumbent, snapshot, "at"'
    print_rows(query(Workspace(workspace, create=False), f"select {columns} from rounds order by round"), as_json)


@app.command(epilog="Example: flywheel report -w w")
def report(workspace: WorkspaceOption, as_json: JsonOption = False) -> None:
    """Write the one-file HTML report again."""
    path = _report(Workspace(workspace, create=False))
    out(json.dumps({"report": str(path)}) if as_json else str(path))


@app.command(epilog="Example: flywheel export -w w --output analysts.duckdb")
def export(
    workspace: WorkspaceOption,
    output: Annotated[Path, typer.Option(help="DuckDB file to write; must not exist.")],
    as_json: JsonOption = False,
) -> None:
    """Write the analysts' tables into one DuckDB file."""
    from flywheel.catalog import export as export_tables

    if output.exists():
        raise UsageError(f"{output} exists: exports are never replaced, give a new name")
    path = export_tables(Workspace(workspace, create=False), output.resolve())
    out(json.dumps({"export": str(path)}) if as_json else str(path))


@app.command(epilog="Example: flywheel dashboard -w w --port 8050")
def dashboard(
    workspace: WorkspaceOption,
    host: Annotated[str, typer.Option(help="Address to bind to.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535)] = 8050,
) -> None:
    """Serve the dashboard (read-only)."""
    from dashboards.app import serve

    serve(Workspace(workspace, create=False), host=host, port=port)


@app.command(epilog='Example: flywheel sample "a red circle on the left" -w w --count 4 --output pictures')
def sample(
    prompt: Annotated[str, typer.Argument(help="What to draw, or how to change the references.")],
    checkpoint: Annotated[Path | None, typer.Option(help="Checkpoint folder.")] = None,
    workspace: Annotated[
        Path | None, typer.Option("--workspace", "-w", help="Workspace whose promoted checkpoint draws.")
    ] = None,
    ref: Annotated[list[Path] | None, typer.Option(help="Reference image; repeat for more than one.")] = None,
    size: Annotated[str | None, typer.Option(help="WIDTHxHEIGHT; default: the largest square trained at.")] = None,
    steps: Annotated[int | None, typer.Option(help="Denoising steps; default: the checkpoint's schedule.")] = None,
    cfg: Annotated[float, typer.Option(help="Guidance weight; 1 is none.")] = 3.0,
    seed: SeedOption = 0,
    count: Annotated[int, typer.Option(help="Pictures, of this seed and the ones after it.")] = 1,
    output: Annotated[Path, typer.Option(help="Folder for the pictures and their grid.")] = Path("samples"),
    as_json: JsonOption = False,
) -> None:
    """Draw pictures with a checkpoint. The same seed gives the same picture."""
    from flywheel.sample import parse_size, promoted_checkpoint, sample_pictures

    if (checkpoint is None) == (workspace is None):
        raise UsageError("give either --checkpoint DIR or --workspace W, whose promoted checkpoint is taken")
    wanted = parse_size(size) if size else None
    made = sample_pictures(
        checkpoint or promoted_checkpoint(Workspace(workspace, create=False)),
        prompt,
        output=output,
        references=ref or (),
        size=wanted,
        steps=steps,
        cfg=cfg,
        seed=seed,
        count=count,
    )
    out(json.dumps(made, ensure_ascii=False) if as_json else "\n".join([*made["images"], made["grid"]]))


@evaluate.command("vae", epilog="Example: flywheel evaluate vae Qwen/Qwen-Image-2.1 --photographs p")
def evaluate_vae(
    models: Annotated[list[str], typer.Argument(help="Checkpoint, VAE or pipeline folders, or hub tags.")],
    photographs: Annotated[Path, typer.Option(help="Folder of photographs.")],
    count: Annotated[int, typer.Option(min=1, help="Photographs at most, and pages of text.")] = 100,
    side: Annotated[int, typer.Option(min=32, help="Pixels, both sides.")] = 256,
    seed: SeedOption = 0,
    as_json: JsonOption = False,
) -> None:
    """PSNR and SSIM of autoencoders on photographs and on pages of small text, in the form of the report's Table 1."""
    from flywheel.vae_quality import evaluate as measure
    from flywheel.vae_quality import load_photographs

    pictures = load_photographs(photographs, side=side, count=count)
    for name, reason in pictures.left_out.items():
        say(f"left out: {name}: {reason}")
    rows = measure(models, pictures, side=side, texts=count, seed=seed)
    if not as_json:
        rows = [
            {
                "model": r["model"],
                "layout": r["layout"],
                "enc/dec (M)": "{:.2f}/{:.2f}".format(*(r[f"{x}_parameters"] / 1e6 for x in ("encoder", "decoder"))),
                **{f"{x} PSNR/SSIM": f"{r[f'{x}_psnr']:.2f}/{r[f'{x}_ssim']:.4f}" for x in ("photographs", "text")},
            }
            for r in rows
        ]
    print_rows(rows, as_json)


def _run(job: Any, *, prefect: bool, as_json: bool) -> None:
    from flywheel.memory import PeakMemory
    from flywheel.progress import Progress
    from flywheel.rounds.run import finished, run, validate

    validate(job)
    with PeakMemory() as memory:
        summary = finished(job)
        if summary:
            say("nothing to do: this job is finished; the summary below is what it found")
        elif prefect:
            from flows.round import run_with_prefect

            summary = run_with_prefect(job, progress=Progress(), report=_report)
        else:
            summary = run(job, progress=Progress(), report=_report)
    summary["peak_rss_bytes"] = memory.peak
    if as_json:
        print(json.dumps(summary, ensure_ascii=False), flush=True)
    else:
        print_summary(summary)


def _report(workspace: Workspace) -> Path:
    from dashboards.report import render
    from flywheel.workspace import write_bytes

    path = workspace.path("reports", "report.html")
    write_bytes(path, render(workspace).encode())
    return path


if __name__ == "__main__":
    main()
