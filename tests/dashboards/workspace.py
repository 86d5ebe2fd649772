"""A small real workspace: ledgers, Parquet, images and metrics as a run of two rounds leaves them."""

import io
import json
import math
import random
from pathlib import Path
from typing import Any

import pyarrow as pa
from PIL import Image, ImageDraw, ImageFilter

from flywheel.cases.events import case_id
from flywheel.core.files import write_bytes, write_json, write_parquet
from flywheel.core.ledger import Ledger
from flywheel.core.records import BASE, MixEntry
from flywheel.core.schema import POOL, QUARANTINE
from flywheel.core.workspace import Workspace
from flywheel.presets import Gate
from flywheel.remedies.review import Queue
from flywheel.rounds.gate import judge
from flywheel.signals.results import failure_rates, results
from tests.flywheel.plans import round_plan

HOSTILE = '<script>alert(1)</script> "><img src=x onerror=alert(2)> a sign'


PROMPTS = 24  # per capability


RATES = {  # capability → failure rate of round 1, round 2's candidate, round 2's control; and the remedy track
    "typography": (0.92, 0.42, 0.88, "pretraining"),
    "count": (0.75, 0.38, 0.71, "pretraining"),
    "position": (0.46, 0.42, 0.46, "rl"),
    "color": (0.12, 0.17, 0.12, "prompt_enhancement"),
    "identity": (0.33, 0.29, 0.33, "human"),
}


WORDS = ("OPEN", "天气真好", "BREAD", "FLYWHEEL", "안녕", "مرحبا")


COLORS = ("#d9483b", "#2f7fd1", "#3a9d5d", "#e0a526", "#8a4fb0")


SNAPSHOT = "5f1d" * 16


TARGETS = ["typography", "count"]


PROBED = case_id("typography-001", "typography")


def build(root: Path) -> Workspace:
    """Two finished rounds, a promoted second one, and data with every kind of outcome."""
    workspace = Workspace(root)
    _data(workspace)
    arms = [(1, "candidate", 0), (2, "candidate", 1), (2, "control", 2)]
    for number, arm, column in arms:
        _evaluate(workspace, number, arm, column)
        _metrics(workspace, number, arm)
    signals = Ledger(workspace, "signals").rows()
    _round(workspace, 1, results(signals, 1, "candidate"), None, {})
    _cases(workspace, 1, results(signals, 1, "candidate"))
    first, second = results(signals, 1, "candidate"), results(signals, 2, "candidate")
    _round(workspace, 2, second, first, results(signals, 2, "control"))
    _cases(workspace, 2, second)
    _probe(workspace)
    _review(workspace)
    return workspace


def hold(workspace: Workspace) -> dict[str, Any]:
    """A third round, as poor as the first on other prompts, which opens no cases; returns its result."""
    _evaluate(workspace, 3, "candidate", 0)
    signals = Ledger(workspace, "signals").rows()
    new, old = results(signals, 3, "candidate"), results(signals, 2, "candidate")
    return _round(workspace, 3, new, old, {}, incumbent="checkpoints/round-0002-candidate")


def prompt_of(capability: str, i: int) -> str:
    """Text of one held-out prompt; the first one of typography is hostile."""
    if capability == "typography":
        color = ("red", "blue", "green")[i % 3]
        return HOSTILE if i == 0 else f"a {color} card with the word “{WORDS[i % len(WORDS)]}”"
    return f"{2 + i % 4} circles and a square, {capability}, number {i}"


def _data(workspace: Workspace) -> None:
    names = [f"cards/{i:04d}.png" for i in range(300)]
    _pool(workspace, names)
    folder = workspace.path("snapshots", SNAPSHOT)
    write_parquet(folder / "decisions.parquet", pa.Table.from_pylist(_decisions(names)))
    faults = [("zero bytes", 4), ("truncated or corrupt: image file ends early <b>x</b>", 5), ("not an image: text", 3)]
    broken = [{"source_uri": f"bad/{k}-{i}.jpg", "reason": why} for k, (why, n) in enumerate(faults) for i in range(n)]
    write_parquet(folder / "quarantine.parquet", pa.Table.from_pylist(broken))
    write_parquet(folder / "funnel.parquet", pa.Table.from_pylist(_funnel()))
    write_parquet(workspace.path("remedies", "round-0002", "generated.parquet"), pa.Table.from_pylist(_generated()))
    write_parquet(workspace.path("pool", "batch", "quarantine.parquet"), QUARANTINE.empty_table())
    write_json(workspace.snapshot(SNAPSHOT), {"batches": ["batch"], "pool": [], "scorers": {}})
    counts = {"input": 312, "admitted": 225, "dropped": 75, "quarantined": 12}
    row = {"snapshot": SNAPSHOT, "policy": "demo", "manifest": "shards/manifest.json"} | counts
    Ledger(workspace, "snapshots").append([row], key="snapshot")


