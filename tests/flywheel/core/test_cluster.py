"""Two nodes of Ray on this machine, one killed in the middle of curation, one in the middle of training."""

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import ExitStack, suppress
from pathlib import Path

import numpy as np
import psutil
import pytest
import ray
from PIL import Image, ImageDraw

from flywheel.core import cluster as module
from flywheel.core.cluster import Needs, _options, cluster, run_all

ROOT = Path(__file__).resolve().parents[3]
PICTURES, BROKEN = 96, 2

DRIVER = """
import json, os, sys, threading, time
from pathlib import Path
import psutil, ray
from ray.cluster_utils import Cluster

folder = Path(sys.argv[1])
os.environ.pop("PYTHONPATH")  # nodes do not know where this program's code is
head = {"num_cpus": 0, "object_store_memory": 80 << 20, "include_dashboard": False}
nodes = Cluster(initialize_head=True, head_node_args=head)
node = lambda: nodes.add_node(num_cpus=1, object_store_memory=80 << 20)
two = [node(), node()]
os.environ["RAY_ADDRESS"] = nodes.address

import curation.sources.ingest
from flywheel.core.cluster import cluster
from curation.run import curate
from curation.policy.reader import load_policy
from flywheel.core.workspace import Workspace
from training.ray_train import train_on_ray
from training.recipes import recipe
from training.worker import TrainingRun

def kill_when(reached, victim):
    def watch():
        while not reached():
            time.sleep(0.05)
        node_to_kill = victim()
        out["killed"] = out.get("killed", 0) + 1
        nodes.remove_node(node_to_kill, allow_graceful=False)
    threading.Thread(target=watch, daemon=True).start()

def hosts_training():
    for n in two:
        raylet = psutil.Process(n.all_processes["raylet"][0].process.pid)
        if any("TrainWorker" in " ".join(p.cmdline()) for p in raylet.children(recursive=True)):
            return n

out = {}
workspace = Workspace(folder / "w")
curation.sources.ingest.SHARD_ROWS = 8
curation.sources.ingest.ingest(workspace, folder / "source", folder / "source" / "captions.jsonl")
with cluster():
    out["code"] = ray.get(ray.remote(lambda: __import__("curation").__file__).remote())
    kill_when(lambda: any(workspace.root.glob("scores/*/*.parquet")), lambda: two[1])
    curated = curate(workspace, load_policy("demo"))
    out |= {k: getattr(curated, k) for k in ("input", "admitted", "dropped", "quarantined")}
    two[1] = node()
    steps = 60
    run = TrainingRun(
        out_dir=str(folder / "run"),
        sources=[{"manifest": curated.manifest}],
        recipe=recipe("tiny").change(
            batch={64: 4}, resolution={64: 64}, checkpoint_every=10, validate_every=30
        ).to_dict(),
        steps=steps,
        seed=0,
    )
    kill_when(lambda: any((folder / "run").glob("step-*")), hosts_training)
    out["step"] = train_on_ray(run, workers=1).step
lines = [json.loads(line) for line in (folder / "run" / "metrics.jsonl").read_text().splitlines()]
out["steps"] = [line["step"] for line in lines]
nodes.shutdown()
print(json.dumps(out))
"""


