"""From signals to routed cases: accuracy of capabilities, speed for a million signals, quality of retrieval.

python benchmarks/routing.py [--prompts DIR] [--signals 1000000] [--vectors 1000000] [--only capability route …]

capability: every prompt of the public suites (GenEval, LongText-Bench en and zh, PartiPrompts) gets an output that
fails the verifier of what its category tests. The router sees verifier, verdict and prompt, but not category and
capability. "Prompt alone", for PartiPrompts, hides the verifier too: nobody says what is wrong. The taxonomy's rules
were written, and marked unsure, on one half of the prompts (even SHA-256); the figures are for the other half.
route: signals of all kinds and stored probes → cases with tracks, in a process of its own that measures peak memory.
retrieval: unit vectors of 512 dimensions on a curved, clustered surface: a mixture of 2,000 Gaussians of Zipf weights
in 32 dimensions, through a random tanh layer, with isotropic noise of 45 % of their length; queries are fresh draws.
feedback: single events over keep-alive connections to the real server, each acknowledged after its fsync.
The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import os
import resource
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil

PROMPTS = Path(__file__).resolve().parents[2] / "shared" / "data" / "prompts"
SUITES = (
    ("geneval", "geneval"),
    ("longtext", "longtext_en"),
    ("longtext", "longtext_zh"),
    ("partiprompts", "partiprompts"),
)


# Capability ----------------------------------------------------------------------------------------------------------
def capability(folder: Path) -> dict[str, float]:
    """Accuracy on the held-out half, for all cases and for those that are not marked unsure."""
    from flywheel.cases.capability import load_taxonomy
    from flywheel.signals.benchmarks import judge_outputs
    from flywheel.signals.importers import import_suite
    from flywheel.signals.suite import load_suite

    taxonomy = load_taxonomy()
    totals: Counter[str] = Counter()
    figures: dict[str, float] = {}
    print(f"{'suite':28} {'half':10} {'cases':>6} {'right':>7} {'sure':>6} {'right of sure':>14}")
    for kind, name in SUITES:
        with tempfile.TemporaryDirectory() as scratch:
            path = Path(scratch) / "suite.jsonl"
            import_suite(kind, folder / f"{name}.jsonl", path)
            judged = judge_outputs(load_suite(path), [failing(p) for p in load_suite(path)])
        cases = [(p, next(o for o in reversed(outcomes) if o.passed is False)) for p, outcomes in judged]
        views = {name: [(p, o.verifier, o.evidence) for p, o in cases]}
        if name == "partiprompts":
            views[f"{name}, prompt alone"] = [(p, "alignment", {}) for p, _ in cases]
        for title, view in views.items():
            told = taxonomy.tell(
                [
                    {"verifier": v, "task": p.task, "prompt": p.text, "evidence": json.dumps(e, ensure_ascii=False)}
                    for p, v, e in view
                ]
            )
            rows = [(_half(p.text), c in label(p), sure) for (p, *_), (c, sure) in zip(view, told)]
            for half, part in enumerate(("written on", "held out")):
                ok = [right for h, right, _ in rows if h == half]
                certain = [right for h, right, sure in rows if h == half and sure]
                of_sure = f"{np.mean(certain):14.1%}" if certain else ""
                print(f"{title:28} {part:10} {len(ok):6} {np.mean(ok):7.1%} {len(certain) / len(ok):6.0%} {of_sure}")
                if half and title == name:
                    totals.update(all=len(ok), right=sum(ok))
                elif half:
                    figures["capability_accuracy_prompt_alone"] = round(float(np.mean(ok)), 4)
                    figures["capability_accuracy_prompt_alone_sure"] = round(float(np.mean(certain)), 4)
                    figures["capability_prompt_alone_sure"] = round(len(certain) / len(ok), 4)
    return {
        "capability_accuracy": round(totals["right"] / totals["all"], 4),
        "capability_cases": totals["all"],
    } | figures


def _half(text: str) -> int:
    return int(hashlib.sha256(text.encode()).hexdigest(), 16) % 2


def failing(prompt: Any) -> dict[str, Any]:
    """An output of the prompt that fails what its category tests."""
    check = prompt.checks[0]
    output: dict[str, Any] = {"prompt_id": prompt.prompt_id}
    if prompt.benchmark == "partiprompts":
        last = max(c.get("id", 0) for c in prompt.checks)  # the question of the category, if it has one
        return output | {"answers": {str(n): "no" if n == last else "yes" for n in range(last + 1)}}
    if prompt.benchmark == "longtext":
        return output | {"text": ""}
    things = []
    for place, clause in enumerate(check["include"]):
        count = clause["count"]
        if prompt.category in ("single_object", "two_object") and place == len(check["include"]) - 1:
            count = 0
        if prompt.category == "counting":
            count += 1 if place == 0 and len(prompt.text) % 2 else -1
        color = "gray" if place == 0 and "color" in clause else clause.get("color")
        box = [100, 100, 110, 110]  # all in one place, so that no relation holds
        things += [{"class": clause["class"], "score": 0.99, "box": box, "color": color}] * count
    return output | {"detections": things}


def label(prompt: Any) -> set[str]:
    """The capabilities that the prompt tests according to its category."""
    from flywheel.signals.importers import PARTI_QUESTIONS

    if prompt.benchmark == "geneval":
        name = {"single_object": "object", "two_object": "object", "counting": "count", "color_attr": "color"}
        return {name.get(prompt.category, prompt.category.removesuffix("s"))}
    if prompt.benchmark == "longtext":
        language, category = prompt.category.split(" / ")
        return {"slides" if category == "slide" else "typography" if language == "en" else "multilingual_text"}
    category, challenge = prompt.category.split(" / ")
    names = [n for n in (category, challenge) if n in PARTI_QUESTIONS]
    return {PARTI_QUESTIONS[n][0] for n in names} or {"instruction_following"}


# A million signals ---------------------------------------------------------------------------------------------------
def route(count: int) -> dict[str, float]:
    """Seconds and memory of a new process that gathers and routes `count` stored signals."""
    with tempfile.TemporaryDirectory() as scratch:
        subprocess.run([sys.executable, __file__, "--store", scratch, "--signals", str(count)], check=True)
        line = [sys.executable, __file__, "--route", scratch]
        spent = json.loads(subprocess.run(line, check=True, capture_output=True, text=True).stdout.splitlines()[-1])
    print(f"\n{count} signals: {spent}")
    return {
        "route_1m_s": round(spent["cpu_s"] * 1e6 / count, 2),
        "route_1m_wall_s": round(spent["wall_s"] * 1e6 / count, 2),
        "route_1m_gib": round(spent["gib"], 3),
        "route_cases": spent["cases"],
    }


CAPABILITY = "['count', 'typography', 'multilingual_text', 'portrait', 'aesthetics'][1 + p % 5]"


def store(folder: Path, count: int) -> None:
    """Write signals of every kind, 40 % without capability, on prompts of uneven popularity; probes for most cases."""
    import duckdb

    from flywheel.core.ledger import Ledger
    from flywheel.core.workspace import Workspace

    workspace = Workspace(folder / "w")
    con = duckdb.connect(config={"memory_limit": "2GB"})
    con.execute("SELECT setseed(0.5)").fetchall()
    signals = f"""
    WITH drawn AS (SELECT n, (power(random(), 2) * {count // 4})::INT AS p, random() AS r, random() AS q
                   FROM range({count}) t(n)),
    named AS (SELECT *, CASE WHEN r < .35 THEN 'feedback' WHEN r < .6 THEN 'mining' WHEN r < .75 THEN 'arena'
                        ELSE 'evaluation' END AS kind FROM drawn)
    SELECT md5(n::VARCHAR) AS signal_id, NULL::INT AS round, NULL::VARCHAR AS arm, 'checkpoints/a' AS checkpoint, kind,
           CASE kind WHEN 'feedback' THEN 'user-' ELSE 'suite-' END || p AS prompt_id,
           CASE p % 5 WHEN 0 THEN 'a photo of ' || p % 7 || ' cats beside house number ' || p
                      WHEN 1 THEN 'a sign that says "OPEN ' || p || '" above a door'
                      WHEN 2 THEN '一块写着“营业中' || p || '”的牌子' WHEN 3 THEN 'A portrait of woman ' || p
                      ELSE 'an oil painting of ship ' || p || ' in the harbour' END AS prompt, 't2i' AS task,
           CASE kind WHEN 'feedback' THEN 'user' WHEN 'mining' THEN ['self', 'seeds', 'judges', 'margin'][1 + n % 4]
                     WHEN 'arena' THEN 'arena' ELSE ['text', 'question', 'alignment'][1 + n % 3] END AS verifier,
           CASE WHEN kind = 'feedback' OR q < .1 THEN NULL ELSE {CAPABILITY} END AS capability,
           q > .1 AND false AS passed, q AS score, 1.0 AS threshold,
           CASE kind WHEN 'feedback' THEN json_object('event_id', n, 'thumbs', 'down', 'reason',
                         ['there are too many of them', 'the text is misspelled', 'wrong color', 'ugly', ''][1 + n % 5])
                     WHEN 'mining' THEN json_object('seeds', 4, 'seeds_passed', p % 3)
                     ELSE json_object('expected', 'OPEN ' || p, 'seen', 'OPFN ' || n) END::VARCHAR AS evidence,
           'samples/' || n || '.png' AS image, TIMESTAMPTZ '2026-01-01' + to_seconds(n) AS at
    FROM named"""
    for part in range(10):  # signals arrive in ten batches
        low, high = _range(part)
        table = con.sql(f"SELECT * FROM ({signals}) WHERE substr(signal_id, 1, 1) BETWEEN '{low}' AND '{high}'")
        Ledger(workspace, "signals").append(table.to_arrow_table(), key=f"part/{part}")
    probes = con.sql(
        f"""SELECT md5('p' || p) AS probe_id,
        substr(sha256(json_array('suite-' || p, {CAPABILITY})::VARCHAR), 1, 16) AS case_id,
        'suite-' || p AS prompt_id, NULL::VARCHAR AS capability, 0 AS round, 'checkpoints/a' AS checkpoint, 3 AS seeds,
        greatest(0, p % 7 - 4) AS seeds_passed, 'better' AS enhanced, 1 AS enhanced_seeds,
        (p % 11 = 0)::INT AS enhanced_passed, (p % 100)::DOUBLE AS density, NULL::VARCHAR AS folder, now() AS at
        FROM range({count // 4}) t(p)"""
    ).to_arrow_table()
    Ledger(workspace, "probes").append(probes, key="probes")


def _range(part: int) -> list[str]:
    digits = "0123456789abcdef"
    ends = [0, 2, 3, 5, 6, 8, 10, 11, 13, 14, 16]
    return [digits[ends[part]], digits[ends[part + 1] - 1]]


def route_stored_signals(folder: Path) -> None:
    """Gather and route, and print the time and memory spent."""
    from flywheel.cases.stored import gather, route_stored
    from flywheel.core.workspace import Workspace
    from flywheel.presets import Attribution

    workspace = Workspace(folder / "w")
    wall, cpu = time.perf_counter(), time.process_time()
    events = gather(workspace)
    tracks = route_stored(workspace, Attribution(seeds=3))
    spent = {
        "cpu_s": time.process_time() - cpu,
        "wall_s": time.perf_counter() - wall,
        "gib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
        "cases": events["detected"],
        "tracks": tracks,
    }
    print(json.dumps(spent))


# Retrieval -----------------------------------------------------------------------------------------------------------
def world(dim: int = 512, latent: int = 32, clusters: int = 2000) -> Callable[[int, int], np.ndarray]:
    """(count, seed) → unit vectors float32 [count, dim]."""
    rng = np.random.default_rng(1)
    centres = rng.standard_normal((clusters, latent)).astype(np.float32)
    weights = 1 / np.arange(1, clusters + 1) ** 0.7
    first = 1.5 * rng.standard_normal((latent, 256)).astype(np.float32) / np.sqrt(latent)
    second = rng.standard_normal((256, dim)).astype(np.float32) / 16

    def draw(count: int, seed: int) -> np.ndarray:
        own = np.random.default_rng(seed)
        z = centres[own.choice(clusters, count, p=weights / weights.sum())]
        z = z + 0.5 * own.standard_normal(z.shape, dtype=np.float32)
        v = np.tanh(z @ first) @ second
        v /= np.linalg.norm(v, axis=1, keepdims=True)
        v += 0.02 * own.standard_normal(v.shape, dtype=np.float32)
        return v / np.linalg.norm(v, axis=1, keepdims=True)

    return draw


def retrieval(count: int, queries: int = 200) -> dict[str, float]:
    """Recall of the 100 nearest neighbours against exact search, and CPU time per query on one thread."""
    import faiss

    from flywheel.remedies.index import build

    faiss.omp_set_num_threads(1)
    draw = world()
    chunks = [draw(min(100_000, count - start), 10 + start) for start in range(0, count, 100_000)]
    asked = draw(queries, 7)
    exact = _exact(chunks, asked)
    start = time.process_time()
    index = build(chunks)
    built = time.process_time() - start
    del chunks
    start = time.process_time()
    neighbours = [index.search(q[None], 100)[1][0] for q in asked]
    each = (time.process_time() - start) / queries * 1e3
    recall = float(np.mean([len(np.intersect1d(a, b)) / 100 for a, b in zip(neighbours, exact)]))
    base = faiss.downcast_index(index.base_index) if hasattr(index, "base_index") else None
    lists = f"{base.nprobe} of {base.nlist} lists" if base else "exact"
    gib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"\n{count} x 512: built in {built:.0f} CPU-s, {lists}, {each:.2f} ms a query, recall@100 {recall:.4f}")
    return {
        "retrieval_recall": round(recall, 4),
        "retrieval_ms": round(each, 3),
        "retrieval_build_s": round(built, 1),
        "retrieval_peak_gib": round(gib, 2),
    }


def _exact(chunks: list[np.ndarray], asked: np.ndarray) -> np.ndarray:
    best: list[tuple[np.ndarray, np.ndarray]] = []
    offset = 0
    for chunk in chunks:
        near = asked @ chunk.T
        rows = np.argpartition(-near, 100, axis=1)[:, :100]
        best.append((np.take_along_axis(near, rows, 1), rows + offset))
        offset += len(chunk)
    values, rows = (np.concatenate(part, axis=1) for part in zip(*best))
    return np.take_along_axis(rows, np.argsort(-values, axis=1)[:, :100], 1)


# Feedback ------------------------------------------------------------------------------------------------------------
def feedback(count: int, connections: int = 32) -> dict[str, float]:
    """Acknowledged single events per second, over all connections."""
    from flywheel.core.ledger import Ledger
    from flywheel.core.workspace import Workspace

    token = "a-token-of-a-benchmark"
    with tempfile.TemporaryDirectory() as scratch:
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        line = [sys.executable, "-m", "flywheel.cli", "signals", "serve", "-w", f"{scratch}/w", "--port", str(port)]
        server = subprocess.Popen(line, env=os.environ | {"FLYWHEEL_FEEDBACK_TOKEN": token}, stderr=subprocess.DEVNULL)
        while server.poll() is None:
            try:
                socket.create_connection(("127.0.0.1", port)).close()
                break
            except OSError:
                time.sleep(0.1)
        process = psutil.Process(server.pid)
        before, start = sum(process.cpu_times()[:2]), time.perf_counter()
        asyncio.run(_send(port, token, count, connections))
        wall, cpu = time.perf_counter() - start, sum(process.cpu_times()[:2]) - before
        server.terminate()
        server.wait()
        recorded = len(Ledger(Workspace(f"{scratch}/w"), "signals").rows())
    print(f"\nfeedback: {count} events acknowledged in {wall:.1f} s, {cpu:.1f} CPU-s; {recorded} in the ledger")
    return {
        "feedback_events_per_s": round(count / wall),
        "feedback_events_per_cpu_s": round(count / cpu),
        "feedback_lost": count - recorded,
    }


async def _send(port: int, token: str, count: int, connections: int) -> None:
    async def one(numbers: Iterator[int]) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for n in numbers:
            body = json.dumps({"event_id": str(n), "prompt": f"a cat, number {n}", "thumbs": "down"}).encode()
            head = f"POST /feedback HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\nContent-Length: {len(body)}"
            writer.write(head.encode() + b"\r\n\r\n" + body)
            answer = await reader.readuntil(b"\r\n\r\n")
            if b" 200 " not in answer.split(b"\r\n", 1)[0]:
                raise RuntimeError(answer.decode())
            length = next(
                int(h.split(b":")[1]) for h in answer.lower().split(b"\r\n") if h.startswith(b"content-length")
            )
            await reader.readexactly(length)
        writer.close()

    await asyncio.gather(*(one(iter(range(k, count, connections))) for k in range(connections)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompts", type=Path, default=PROMPTS)
    parser.add_argument("--signals", type=int, default=1_000_000)
    parser.add_argument("--vectors", type=int, default=1_000_000)
    parser.add_argument("--events", type=int, default=5_000)
    parser.add_argument("--only", nargs="+", choices=("capability", "route", "retrieval", "feedback"))
    parser.add_argument("--store", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--route", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.store:
        store(options.store, options.signals)
        return
    if options.route:
        route_stored_signals(options.route)
        return
    wanted = options.only or ["capability", "route", "retrieval", "feedback"]
    figures: dict[str, float] = {}
    if "capability" in wanted:
        if options.prompts.is_dir():
            figures |= capability(options.prompts)
        else:
            print(f"no prompts at {options.prompts}: capability is left out")
    if "route" in wanted:
        figures |= route(options.signals)
    if "retrieval" in wanted:
        figures |= retrieval(options.vectors)
    if "feedback" in wanted:
        figures |= feedback(options.events)
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