def tiny(i: int) -> bytes:
    """A picture of one colour, PNG."""
    buffer = io.BytesIO()
    Image.new("RGB", (12, 8), COLORS[i % len(COLORS)]).save(buffer, "PNG")
    return buffer.getvalue()


def _pool(workspace: Workspace, names: list[str]) -> None:
    pool = [
        {
            "sample_id": f"{i:064x}",
            "source_uri": name,
            "source": "cards" if i % 3 else "photos",
            "task": "t2i",
            "image": tiny(i),
            "width": 256,
            "height": 256,
            "caption": HOSTILE if i == 0 else f"card {i}",
        }
        for i, name in enumerate(names)
    ]
    table = pa.Table.from_pylist(pool, schema=POOL)
    write_parquet(workspace.path("pool", "batch", "00000.parquet"), table)
    write_json(
        workspace.path("pool", "batch", "manifest.json"),
        {"shards": [{"path": "00000.parquet", "rows": 300, "sha256": "0"}]},
    )


def _decisions(names: list[str]) -> list[dict[str, Any]]:
    dropped = dict.fromkeys(range(40), ("resolution", 120.0, 256.0, None))
    dropped |= {i: ("exact_duplicate", None, None, f"{i + 1:064x}") for i in range(40, 60)}
    dropped |= dict.fromkeys(range(60, 75), ("entropy", 1.25, 3.0, None))
    rows = []
    for i, name in enumerate(names):
        filter_, score, threshold, survivor = dropped.get(i, (None, None, None, None))
        rows.append(
            {
                "sample_id": f"{i:064x}",
                "source_uri": name,
                "stage_reached": "S1" if i in dropped else "S3",
                "outcome": "dropped" if i in dropped else "admitted",
                "filter": filter_,
                "score": score,
                "threshold": threshold,
                "survivor": survivor,
                "survivor_uri": survivor and f"/pool/{survivor}.jpg",
                "shard": "batch-00000",
                "row": i,
            }
        )
    return rows


def _funnel() -> list[dict[str, Any]]:
    stages = [
        ("S1", None, [("broken_file", 312, 0, 12), ("resolution", 300, 40, 0), ("exact_duplicate", 260, 20, 0)]),
        ("S1", 256, [("entropy", 240, 15, 0)]),
        ("S2", 256, [("token_length", 225, 30, 0), ("alignment", None, None, None), ("sharpness", 195, 12, 0)]),
        ("S3", 256, [("ocr_match", 183, 61, 0), ("aesthetics", None, None, None)]),
    ]
    return [
        {
            "stage": stage,
            "bucket": bucket,
            "filter": name,
            "status": "applied" if entered is not None else "not configured",
            "entered": entered,
            "dropped": lost,
            "quarantined": bad,
        }
        for stage, bucket, filters in stages
        for name, entered, lost, bad in filters
    ]


def _generated() -> list[dict[str, Any]]:
    return [
        {
            "sample_id": f"{c}-{i}",
            "round": 2,
            "capability": c,
            "recipe": "retrieved" if i < 20 else "text_card",
            "caption": "a card",
            "outcome": "dropped" if i % 9 == 8 else "admitted",
            "filter": "ocr_match" if i % 9 == 8 else None,
            "score": 0.5,
            "threshold": 0.85,
        }
        for c in TARGETS
        for i in range(120)
    ]