def test_a_node_may_die_in_curation_and_in_training(tmp_path: Path):
    source = tmp_path / "source"
    source.mkdir()
    rng, lines = np.random.default_rng(0), []
    for n in range(PICTURES):
        image = Image.fromarray(rng.integers(90, 166, (96, 96, 3), dtype=np.uint8))
        ImageDraw.Draw(image).ellipse([n % 7 * 4, n // 7 * 3, 40 + n % 7 * 4, 40 + n // 7 * 3], fill=(n, 200 - n, 250))
        image.save(source / f"{n:03d}.png")
        lines.append({"file": f"{n:03d}.png", "caption": f"a disc of the kind number {n} on grey noise"})
    for n in range(BROKEN):
        (source / f"broken-{n}.png").write_bytes(b"no picture")
    (source / "captions.jsonl").write_text("".join(json.dumps(x) + "\n" for x in lines))
    environment = os.environ | {"PYTHONPATH": str(ROOT), "RAY_TMPDIR": os.environ.get("RAY_TMPDIR", "/tmp")}
    command = [sys.executable, "-c", DRIVER, str(tmp_path)]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-4000:]
    out = json.loads(done.stdout.splitlines()[-1])
    assert "runtime_resources" in out["code"] and out["killed"] == 2
    assert out["input"] == PICTURES + BROKEN == out["admitted"] + out["dropped"] + out["quarantined"]
    assert out["quarantined"] == BROKEN
    assert out["step"] == 60 and sorted(set(out["steps"])) == list(range(1, 61))


def test_a_worker_killed_before_it_registers_costs_nothing():
    program = """
from flywheel.core.cluster import cluster, run_all
with cluster(2):
    assert sorted(result for _, result in run_all(lambda x: x + 1, [(n,) for n in range(4)])) == [1, 2, 3, 4]
"""
    with subprocess.Popen([sys.executable, "-c", program], cwd=ROOT, start_new_session=True) as driver:
        killed = False
        try:
            while driver.poll() is None and not killed:
                for p in psutil.Process(driver.pid).children(recursive=True):
                    with suppress(psutil.Error):
                        begun = p.parent().name() == "raylet" != p.name()  # itself, until its program begins
                        if begun and "default_worker.py" in " ".join(p.cmdline()):
                            p.kill()
                            killed = True
                            break
                time.sleep(0.01)
            assert driver.wait(180) == 0 and killed
        finally:
            if driver.poll() is None:
                os.killpg(driver.pid, signal.SIGKILL)


def test_a_cluster_of_another_version_is_one_sentence():
    program = """
import os, ray
from ray.cluster_utils import Cluster
from flywheel.core.cluster import cluster
from flywheel.core.errors import UsageError
head = {"num_cpus": 0, "object_store_memory": 80 << 20, "include_dashboard": False}
nodes = Cluster(initialize_head=True, head_node_args=head)
os.environ["RAY_ADDRESS"], here = nodes.address, ray.__version__
ray.__version__ = "2.1.0"  # what this program says it is
try:
    with cluster():
        raise AssertionError("this must not run")
except UsageError as error:
    print(error)
    assert here in str(error) and "2.1.0" in str(error)
ray.__version__ = here
nodes.shutdown()
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr[-4000:]
    assert "Version mismatch" in done.stdout and done.stdout.count("\n") == 1 and "Traceback" not in done.stderr


def test_a_cluster_whose_head_is_killed_is_one_sentence():
    program = """
import os, time
from ray.cluster_utils import Cluster
import flywheel.core.cluster as c
from flywheel.core.errors import UsageError
c.ray_head.ASK_SECONDS = 0.5
small = {"object_store_memory": 80 << 20}
nodes = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False, **small})
nodes.add_node(num_cpus=1, **small)
os.environ["RAY_ADDRESS"] = nodes.address
try:
    with c.cluster():
        for n, _ in c.run_all(lambda n: time.sleep(0.2), [(n,) for n in range(400)]):
            if n == 3:
                for processes in nodes.head_node.all_processes.values():
                    for process in processes:
                        process.process.kill()
    raise AssertionError("this must not end well")
except UsageError as error:
    print(error)
nodes.shutdown()
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr[-4000:]
    assert "Ray was lost" in done.stdout and done.stdout.count("\n") == 1, done.stdout


@pytest.mark.skipif(os.geteuid() != 0, reason="needs the right to mount")
def test_a_small_shared_memory_and_results_larger_than_the_object_store():
    program = """
import numpy as np
from flywheel.core.cluster import _OBJECT_STORE, cluster, run_all
count = _OBJECT_STORE // (60 << 20) + 2
with cluster(2, ray_only=True):
    kept = dict(run_all(lambda n: np.full(60 << 20, n, np.uint8), [(n,) for n in range(count)]))
assert {n: int(kept[n][-1]) for n in range(count)} == {n: n for n in range(count)}
"""
    mount = 'mount -t tmpfs -o size=8m tmpfs /dev/shm && exec "$@"'
    command = ["unshare", "--mount", "sh", "-c", mount, "sh", sys.executable, "-c", program]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=240)
    if "unshare" in done.stderr:
        pytest.skip(f"no mounts here: {done.stderr}")
    assert done.returncode == 0, done.stderr[-4000:]


