"""Analysts' queries and the dashboard's first page over a workspace of a million cases.

python benchmarks/analytics.py [--cases 1000000] [--rounds 10] [--tail 2000] [--folder DIR]

The workspace is written in the schema of the ledgers. Every round evaluates, detects, routes, remedies and re-tests its
share of the cases; there are a tenth as many decided pool rows as cases, and reviews and costs. The kept copy of the
cases is written at the end, as every round and maintenance do. Events of `--tail` cases come after it: every query has
to fold them.

query_ms_max    milliseconds of the slowest ready query (`flywheel sql --list`), median of seven, connection included
query_cpu_ms_max  CPU-milliseconds of the most expensive one, over all threads: not affected by a shared machine
first_page_s    seconds until the overview is complete in headless Chromium (served locally, nothing cached)
first_page_mb   megabytes that it transfers in total
outside_requests  requests of all visited pages to other hosts
Without Chromium the page and its references are fetched by HTTP, and a line says so.
The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any
from urllib.parse import urljoin, urlsplit
from urllib.request import urlopen

import numpy as np
import pyarrow as pa

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # some files in this folder are named like packages

from benchmarks.browser import CHROMIUM, QUIET, served
from flywheel.catalog import database as catalog
from flywheel.catalog.queries import ready
from flywheel.core.files import digest, write_bytes, write_json, write_parquet
from flywheel.core.ledger import Ledger
from flywheel.core.schema import LEDGERS
from flywheel.core.workspace import Workspace

CAPABILITIES = ("typography", "multilingual", "layout", "identity", "consistency", "object", "count", "color",
                "position", "relation", "portrait", "photorealism", "aesthetics", "knowledge")  # fmt: skip
TRACKS = ("rl", "pretraining", "prompt_enhancement", "human", "unsure")
REPEATS = 7
MB = 1e6
START = np.datetime64("2026-01-01T00:00:00", "us")


def table(name: str, count: int, **columns: Any) -> pa.Table:
    """A table of a ledger; a scalar value is repeated in every row, a missing one is null."""
    arrays = []
    for field in LEDGERS[name]:
        value = columns.get(field.name)
        if not isinstance(value, list | np.ndarray | pa.Array):
            value = pa.repeat(pa.scalar(value, field.type), count)
        arrays.append(pa.array(value, field.type) if not isinstance(value, pa.Array) else value.cast(field.type))
    return pa.table(arrays, schema=LEDGERS[name])


def fill(workspace: Workspace, cases: int, rounds: int, tail: int) -> None:
    """Write rounds, the kept copy of the cases, and later events."""
    rng = np.random.default_rng(0)
    for number in range(1, rounds + 1):
        one_round(workspace, rng, (cases - tail) // rounds, number)
    started = time.process_time()
    catalog.keep_cases(workspace)
    print(f"copy of {cases - tail} cases kept in {time.process_time() - started:.1f} CPU-s", flush=True)
    one_round(workspace, rng, tail, rounds + 1)
    decide(workspace, rng, max(1, cases // 10))


def one_round(workspace: Workspace, rng: np.random.Generator, count: int, number: int) -> None:
    """Write the signals of a round, its new cases, and the events of their lives."""
    ids = [digest("case", number, n)[:16] for n in range(count)]
    prompts = [f"a photograph of {n} things beside a sign that reads {n % 977}, round {number}" for n in range(count)]
    prompt_ids = [f"p{number}-{n}" for n in range(count)]
    capability = pa.array(rng.choice(CAPABILITIES, count).tolist())
    at = START + np.timedelta64(number, "D") + np.arange(count).astype("timedelta64[us]")
    shown = [json.dumps({"expected": str(n % 977), "seen": str(n % 31), "similarity": 0.25}) for n in range(count)]
    common = {"round": number, "capability": capability, "prompt_id": prompt_ids, "prompt": prompts}
    checkpoint = f"checkpoints/round-{number:04d}"
    image = [f"samples/round-{number:04d}-candidate/{p}.png" for p in prompt_ids]
    signals = {"arm": "candidate", "checkpoint": checkpoint, "kind": "evaluation", "task": "t2i", "verifier": "ocr",
               "score": rng.random(count), "threshold": 0.9, "evidence": shown, "image": image, "at": at}  # fmt: skip
    Ledger(workspace, "signals").append(
        table("signals", count, signal_id=[f"s{number}-{n}" for n in range(count)],
              passed=np.zeros(count, bool), **common, **signals), key=f"evaluate/{number}")  # fmt: skip

    def event(kind: str, which: np.ndarray, **more: Any) -> pa.Table:
        picked = {k: pa.array(v).take(which) if k != "round" else v for k, v in common.items()}
        names = pa.array(ids).take(which)
        own = {"event_id": [f"{kind}-{number}-{n}" for n in which], "case_id": names, "kind": kind, "at": at[which]}
        return table("case_events", len(which), **picked | own | more)

    everyone = np.arange(count)
    failures = ({"verifier": "ocr", "image": i, "evidence": s} for i, s in zip(image, shown))
    evidence = [json.dumps({"signals": [f]}) for f in failures]
    ledger = Ledger(workspace, "case_events")
    ledger.append(event("detected", everyone, evidence=evidence), key=f"detect/{number}")
    tracks = pa.array(rng.choice(TRACKS, count).tolist())
    ledger.append(event("routed", everyone, track=tracks, evidence="{}"), key=f"route/{number}")
    remedied = np.flatnonzero(rng.random(count) < 0.5)
    ledger.append(event("remedied", remedied, evidence="{}"), key=f"remedy/{number}")
    passed = rng.random(len(remedied)) < 0.6
    for kind, which in (("passed", remedied[passed]), ("failed", remedied[~passed])):
        ledger.append(event(kind, which, evidence="{}", round=number + 1), key=f"retest/{number}/{kind}")
    fixed = [ids[n] for n in remedied[passed][:1000]]
    result = {"fixed": fixed, "broken": [ids[n] for n in remedied[~passed][:50]], "targets": ["typography"],
              "failure_rate": dict.fromkeys(CAPABILITIES, 0.5 / number), "lines": []}  # fmt: skip
    row = {"round": number, "verdict": "PROMOTE", "checkpoint": checkpoint, "snapshot": "0" * 16,
           "incumbent": f"checkpoints/round-{number - 1:04d}" if number > 1 else None}  # fmt: skip
    Ledger(workspace, "rounds").append([row | {"result": json.dumps(result)}], key=f"round/{number}")
    costs = {"round": number, "step": "train", "units": 1000, "wall_seconds": 60.0, "cpu_seconds": 100.0}
    Ledger(workspace, "costs").append([costs | {"cost_id": f"c{number}", "gpu_seconds": 50.0}], key=f"cost/{number}")
    reviews(workspace, number, max(1, count // 20), at[0])


def reviews(workspace: Workspace, number: int, count: int, at: np.datetime64) -> None:
    """Write items that are queued, claimed and decided, each by one of four people."""
    ledger = Ledger(workspace, "reviews")
    people = pa.array([f"reviewer-{n % 4}" for n in range(count)])
    items = [f"item-{number}-{n}" for n in range(count)]
    when = at + np.arange(count).astype("timedelta64[s]")
    common = {"item": items, "round": number, "capability": "typography", "sample_id": items, "at": when}
    queued = {"caption": "a card", "priority": 0.5, "evidence": json.dumps({"reviews": 1, "claim_minutes": 30})}
    claimed = {"evidence": json.dumps({"until": f"{at}+00:00"})}
    for version, (kind, own) in enumerate(
        {"queued": queued, "claimed": claimed, "accepted": {"evidence": "{}"}}.items()
    ):
        who = {"slot": 0, "version": version, "reviewer": people} if version else {}
        events = table("reviews", count, event_id=[f"{kind}-{i}" for i in items], kind=kind, **common, **own, **who)
        ledger.append(events, key=f"{kind}/{number}")


def decide(workspace: Workspace, rng: np.random.Generator, count: int) -> None:
    """Write a pool batch of small rows, and the decisions of a snapshot about them."""
    ids = [digest("sample", n)[:16] for n in range(count)]
    uris = [f"/pictures/{n:09d}.jpg" for n in range(count)]
    pool = pa.table({"sample_id": ids, "source_uri": uris, "source": [f"source-{n % 12}" for n in range(count)],
                     "task": ["t2i"] * count, "width": np.full(count, 800, np.int32),
                     "height": np.full(count, 600, np.int32), "caption": ["a picture"] * count})  # fmt: skip
    batch = workspace.path("pool", "00001-synthetic")
    write_parquet(batch / "00000.parquet", pool)
    write_json(batch / "manifest.json", {"shards": [{"path": "00000.parquet", "rows": count}]})
    dropped = rng.random(count) < 0.4
    reasons = np.where(dropped, rng.choice(["S1.resolution", "S1.deduplication", "S4.aesthetic"], count), None)
    decisions = pa.table({"sample_id": ids, "source_uri": uris, "stage_reached": ["S4"] * count,
                          "outcome": np.where(dropped, "dropped", "admitted").tolist(), "filter": reasons.tolist(),
                          "score": rng.random(count), "threshold": np.full(count, 0.5),
                          "survivor": pa.nulls(count, pa.string()),
                          "survivor_uri": pa.nulls(count, pa.string()), "shard": ["00001-synthetic-00000"] * count,
                          "row": np.arange(count, dtype=np.int32)})  # fmt: skip
    snapshot = "0" * 16
    folder = workspace.path("snapshots", snapshot)
    write_parquet(folder / "decisions.parquet", decisions)
    row = {"snapshot": snapshot, "policy": "synthetic", "manifest": "none", "input": count, "quarantined": 0}
    row |= {"admitted": int((~dropped).sum()), "dropped": int(dropped.sum())}
    Ledger(workspace, "snapshots").append([row], key="snapshot")
    write_bytes(workspace.path("reports", ".keep"), b"")


# Figures -------------------------------------------------------------------------------------------------------------
def queries(workspace: Workspace) -> dict[str, float]:
    """Wall and CPU milliseconds of the slowest ready query."""
    slowest = {"query_ms_max": 0.0, "query_cpu_ms_max": 0.0}
    print(f"  {'query':<24}{'ms':>8}{'CPU-ms':>8}{'rows':>8}")
    for name, query in ready().items():
        wall, cpu, rows = [], [], []
        for _ in range(REPEATS):
            started = time.perf_counter(), time.process_time()
            rows = catalog.query(workspace, query.sql)
            wall.append(1000 * (time.perf_counter() - started[0]))
            cpu.append(1000 * (time.process_time() - started[1]))
        medians = {"query_ms_max": statistics.median(wall), "query_cpu_ms_max": statistics.median(cpu)}
        slowest = {k: max(v, medians[k]) for k, v in slowest.items()}
        wall_ms, cpu_ms = medians.values()
        print(f"  {name:<24}{wall_ms:>8.0f}{cpu_ms:>8.0f}{len(rows):>8}", flush=True)
    return slowest


PAGES = ("/", "/cases", "/rounds/1", "/review", "/arena", "/funnel", "/what-if", "/training", "/why", "/sql",
         "/compare", "/calibration", "/cost", "/sources", "/coverage")  # fmt: skip


def first_page(address: str) -> dict[str, float]:
    """Seconds, megabytes and outside requests; in Chromium if it is installed."""
    try:
        from playwright.sync_api import sync_playwright

        with sync_playwright() as play:
            browser = play.chromium.launch(executable_path=CHROMIUM, args=QUIET)
            return _in_chromium(browser, address)
    except Exception as error:  # noqa: BLE001 - no browser: say so, and measure without one
        print(f"  no Chromium ({str(error).splitlines()[0][:80]}): fetched by HTTP")
        return _by_http(address)


def _in_chromium(browser: Any, address: str) -> dict[str, float]:
    took, size, outside = [], 0.0, 0
    for n in range(3):
        page = browser.new_context().new_page()
        sizes: list[int] = []
        page.on("requestfinished", lambda r, to=sizes: to.append(r.sizes()["responseBodySize"]))
        started = time.perf_counter()
        page.goto(address, wait_until="networkidle" if n == 2 else "load")
        took.append(time.perf_counter() - started)
        size = sum(sizes) / MB
    page = browser.new_context().new_page()
    asked: list[str] = []
    page.on("request", lambda r: asked.append(r.url))
    for path in PAGES:
        page.goto(address + path)
    outside = sum(not url.startswith((address, "data:")) for url in asked)
    browser.close()
    return {"first_page_s": statistics.median(took[:2]), "first_page_mb": size, "outside_requests": outside}


def _by_http(address: str) -> dict[str, float]:
    started = time.perf_counter()
    body = urlopen(address + "/").read()
    named = re.findall(r'(?:src|href)="([^"#]+\.(?:css|js|png|svg))"', body.decode())
    links = {urljoin(address + "/", name) for name in named}
    size = len(body) + sum(len(urlopen(link).read()) for link in links if link.startswith(address))
    took = time.perf_counter() - started
    outside = 0
    for path in PAGES:
        text = urlopen(address + path).read().decode()
        outside += sum(bool(urlsplit(m).netloc) for m in re.findall(r'(?:src|action)="([^"]+)"', text))
    return {"first_page_s": took, "first_page_mb": size / MB, "outside_requests": outside}


def main() -> None:
    """Print the tables, then the figures as one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--tail", type=int, default=2_000, help="cases after the kept copy was written")
    parser.add_argument("--folder", type=Path, help="folder of the workspace, kept for the next run")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        root = arguments.folder or Path(scratch, "w")
        exists = root.exists()
        workspace = Workspace(root)
        if not exists:
            started = time.perf_counter()
            fill(workspace, arguments.cases, arguments.rounds, arguments.tail)
            print(f"{arguments.cases} cases written in {time.perf_counter() - started:.0f} s", flush=True)
        events = Ledger(workspace, "case_events")
        print(f"{len(events.files())} files of events", flush=True)
        figures = queries(workspace)
        with served(workspace) as address:
            figures |= first_page(address)
    print(json.dumps({k: round(v, 3) for k, v in figures.items()}))


if __name__ == "__main__":
    main()
