"""Do dashboard, feedback server and image server bear visitors for an hour? Requests, p99, events lost, memory.

python benchmarks/load.py WORKSPACE [--minutes 60] [--clients 4] [--pause 0.05]

The workspace is copied, and `flywheel dashboard`, `serve feedback` and `serve images` work on the copy. As many clients
as given visit each of three: pages (every page of the menu, rounds, a sample, a query), pictures (those on the pages,
in three sizes), and feedback (one event a request, a tenth of them sent twice). One more lets the system in service
draw, a picture a request. Each waits `--pause` seconds between two requests. An error is a status of 400 and more, or
none; what a full queue refuses (429, 503) counts apart. At the end the servers are stopped by SIGTERM, and every
acknowledged event is looked up in the ledger.

memory_growth: memory of all process trees in the last quarter of the time, relative to the second one (means).
The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import re
import secrets
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from html import unescape
from pathlib import Path

import httpx
import psutil

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # some files in this folder are named like packages

from flywheel.catalog.database import query
from flywheel.core.ledger import Ledger
from flywheel.core.workspace import Workspace
from flywheel.signals.feedback_log import fold

PAGES = ("/", "/cases", "/review", "/arena", "/funnel", "/samples", "/what-if", "/training", "/why")
PAGES += ("/sql?q=select+count(*)+from+samples", "/compare", "/calibration", "/cost", "/sources", "/coverage")
KINDS = ("pages", "pictures", "feedback", "drawings")
SIDES = ("?side=96", "?side=384", "")
BUSY = (429, 503)  # a costly page whose queue is full
FLAT = 0.1  # growth of memory that counts as none
SAMPLE_SECONDS = 2.0


@dataclass
class Figures:
    """What the clients saw: seconds by kind of request, statuses, and the ids of acknowledged events."""

    seconds: dict[str, list[float]] = field(default_factory=lambda: {kind: [] for kind in KINDS})
    refused: Counter[str] = field(default_factory=Counter)
    errors: Counter[str] = field(default_factory=Counter)
    acknowledged: set[str] = field(default_factory=set)
    memory: list[float] = field(default_factory=list)  # MB, of all process trees


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


@contextmanager
def server(*arguments: str, environment: dict[str, str]) -> Iterator[psutil.Process]:
    """`flywheel` with these arguments, until the block ends; then SIGTERM."""
    command = [sys.executable, "-m", "flywheel.cli", *arguments]
    with subprocess.Popen(command, env=os.environ | environment, stderr=subprocess.DEVNULL) as process:
        try:
            yield psutil.Process(process.pid)
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(30)


async def reached(url: str) -> None:
    """Wait until a server answers. Errors: `SystemExit` after two minutes."""
    async with httpx.AsyncClient() as client:
        for _ in range(240):
            with suppress(httpx.HTTPError):
                await client.get(url)
                return
            await asyncio.sleep(0.5)
    raise SystemExit(f"{url} does not answer")


async def places(url: str, workspace: Workspace) -> tuple[list[str], list[str]]:
    """Addresses of pages, and of the pictures on them."""
    pages = [*PAGES, *(f"/rounds/{row['round']}" for row in query(workspace, "select round from rounds"))]
    pictures: set[str] = set()
    async with httpx.AsyncClient(base_url=url, timeout=60) as client:
        for page in pages:
            text = (await client.get(page)).text
            found = re.findall(r'src="(/(?:files|pictures)/[^"]+)"', text)
            pictures |= {unescape(address).partition("?")[0] for address in found}
            pages += [a for a in sorted({*re.findall(r'href="(/samples/[^"?]+)"', text)})[:1] if a not in pages]
    return pages, sorted(pictures)


async def visit(seen: Figures, kind: str, send: Callable[[], Awaitable[httpx.Response]]) -> httpx.Response | None:
    """Send one request and note what became of it."""
    began = time.perf_counter()
    try:
        answer = await send()
    except httpx.HTTPError as error:
        seen.errors[f"{kind}: {type(error).__name__}"] += 1
        return None
    seen.seconds[kind].append(time.perf_counter() - began)
    if answer.status_code in BUSY:
        seen.refused[f"{kind}: {answer.status_code}"] += 1
    elif answer.status_code >= 400:
        seen.errors[f"{kind}: {answer.status_code}"] += 1
    return answer


async def browse(seen: Figures, kind: str, url: str, addresses: list[str], until: float, pause: float) -> None:
    """A visitor of pages or pictures."""
    async with httpx.AsyncClient(base_url=url, timeout=60) as client:
        while time.monotonic() < until:
            address = random.choice(addresses) + (random.choice(SIDES) if kind == "pictures" else "")
            await visit(seen, kind, lambda address=address: client.get(address))
            await asyncio.sleep(pause)


async def report(seen: Figures, url: str, token: str, name: str, until: float, pause: float) -> None:
    """A sender of feedback."""
    number = 0
    async with httpx.AsyncClient(base_url=url, headers={"Authorization": f"Bearer {token}"}, timeout=60) as client:
        while time.monotonic() < until:
            number += random.random() > 0.1
            event = {"event_id": f"{name}-{number}", "prompt": f"a card, number {number % 500}", "thumbs": "down"}
            answer = await visit(seen, "feedback", lambda event=event: client.post("/feedback", json=event))
            if answer is not None and answer.status_code == 200:
                seen.acknowledged.add(event["event_id"])
            await asyncio.sleep(pause)


async def draw(seen: Figures, url: str, until: float, pause: float) -> None:
    """Somebody who lets the image server draw."""
    async with httpx.AsyncClient(base_url=url, timeout=600) as client:
        while time.monotonic() < until:
            wanted = {"prompt": f"a card, number {len(seen.seconds['drawings'])}", "response_format": "b64_json"}
            await visit(seen, "drawings", lambda wanted=wanted: client.post("/v1/images/generations", json=wanted))
            await asyncio.sleep(pause)


async def weigh(seen: Figures, servers: list[psutil.Process], until: float) -> None:
    """Sample the memory of the servers and their processes."""
    while time.monotonic() < until:
        total = 0
        for top in servers:
            for process in [top, *top.children(recursive=True)]:
                with suppress(psutil.Error):
                    total += process.memory_info().rss
        seen.memory.append(total / 1e6)
        await asyncio.sleep(SAMPLE_SECONDS)


async def load(workspace: Workspace, arguments: argparse.Namespace) -> Figures:
    """Serve the workspace, and let all clients work at the same time."""
    seen, token = Figures(), secrets.token_hex(16)
    pages_port, events_port, images_port = free_port(), free_port(), free_port()
    place, environment = ("--workspace", str(workspace.root)), {"FLYWHEEL_FEEDBACK_TOKEN": token}
    site, events = f"http://127.0.0.1:{pages_port}", f"http://127.0.0.1:{events_port}"
    images = f"http://127.0.0.1:{images_port}"
    with (
        server("dashboard", *place, "--port", str(pages_port), environment=environment) as dashboard,
        server("signals", "serve", *place, "--port", str(events_port), environment=environment) as feedback,
        server("serve", "images", *place, "--port", str(images_port), environment=environment) as drawing,
    ):
        await asyncio.gather(reached(site), reached(f"{events}/health"), reached(f"{images}/v1/models"))
        pages, pictures = await places(site, workspace)
        print(f"{len(pages)} pages, {len(pictures)} pictures", flush=True)
        until = time.monotonic() + 60 * arguments.minutes
        clients = [weigh(seen, [dashboard, feedback, drawing], until), draw(seen, images, until, arguments.pause)]
        for n in range(arguments.clients):
            clients += [
                browse(seen, "pages", site, pages, until, arguments.pause),
                browse(seen, "pictures", site, pictures, until, arguments.pause),
                report(seen, events, token, f"client-{n}", until, arguments.pause),
            ]
        await asyncio.gather(*clients)
    return seen


def growth(memory: list[float]) -> float:
    """Mean of the last quarter, relative to that of the second one."""
    quarter = max(1, len(memory) // 4)
    return statistics.mean(memory[-quarter:]) / statistics.mean(memory[quarter : 2 * quarter] or memory) - 1


def p99(seconds: list[float]) -> float:
    """The 99th percentile in milliseconds."""
    return round(1000 * sorted(seconds)[int(0.99 * len(seconds))], 1) if seconds else 0.0


def summary(seen: Figures, workspace: Workspace, minutes: float) -> dict[str, object]:
    """The figures, with every acknowledged event looked up in the ledger."""
    fold(workspace)
    rows = [row for row in Ledger(workspace, "signals").rows() if row["verifier"] == "user"]
    recorded = Counter(json.loads(row["evidence"])["event_id"] for row in rows)
    print("second  MB")
    for n in range(0, len(seen.memory), max(1, len(seen.memory) // 12)):
        print(f"{n * SAMPLE_SECONDS:>6.0f}  {seen.memory[n]:.0f}")
    for kind, seconds in seen.seconds.items():
        middle = 1000 * statistics.median(seconds or [0])
        print(f"{kind:<10} {len(seconds):>8} requests  median {middle:>7.1f} ms  p99 {p99(seconds):>8.1f} ms")
    print("errors", dict(seen.errors), "refused", dict(seen.refused))
    change = growth(seen.memory)
    return {
        "minutes": minutes,
        "requests": sum(map(len, seen.seconds.values())),
        "p99_ms": {kind: p99(seconds) for kind, seconds in seen.seconds.items()},
        "errors": seen.errors.total(),
        "refused": seen.refused.total(),
        "events": len(seen.acknowledged),
        "events_lost": len(seen.acknowledged - recorded.keys()),
        "events_doubled": sum(n > 1 for n in recorded.values()),
        "memory_mb": round(max(seen.memory, default=0)),
        "memory_growth": round(change, 3),
        "memory_flat": change < FLAT,
    }


def main() -> None:
    """Load the servers; then print the figures as one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("workspace", type=Path, help="a workspace with at least one round")
    parser.add_argument("--minutes", type=float, default=60.0, help="how long (default: %(default)s)")
    parser.add_argument("--clients", type=int, default=4, help="of each of three kinds (default: %(default)s)")
    parser.add_argument("--pause", type=float, default=0.05, help="seconds between requests (default: %(default)s)")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        shutil.copytree(arguments.workspace, Path(scratch) / "w")
        workspace = Workspace(Path(scratch) / "w", create=False)
        figures = summary(asyncio.run(load(workspace, arguments)), workspace, arguments.minutes)
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