def test_a_ray_that_starts_too_slowly_is_tried_again_and_leaves_nothing_behind():
    program = """
import psutil, ray
from flywheel.core.cluster import cluster, run_all
start, tries = ray.init, []
def slow(**options):
    start(**options)
    tries.append(options)
    if len(tries) == 1:
        raise Exception("The current node timed out during startup.")
ray.init = slow
with cluster(1):
    raylets = [p for p in psutil.Process().children(recursive=True) if p.name() == "raylet"]
    assert len(raylets) == 1 and list(run_all(abs, [(-1,)])) == [(0, 1)]
assert len(tries) == 2
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr[-4000:]
    assert "Ray did not start, trying again" in done.stderr


def test_local_processes_take_over_from_a_ray_that_never_starts_where_no_cluster_was_named():
    program = """
import os, sys, ray
from flywheel.core.cluster import cluster, run_all
from flywheel.core.errors import UsageError
def never(**options):
    raise Exception("The current node timed out during startup.")
if __name__ == "__main__":
    ray.init = never
    with cluster(2):
        with cluster(2):
            assert sorted(run_all(abs, [(-1,), (-2,)])) == [(0, 1), (1, 2)]
    for named in (False, True):
        if named:
            os.environ["RAY_ADDRESS"] = "127.0.0.1:1"
        try:
            with cluster(2, ray_only=not named):
                raise AssertionError("this must not run")
        except UsageError as error:
            assert "Ray did not start" in str(error)
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr[-4000:]
    assert "2 local processes do its work" in done.stderr


def test_a_task_never_asks_for_more_than_the_largest_node_has():
    nodes = [{"CPU": 4.0, "memory": 1000.0}, {"CPU": 2.0, "GPU": 1.0, "memory": 500.0}]
    assert _options(Needs(), nodes) == {"num_cpus": 1.0, "num_gpus": 0.0}
    assert _options(Needs(8, 2, 800), nodes) == {"num_cpus": 4.0, "num_gpus": 1.0, "memory": 800}
    assert _options(Needs(0.5, 0.25, 2000), nodes[:1]) == {"num_cpus": 0.5, "num_gpus": 0.0, "memory": 1000}


def test_few_calls_are_made_by_local_processes(monkeypatch):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(ray, "is_initialized", lambda: False)  # other tests of this process may have started it
    with cluster(2, few=True):
        assert module._local is not None
        assert sorted(run_all(divmod, [(7, 2), (9, 5)])) == [(0, (3, 1)), (1, (1, 4))]


def test_local_processes_stay_until_their_last_user_is_done(monkeypatch):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    with ExitStack() as first:
        first.enter_context(cluster(1, few=True))
        with cluster(1, few=True):
            with pytest.raises(ValueError, match="mine"), first:  # another thread's work fails
                raise ValueError("mine")
            assert list(run_all(abs, [(-1,)])) == [(0, 1)]
        assert module._local is None


@pytest.mark.parametrize("daemonic", [True, False], ids=["a daemonic process", "GPUs"])
def test_few_calls_are_made_by_ray_where_processes_may_start_none_or_share_gpus(monkeypatch, daemonic: bool):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(module, "_started", lambda options, may_fail: options["num_cpus"] / 0)
    monkeypatch.setitem(module.current_process()._config, "daemon", daemonic)
    monkeypatch.setattr(module, "_has_gpus", lambda: not daemonic)
    with pytest.raises(ZeroDivisionError), cluster(1, few=True):
        pass


AFTER_RAY = """
import os, signal
from flywheel.core.cluster import cluster
signal.signal(signal.SIGTERM, lambda signum, frame: print("handled", flush=True))
with cluster(1, ray_only=True):
    pass
os.kill(os.getpid(), signal.SIGTERM)
"""


@pytest.mark.slow
def test_sigterm_is_handled_after_ray_as_before_it() -> None:
    """Ray's end leaves the default handler below Python's: a later SIGTERM would kill the command at once."""
    done = subprocess.run([sys.executable, "-c", AFTER_RAY], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 and "handled" in done.stdout, done.stderr[-500:]
