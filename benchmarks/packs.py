"""Score files of many shards, by the real command on S3: killed, resumed, grown, explained, judged otherwise, erased.

python -m benchmarks.packs

An S3 server of its own (moto); the command with shards of four pictures, so that a batch of 80 is laid out as one of
a million: packs of sixteen shards. It stops at the first thing that is not as it should be; the last line is one JSON
object of what was seen.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks import faulty_s3
from curation.policy.reader import load_policy
from curation.policy.what_if import Basis, what_if
from curation.run import configure, explain
from curation.scorers.stored import score_path
from curation.sources import pool
from flywheel.core.workspace import Workspace
from flywheel.operate.erase import erase
from flywheel.operate.fsck import fsck
from tests.curation.corpus import encoded, texture, tree, write_folder

COMMAND = """
import curation.sources.ingest as ingest
ingest.SHARD_ROWS = ingest.LARGE_SHARD_ROWS = 4
ingest._SHARDS, ingest.PACK_ROWS = 1, 64
from flywheel.cli.main import main
main()
"""


def start(*arguments: object) -> subprocess.Popen[str]:
    """Start the command, in a process group of its own."""
    command = [sys.executable, "-c", COMMAND, *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)


def flywheel(*arguments: object) -> dict:
    """Run the command to its end; its JSON."""
    process = start(*arguments, "--json")
    out, err = process.communicate()
    assert process.returncode == 0, err[-3000:]
    try:
        return json.loads(out.splitlines()[-1])
    except json.JSONDecodeError as error:
        raise RuntimeError(f"{arguments}: {out[-2000:]} {err[-2000:]}") from error


def stored(workspace: Workspace) -> dict[str, str]:
    """Digest of every file that curating leaves, but for those that can be derived again."""
    parts = ("pool", "scores", "shards", "snapshots")
    return {f"{part}/{name}": value for part in parts for name, value in tree(workspace.path(part)).items()}


def pictures(numbers: range) -> dict[str, bytes]:
    """Small sound pictures by name."""
    return {f"{n:03d}.jpg": encoded(texture(n, 72, 64), "JPEG", quality=92) for n in numbers}


def packs(s3: str, scratch: Path) -> dict[str, int]:
    """Everything, in a bucket; what was seen."""
    source = write_folder(scratch / "src", pictures(range(80)))
    curate = ("curate", "--source", source, "--policy", "demo", "-w")
    scorers, _ = configure(load_policy("demo"))

    killed, there = start(*curate, f"{s3}/w"), Workspace(f"{s3}/w")
    while killed.poll() is None and not list(there.path("scores").glob("*/*.parquet")):
        time.sleep(0.2)
    os.killpg(killed.pid, signal.SIGKILL)
    killed.communicate()
    left = stored(there)
    assert any(n.startswith("scores/") for n in left) and not any(n.startswith("snapshots/") for n in left)

    counts = flywheel(*curate, f"{s3}/w")
    undisturbed = flywheel(*curate, scratch / "w")
    assert undisturbed | {"manifest": ""} == counts | {"manifest": ""} and counts["input"] == 80
    assert [len(p.shards) for p in pool.packs(there)] == [16, 4]
    whole = stored(there)
    assert whole == stored(Workspace(scratch / "w")), "not the bytes of an undisturbed run in a folder"
    assert left.items() <= whole.items(), "what was there at the kill was written again"

    write_folder(source, pictures(range(80, 88)))
    grown = flywheel(*curate, f"{s3}/w")
    found = pool.packs(there)
    assert [len(p.shards) for p in found] == [16, 4, 2] and sum(p.rows for p in found) == 88
    names = {score_path(there, scorer, pack.shards[0]) for scorer in scorers.values() for pack in found}
    assert set(there.path("scores").glob("*/*.parquet")) == names
    assert {n: d for n, d in whole.items() if not n.startswith("shards/")}.items() <= stored(there).items()

    (told,) = explain(there, grown["snapshot"], "030.jpg")["rows"]
    assert told["source_uri"].endswith("/030.jpg") and told["scores"]
    policy = load_policy("demo")
    answer = what_if(there, Basis(policy), policy.replace("S1.resolution.min", 70.0))
    assert answer["admitted"]["before"] > 0 == answer["admitted"]["after"]

    erase(there, [told["sample_id"]], by="ada", why="a test")
    assert fsck(there).findings == () and [len(p.shards) for p in pool.packs(there)] == [16, 4, 2]
    assert sum(p.rows for p in pool.packs(there)) == 87
    again = flywheel(*curate, f"{s3}/w")
    assert (again["input"], again["quarantined"]) == (88, 1), "an erased picture came back"
    assert fsck(there).sound
    at_kill = sum(n.startswith("scores/") for n in left)
    return {"files_at_the_kill": len(left), "score_files_at_the_kill": at_kill, "files": len(whole)} | {
        "scorers": len(scorers),
        "score_files": len(names),
        "shards": sum(len(p.shards) for p in found),
    }


def main() -> None:
    """Print what was seen as one JSON line."""
    with faulty_s3.s3_server() as (host, port), tempfile.TemporaryDirectory() as scratch:
        os.environ |= faulty_s3.environment(f"http://{host}:{port}")
        print(json.dumps(packs(faulty_s3.make_bucket(host, port, "packs"), Path(scratch))))


if __name__ == "__main__":
    main()
