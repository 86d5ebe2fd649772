"""A workspace of plain cards in three colors, small enough for rounds with generators that are not ours."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from PIL import Image

from flywheel.cases.events import load_cases
from flywheel.core.files import write_json
from flywheel.core.ledger import Ledger
from flywheel.core.progress import Progress
from flywheel.core.records import RoundResult
from flywheel.core.workspace import Workspace
from flywheel.presets import Distil, Enhancer, Gate, Preset, Rewards, load_preset
from flywheel.rounds.context import Context
from flywheel.rounds.job import Job
from flywheel.rounds.run import one_round
from flywheel.signals.suite import write_rows
from tests.flywheel.generators.tiny_pipeline import COLORS, NUMBERS, SIDE, caption, card, pool_caption
from tests.training.snapshots import png, write_snapshot

SNAPSHOT = "s"
ASKS = {"red": "tone", "green": "tint", "blue": "shade"}  # capability of each color: no recipe generates it
EACH = 8  # prompts per color


def workspace(root: Path, ask: Callable[[str, int], str] = caption) -> Workspace:
    """A pool of sheets of every color, and a suite of cards; ask: the prompt of a color and number."""
    made = Workspace(root)
    rows = [_row(color, n) for color in COLORS for n in range(len(NUMBERS))]
    manifest = made.relative(
        write_snapshot(made.path("shards", SNAPSHOT), [{"rows": rows, "size": (SIDE, SIDE), "bucket": SIDE}])
    )
    write_json(made.snapshot(SNAPSHOT), {"manifest": manifest, "policy": "demo", "policy_sha256": "0"})
    counts = {"input": 36, "admitted": 36, "dropped": 0, "quarantined": 0}
    row = {"snapshot": SNAPSHOT, "policy": "demo", "manifest": manifest, **counts}
    Ledger(made, "snapshots").append([row], key="snapshot/s")
    write_rows(
        made.suite,
        [
            {
                "prompt_id": f"{color}-{n}",
                "prompt": ask(color, n),
                "task": "t2i",
                "checks": [{"verifier": "card", "capability": ASKS[color], "color": color}],
            }
            for color in COLORS
            for n in range(EACH)
        ],
    )
    return made


def _row(color: str, n: int) -> dict[str, Any]:
    return {
        "sample_id": f"{color}-{n}",
        "task": "t2i",
        "caption": pool_caption(color, n),
        "image": png(Image.fromarray(card(color, n))),
        "references": [],
        "slice": "base",
        "stream": "t2i",
        **dict.fromkeys(("width", "height", "source_width", "source_height"), SIDE),
        "captions": [{"kind": "general", "text": pool_caption(color, n), "origin": "source"}],
    }


def preset(generator: dict[str, Any], **changes: Any) -> Preset:
    """One picture per prompt, one capability per round, and a gate that eight prompts can pass."""
    demo = load_preset("demo")
    values = {
        "evaluation": replace(demo.evaluation, side=SIDE, steps=3, cfg=1.0, pictures=1),
        "attribution": replace(demo.attribution, seeds=1, sparse_percentile=100.0),
        "plan": replace(demo.plan, min_cases=4, max_targets=1, samples=16, remedy_share=0.7, retrieval_similarity=0.3),
        "rewards": Rewards(updates=2),
        "distil": Distil(updates=2),
        "enhancer": Enhancer(),
        "gate": Gate(margin=1.0),
        "generator": generator,
    }
    return replace(demo, **values | changes)


def go(made: Workspace, settings: Preset, number: int, *, stop_at: str = "") -> RoundResult:
    """Run a round; `stop_at`: raise `KeyboardInterrupt` before the step of this name."""
    job = Job(workspace=str(made.root), source=str(made.root), preset="demo")
    context = Context(made, job, settings, Progress(io.StringIO()))

    def do(label: str, function: Callable[..., Any], *args: Any, round_: int = 0, units: Any = 0) -> Any:
        if stop_at and stop_at in label:
            raise KeyboardInterrupt
        return function(*args)

    one_round(context, number, SNAPSHOT, do)
    return RoundResult.read(made.round(number).result)


def tracks(made: Workspace) -> dict[str, str | None]:
    """{capability: track} of the open cases."""
    return {c.capability: c.track for c in load_cases(made).values() if c.is_open}


def remedies(made: Workspace, number: int) -> dict[str, dict[str, Any]]:
    """{kind: remedy} of a round's plan."""
    plan = json.loads(made.round(number).plan.read_text())
    return {f"{r.get('track')} {r['kind']}": r for r in plan["remedies"]}
