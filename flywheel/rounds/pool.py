"""The steps that fill the pool, in order: thin, idempotent calls into `curation` and `signals`."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flywheel.core.erased import require_finished
from flywheel.core.errors import UsageError
from flywheel.core.plugins import plugins
from flywheel.core.storage import located
from flywheel.core.workspace import Workspace
from flywheel.rounds.context import Context
from flywheel.signals import hidden, pinned, pool_suite
from flywheel.signals.calibration import load_separations
from flywheel.signals.suite import copy_suite, load_suite

if TYPE_CHECKING:
    from curation.run import Curated, StageReport


def ingest(run: Context) -> None:
    """Read new inputs of the sources into the pool; URLs of lists are fetched first."""
    from curation.sources.ingest import ingest as ingest_source

    require_finished(run.workspace)
    job = run.job
    captions = Path(job.captions) if job.captions else None
    for source in job.sources:
        inputs = ingest_source(
            run.workspace,
            source,
            captions,
            progress=run.progress,
            fetching=run.preset.fetch,
            retry=job.retry,
            workers=job.workers,
        )
        place = f"{source}: " if len(job.sources) > 1 else ""
        changed = f" ({inputs.captions} with new captions)" if inputs.captions else ""
        counts = f"{inputs.new} new, {inputs.known} known{changed}, {inputs.quarantined} quarantined"
        run.progress.say(f"{place}{inputs.found} inputs: {counts}")
        for note in inputs.notes:
            run.progress.say(note)


def score(run: Context, stack: ExitStack) -> None:
    """Score what is not scored yet; Ray stays up for later steps until `stack` closes."""
    from curation.run import scored

    stack.enter_context(scored(run.workspace, run.policy, progress=run.progress, workers=run.job.workers))


def hold_out(run: Context) -> None:
    """Write and pin the held-out suite once; it never changes, so that every round re-tests the same cases.

    A suite from the pool needs its scores: it is drawn from rows that the policy lets pass.
    """
    workspace, settings = run.workspace, run.preset.evaluation
    path = workspace.suite
    if not path.exists() and not pinned.is_pinned(workspace):
        if settings.suite == "pool":
            pool_suite.write(workspace, run.policy, settings, seed=run.job.seed, progress=run.progress)
        elif settings.suite.endswith(".jsonl"):
            _hold_out_references(workspace, settings.suite)
            copy_suite(Path(settings.suite), path)
        else:
            plugins("flywheel.suites")[settings.suite](path.parent, seed=run.job.seed)
    if not run.rows("rounds") and not pinned.is_pinned(workspace):
        if isinstance(settings.hidden, str):
            _hold_out_references(workspace, settings.hidden)
        hidden.write(workspace, settings.hidden, run.job.seed)
    pinned.pin(workspace)
    rest = f", and {len(run.hidden)} hidden ones" if run.hidden else ": too few to hide some of them"
    run.progress.say(f"{len(run.suite)} held-out prompts{rest}")
    for check in load_separations(path):
        run.progress.say(check.sentence)


def _record(run: Context, row: dict[str, Any]) -> None:
    """Record the snapshot, also if it is an earlier one that a policy leads back to: the latest is that of now."""
    snapshot = row["snapshot"]
    before = [r["snapshot"] for r in run.rows("snapshots")]
    if snapshot not in before:
        run.append("snapshots", [row], key=f"snapshot/{snapshot}")
    elif snapshot != before[-1]:
        run.append("snapshots", [row], key=f"snapshot/{snapshot}/{len(before)}")


def _hold_out_references(workspace: Workspace, suite: str) -> None:
    """Keep the references of a suite file, and what looks like them, out of every shard."""
    pinned.write_held_out(workspace, references={r for p in load_suite(Path(suite)) for r in p.reference_bytes()})


def curate(run: Context, captioned: bool = True) -> Curated:
    """Score, filter and shard the pool under the policy; held-out pictures and prompts never enter a shard.

    captioned: nor do rows without a caption, which teach no generator what a prompt means.
    """
    from curation.run import curate as curate_pool

    def stage(*work: Any) -> StageReport:
        report = run.step(*work)
        run.progress.say(report.line)
        return report

    held_out = pinned.held_out(run.workspace)
    curated = curate_pool(
        run.workspace,
        run.policy,
        held_out=held_out.ids,
        looks=held_out.looks,
        exclude_prompts=frozenset(p.text for p in run.held_out),
        captioned=captioned,
        progress=run.progress,
        workers=run.job.workers,
        step=stage,
    )
    counts = {k: getattr(curated, k) for k in ("input", "admitted", "dropped", "quarantined")}
    run.progress.say(
        "{input} input = {admitted} admitted + {dropped} dropped + {quarantined} quarantined".format(**counts)
    )
    if curated.uncaptioned:
        fate = "they are left out of the round" if captioned else "they are curated, but no round trains on them"
        advice = "`flywheel caption` writes captions for them"
        run.progress.say(f"pictures without a caption: {curated.uncaptioned} ({fate}); {advice}")
    for line in curated.not_configured:
        run.progress.say(f"not applied: {line}")
    manifest = str(located(curated.manifest).relative_to(run.workspace.root))
    row = counts | {"snapshot": curated.snapshot, "policy": run.policy_name, "manifest": manifest}
    _record(run, row)
    if not curated.admitted and not curated.dropped:
        raise UsageError('no picture could be read: `flywheel sql "from quarantine"` says why of each')
    if not curated.admitted:
        none = f"; {curated.uncaptioned} have no caption: `flywheel caption` writes them" if curated.uncaptioned else ""
        raise UsageError(f"curation admitted no sample: `flywheel funnel` shows which filters dropped them{none}")
    return curated
