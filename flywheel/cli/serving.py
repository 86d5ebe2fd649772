"""Verbs that serve: the flows by schedule, the system in service as an image API, feedback and rewards."""

from __future__ import annotations

import os
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from flows.schedules import CRON
from flywheel.cli.console import say
from flywheel.cli.options import CaptionsOption, PolicyOption, PresetOption, WorkersOption, WorkspaceOption
from flywheel.cli.rl import serve as rewards
from flywheel.cli.signals import TOKEN_VARIABLE as FEEDBACK_TOKEN
from flywheel.cli.signals import serve as feedback
from flywheel.core.errors import UsageError

app = typer.Typer()
serve = typer.Typer(
    help="Run the flows by schedule; or serve pictures, receive feedback, compute rewards.", invoke_without_command=True
)
app.add_typer(serve, name="serve")


@app.command(epilog="Example: flywheel mcp -w w")
def mcp(workspace: WorkspaceOption) -> None:
    """Tell an AI assistant about a workspace over stdin and stdout (Model Context Protocol). It can change nothing."""
    from dashboards.mcp_server import build
    from flywheel.core.workspace import Workspace

    build(Workspace(workspace, create=False)).run()


@serve.callback(epilog='Example: flywheel serve --source photos/ -w w --curate "0 2 * * *"')
def schedules(
    context: typer.Context,
    source: Annotated[
        list[str] | None, typer.Option(help="Folder, file, glob or address to curate from. Repeatable.")
    ] = None,
    workspace: Annotated[
        Path | None, typer.Option("--workspace", "-w", help="Folder or s3://bucket/prefix for all data and results.")
    ] = None,
    captions: CaptionsOption = None,
    policy: PolicyOption = None,
    preset: PresetOption = "tiny",
    workers: WorkersOption = 2,
    curate: Annotated[str, typer.Option(help="When to curate new images.")] = CRON["curate"],
    collect: Annotated[str, typer.Option(help="When to import the inbox.")] = CRON["collect-signals"],
    route: Annotated[str, typer.Option(help="When to route new signals.")] = CRON["route"],
    round_: Annotated[str, typer.Option("--round", help="When to run the next round.")] = CRON["round"],
    review: Annotated[str, typer.Option(help="When to resume rounds whose review is finished.")] = CRON["review"],
    maintenance: Annotated[str, typer.Option(help="When to compact, export and verify.")] = CRON["maintenance"],
    zone: Annotated[str, typer.Option(help="Time zone of the schedules, such as Europe/Berlin.")] = "UTC",
) -> None:
    """Run the flows by schedule, on the Prefect server at PREFECT_API_URL. Failures are posted to FLYWHEEL_WEBHOOK.

    Every schedule is a cron expression; an empty one turns its flow off.
    """
    if context.invoked_subcommand:
        return
    if not source or workspace is None:
        raise UsageError("give --source DIR and --workspace W; see flywheel serve --help")
    from flows.deployments import serve as serve_flows
    from flywheel.cli.runs import job_of
    from flywheel.rounds.run import validate

    job = job_of(workspace, source, captions, policy=policy, preset=preset, workers=workers)
    validate(job)
    root = job.workspace
    times = {"curate": curate, "collect-signals": collect, "route": route, "round": round_, "review": review}
    times |= {"maintenance": maintenance}
    active = {name: cron for name, cron in times.items() if cron}
    say(f"serving {', '.join(active)} for {root}, times in {zone} (Ctrl-C pauses the schedules and exits)")
    serve_flows(root, asdict(job), active, zone)


serve.command("feedback", epilog=f"Example: {FEEDBACK_TOKEN}=… flywheel serve feedback -w w --port 8060")(feedback)
serve.command("rewards", epilog="Example: flywheel serve rewards --reward instruction --reward ocr --port 8400")(
    rewards
)


@serve.command(epilog="Example: flywheel serve images -w w --port 8070")
def images(
    workspace: WorkspaceOption,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0 chooses a free one.")] = 8070,
    queue: Annotated[int, typer.Option(min=1, help="Pictures that may wait; further requests get status 429.")] = 64,
    seconds: Annotated[float, typer.Option(min=1, help="Time for a request, waiting included.")] = 600,
    student: Annotated[bool, typer.Option("--student", help="Draw with the few-step student.")] = False,
) -> None:
    """Serve the system in service as an OpenAI-compatible image API: generations and edits, below http://HOST:PORT/v1.

    One process per GPU draws, or one on the CPU. A promotion or rollback takes effect within a minute. Any address but
    loopback needs a token in FLYWHEEL_IMAGES_TOKEN, which clients send as their API key.
    """
    from flywheel.core import serving
    from flywheel.core.workspace import Workspace
    from flywheel.operate.image_server import TOKEN_VARIABLE, Served, create_app
    from flywheel.operate.image_workers import Queue, Worker, gpus
    from flywheel.rounds.sample import promoted_system

    opened = Workspace(workspace, create=False)
    served = Served(lambda: promoted_system(opened, student=student))
    listener = serving.listen(host, port)
    waiting = Queue([Worker(opened.root, gpu) for gpu in gpus()], limit=queue)
    try:
        made = create_app(waiting, served, os.environ.get(TOKEN_VARIABLE, ""), host=host, seconds=seconds)
        say(f"loading system {served.system.id} in {len(waiting.workers)} process(es)")
        waiting.load(served.system)
        say(f"pictures at http://{host}:{listener.getsockname()[1]}/v1 (Ctrl-C stops it)")
        serving.serve(made, listener, on_stop=waiting.stop)
    finally:
        waiting.close()