def _evaluate(workspace: Workspace, number: int, arm: str, column: int) -> None:
    name = f"round-{number:04d}-{arm}"
    rows = []
    for capability, rates in RATES.items():
        order = random.Random(capability).sample(range(PROMPTS), PROMPTS)
        failed = round(rates[column] * PROMPTS)
        failing = set(order[-failed:] if number == 3 else order[:failed])
        if capability == "color" and number == 2:
            failing = {order[-1], *list(failing)[1:]}  # one case breaks that used to pass
        for i in range(PROMPTS):
            passed, prompt_id = i not in failing, f"{capability}-{i:03d}"
            word = WORDS[i % len(WORDS)]
            evidence = {"expected": word, "seen": word if passed else word[:-2]}
            image = f"samples/{name}/{prompt_id}.png"
            write_bytes(workspace.path(image), picture(i, passed))
            rows.append(
                {
                    "signal_id": f"{name}-{prompt_id}",
                    "round": number,
                    "arm": arm,
                    "checkpoint": f"checkpoints/{name}",
                    "kind": "evaluation",
                    "prompt_id": prompt_id,
                    "prompt": prompt_of(capability, i),
                    "task": "ti2i" if capability == "identity" else "t2i",
                    "verifier": "text" if capability == "typography" else capability,
                    "capability": capability,
                    "passed": passed,
                    "score": 1.0 if passed else 0.4,
                    "threshold": 0.85,
                    "evidence": json.dumps(evidence, ensure_ascii=False),
                    "image": image,
                }
            )
    skipped = {"signal_id": f"{name}-none", "passed": None, "score": None, "evidence": '{"not_applied": "no scorer"}'}
    rows.append(rows[0] | skipped)
    Ledger(workspace, "signals").append(rows, key=name)
    sheet = Image.new("RGB", (8 * 64, 6 * 64), "white")
    for k, row in enumerate(rows[:-1:3]):
        with Image.open(workspace.path(row["image"])) as cell:
            sheet.paste(cell, (k % 8 * 64, k // 8 * 64))
    buffer = io.BytesIO()
    sheet.save(buffer, "PNG")
    write_bytes(workspace.path("samples", name, "grid.png"), buffer.getvalue())


def picture(seed: int, sharp: bool) -> bytes:
    """A 64 × 64 card with shapes; a failed one is blurred."""
    dice = random.Random(seed)
    image = Image.new("RGB", (64, 64), dice.choice(("#f4efe6", "#e8eef4", "#eef4ea")))
    draw = ImageDraw.Draw(image)
    for _ in range(2 + seed % 3):
        x, y, r = dice.randint(8, 48), dice.randint(8, 48), dice.randint(6, 12)
        draw.ellipse((x - r, y - r, x + r, y + r), fill=dice.choice(COLORS))
    draw.text((6, 48), "OPEN", fill="#222")
    buffer = io.BytesIO()
    (image if sharp else image.filter(ImageFilter.GaussianBlur(3))).save(buffer, "PNG")
    return buffer.getvalue()


def _metrics(workspace: Workspace, number: int, arm: str) -> None:
    dice = random.Random(number)
    steps = 1000 if number == 1 else 500
    start = 1.2 if number == 1 else 0.42
    lines = []
    for step in range(1, steps + 1):
        loss = 0.25 + (start - 0.25) * math.exp(-step / 160) + dice.gauss(0, 0.03) + (0.04 if arm == "control" else 0)
        lines.append({"step": step, "loss": loss} | ({"validation_loss": loss + 0.02} if step % 100 == 0 else {}))
    text = "\n".join(json.dumps(line) for line in lines) + "\n"
    write_bytes(workspace.path("checkpoints", f"round-{number:04d}-{arm}", "metrics.jsonl"), text.encode())


def _round(
    workspace: Workspace,
    number: int,
    new: dict,
    old: dict | None,
    control: dict,
    incumbent: str | None = "checkpoints/round-0001-candidate",
) -> dict[str, Any]:
    incumbent = incumbent if old else None
    targets = TARGETS if old else []
    verdict = judge(new, old, targets=targets, policy=Gate(margin=0.3))  # 24 prompts rule out no smaller loss
    changed = [(case_id(*k), passed) for k, passed in sorted(new.items()) if old is not None and old[k] != passed]
    result = {
        "round": number,
        "verdict": verdict.verdict,
        "reason": verdict.reason,
        "checkpoint": f"checkpoints/round-{number:04d}-candidate",
        "incumbent": incumbent,
        "snapshot": SNAPSHOT,
        "targets": targets,
        "failure_rate": failure_rates(new),
        "incumbent_failure_rate": failure_rates(old or {}),
        "control_failure_rate": failure_rates(control),
        "prompts": dict.fromkeys(RATES, PROMPTS),
        "gate": [vars(line) for line in verdict.lines],
        "fixed": [c for c, passed in changed if passed],
        "broken": [c for c, passed in changed if not passed],
    }
    mix = [MixEntry(slice=BASE, share=1.0 if not old else 0.5, reason="keeps what the model can do")]
    for capability, share, n in (("typography", 0.28, 22), ("count", 0.22, 18)) if old else ():
        why = f"{n} open cases: {n} routed to pretraining"
        mix.append(MixEntry(slice=capability, share=share, samples=120, cases=n, reason=why))
    steps, waiting = (500, {"human": 8}) if old else (1000, {})
    plan = round_plan(number, *mix, incumbent=incumbent, steps=steps, targets=tuple(targets), waiting=waiting)
    plan.write(workspace.round(number).plan)
    write_json(workspace.round(number).result, result)
    row = {k: result[k] for k in ("round", "verdict", "checkpoint", "incumbent", "snapshot")}
    Ledger(workspace, "rounds").append([row | {"result": json.dumps(result)}], key=f"round/{number}")
    return result


def _cases(workspace: Workspace, number: int, new: dict) -> None:
    known = {e["case_id"] for e in Ledger(workspace, "case_events").rows()}
    events = []
    for (prompt_id, capability), passed in sorted(new.items()):
        case, text = case_id(prompt_id, capability), prompt_of(capability, int(prompt_id[-3:]))
        base = {"case_id": case, "round": number, "capability": capability, "prompt_id": prompt_id, "prompt": text}
        if case in known:
            kinds = [("passed" if passed else "failed", None)]
        elif not passed:
            kinds = [("detected", None), ("routed", RATES[capability][3])]
        else:
            kinds = []
        for kind, track in kinds:
            why = json.dumps({"reason": f"{kind} by the fixture", "signals": [{"verifier": "text"}]})
            events.append(base | {"event_id": f"{case}-{number}-{kind}", "kind": kind, "track": track, "evidence": why})
            if case == PROBED and number == 2:
                seen = json.dumps({"accepted": 120, "by": "auto-approve", "rejected": 0})
                events.append(base | {"event_id": f"{case}-reviewed", "kind": "reviewed", "evidence": seen})
                events.append(base | {"event_id": f"{case}-remedied", "kind": "remedied", "evidence": "{}"})
    Ledger(workspace, "case_events").append(events, key=f"events/{number}")


def _probe(workspace: Workspace) -> None:
    """An experiment on one case: two further seeds."""
    for k in (1, 2):
        write_bytes(workspace.path("probes", "round-0001", f"seed-{k}", "typography-001.png"), picture(k, k == 1))
    row = {"probe_id": "p", "case_id": PROBED, "prompt_id": "typography-001", "capability": "typography", "round": 1}
    row |= {"checkpoint": "checkpoints/round-0001-candidate", "seeds": 2, "seeds_passed": 1, "enhanced": None}
    Ledger(workspace, "probes").append([row | {"density": 12.5, "folder": "probes/round-0001"}], key="probe")


def place_on_map(workspace: Workspace) -> None:
    """A map of the first 299 samples on a grid, and of two cases: one in the lower left, one at the upper right."""
    folder = workspace.path("derived", "maps", "000000299-00000000")
    write_parquet(folder / "landmarks.parquet", pa.table({"x": [0.0], "y": [0.0]}))
    none = pa.nulls(299, pa.string())
    at = {"x": [-1 + i % 20 / 10 for i in range(299)], "y": [-1 + i // 20 / 10 for i in range(299)]}
    names = [f"{i:064x}" for i in range(299)]
    write_parquet(folder / "samples-0.parquet", pa.table({"sample_id": names, "case_id": none, **at}))
    ids = [PROBED, case_id("identity-001", "identity")]
    at = {"x": [-0.9, 0.9], "y": [-0.9, 0.3]}
    write_parquet(folder / "cases.parquet", pa.table({"sample_id": none[:2], "case_id": ids, **at}))


def candidates(workspace: Workspace, number: int, ids: list[str]) -> None:
    """What a remedy proposes for typography: the pictures that reviewers look at."""
    rows = [
        {"sample_id": i, "slice": "typography", "image": picture(n, True), "references": []} for n, i in enumerate(ids)
    ]
    folder = workspace.path("remedies", f"round-{number:04d}")
    write_parquet(folder / "candidates.parquet", pa.Table.from_pylist(rows))


def _review(workspace: Workspace) -> None:
    """A sample that was retrieved for that case, and what a reviewer did with it."""
    candidates(workspace, 2, ["typography-8"])
    queue = Queue(workspace)
    row = {"capability": "typography", "sample_id": "typography-8", "caption": "a card", "priority": 0.5}
    queue.add(2, [row | {"evidence": {"case": PROBED, "similarity": 0.9}}])
    queue.decide(queue.next("ada").item, "rejected", "ada", reason="wrong word")
