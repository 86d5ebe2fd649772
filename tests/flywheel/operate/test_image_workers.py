"""The queue before the workers, and a real worker: it draws as `flywheel sample` does, and survives its own death."""

from __future__ import annotations

import asyncio
import multiprocessing
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from flywheel.core.errors import UsageError
from flywheel.core.image import decode
from flywheel.core.records import System
from flywheel.core.workspace import Workspace
from flywheel.operate.image_workers import Artist, Failed, Full, Job, Picture, Queue, Worker, gpus
from flywheel.rounds.sample import promoted_system
from tests.flywheel.cli.command import flywheel
from tests.flywheel.operate.in_service import SIDE, in_service, one_thread


@pytest.fixture(scope="module", autouse=True)
def quiet() -> Iterator[None]:
    with one_thread():
        yield


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    return in_service(tmp_path_factory.mktemp("served") / "w")


class Slow:
    """Draws the number of its prompt, once it is let go."""

    def __init__(self) -> None:
        self.go, self.drawn, self.closed, self.interrupted = threading.Semaphore(0), list[str](), False, 0

    def draw(self, job: Job) -> Picture:
        self.go.acquire()
        self.drawn.append(job.prompt)
        if job.prompt == "bad":
            raise Failed("no", 400)
        return Picture(job.prompt.encode())

    def interrupt(self) -> None:
        self.interrupted += 1
        self.go.release()

    def close(self) -> None:
        self.closed = True
        for _ in range(9):
            self.go.release()


def job(prompt: str) -> Job:
    return Job(System(checkpoint="c"), prompt)


def test_the_queue_is_fair_bounded_and_forgets_those_who_left() -> None:
    async def main() -> None:
        slow = Slow()
        queue = Queue([slow], limit=3)
        first = asyncio.create_task(queue.draw([job("1"), job("2")]))
        left = asyncio.create_task(queue.draw([job("never")]))
        last = asyncio.create_task(queue.draw([job("bad")]))
        await asyncio.sleep(0)
        assert (queue.drawing, queue.waiting) == (1, 3)
        with pytest.raises(Full) as full:
            await queue.draw([job("too many")])
        assert 1 <= full.value.seconds <= 600
        left.cancel()
        await asyncio.gather(left, return_exceptions=True)
        assert queue.waiting == 2
        more = asyncio.create_task(queue.draw([job("3")]))  # the place of who left
        for _ in range(4):
            slow.go.release()
        assert [p.png for p in await first] == [b"1", b"2"]
        with pytest.raises(Failed, match="no"):
            await last
        assert [p.png for p in await more] == [b"3"] and slow.drawn == ["1", "2", "bad", "3"]
        assert (queue.drawing, queue.waiting) == (0, 0)
        queue.close()
        assert slow.closed

    asyncio.run(main())


def test_one_who_leaves_while_it_is_drawn_costs_nobody_else() -> None:
    async def main() -> None:
        slow = Slow()
        queue = Queue([slow], limit=3)
        left = asyncio.create_task(queue.draw([job("left")]))
        await asyncio.sleep(0)
        left.cancel()
        stays = asyncio.create_task(queue.draw([job("stays")]))
        await asyncio.sleep(0)
        assert (queue.drawing, queue.waiting) == (1, 1)  # a picture that was begun is finished
        slow.go.release()
        slow.go.release()
        assert [p.png for p in await stays] == [b"stays"]
        queue.close()

    asyncio.run(main())


@pytest.fixture(scope="module")
def worker(workspace: Workspace) -> Iterator[Worker]:
    made = Worker(workspace.root, gpus()[0])
    yield made
    made.close()


def test_a_worker_draws_what_the_command_draws(worker: Worker, workspace: Workspace, tmp_path: Path) -> None:
    system = promoted_system(workspace)
    drawn = [worker.draw(Job(system, "a red circle", seed=s)).png for s in (3, 4, 3)]
    assert drawn[0] == drawn[2] != drawn[1]
    out = flywheel("sample", "a red circle", "-w", workspace.root, "--seed", 3, "--output", tmp_path)
    (path,) = tmp_path.glob("*-seed3.png")
    ours, commands = (np.asarray(decode(data)).astype(int) for data in (drawn[0], path.read_bytes()))
    assert out.returncode == 0 and ours.shape == (SIDE, SIDE, 3) and np.abs(ours - commands).max() <= 1
    for wrong, sentence in (
        (Job(system, "x", size=(30, 32)), "multiples of 8"),
        (Job(system, "x", mask=_mask()), "mask without"),
    ):
        with pytest.raises(Failed, match=sentence) as raised:
            worker.draw(wrong)
        assert raised.value.status == 400


def _mask() -> np.ndarray:
    return np.full((8, 8), 255, np.uint8)


def test_a_worker_that_dies_costs_its_picture_and_comes_back(worker: Worker, workspace: Workspace) -> None:
    system = promoted_system(workspace)
    (process,) = multiprocessing.active_children()
    process.kill()
    process.join()
    with pytest.raises(Failed, match="ended, perhaps for want of memory") as raised:
        worker.draw(Job(system, "a red circle"))
    assert raised.value.status == 503
    assert worker.draw(Job(system, "a red circle", steps=1)).png.startswith(b"\x89PNG")


def test_each_gpu_has_a_process_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    known = (("", 0, [None]), ("", 2, ["0", "1"]), ("3,5", 2, ["3", "5"]), ("GPU-a", 1, ["GPU-a"]))
    for visible, count, names in known:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
        monkeypatch.setattr("torch.cuda.device_count", lambda count=count: count)
        assert gpus() == names
    script = "import flywheel.operate.image_workers, flywheel.cli.main, sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script]).returncode == 0  # a GPU is chosen before CUDA is there


def test_an_artist_follows_a_promotion_and_rewrites_as_the_system_does(workspace: Workspace) -> None:
    artist, system = Artist(str(workspace.root)), promoted_system(workspace)
    prompt = "pls draw me 2 circles"
    plain = artist.draw(Job(system, prompt))
    rules = replace(system, enhancer={"backend": "rules", "model": "", "key_variable": "", "sha256": ""})
    better = artist.draw(Job(rules, prompt))
    assert plain.rewritten is None and better.rewritten == "two circles" and plain.png != better.png
    assert artist.draw(Job(system, "two circles")).png == better.png
    with pytest.raises(Failed, match="not a checkpoint") as raised:
        artist.draw(Job(replace(system, checkpoint="none", weights="0"), prompt))
    assert raised.value.status == 500
    assert artist.draw(Job(system, prompt)) == plain


def test_weights_that_do_not_load_are_one_sentence(worker: Worker, workspace: Workspace) -> None:
    queue = Queue([worker], limit=1)
    with pytest.raises(UsageError, match="not a checkpoint"):
        queue.load(System(checkpoint="none", weights="0"))
    queue.load(promoted_system(workspace))


def test_what_is_drawn_for_nobody_is_given_up_once_somebody_waits() -> None:
    async def scene(slow: Slow) -> list[int]:
        queue, seen = Queue([slow], limit=4), []
        left = asyncio.ensure_future(queue.draw([job("left")]))
        await asyncio.sleep(0.05)
        left.cancel()
        await asyncio.gather(left, return_exceptions=True)
        seen.append(slow.interrupted)  # nobody waits: it may go on
        waits = [asyncio.ensure_future(queue.draw([job(name)])) for name in ("next", "last")]
        await asyncio.sleep(0.05)
        seen.append(slow.interrupted)
        slow.go.release(2)
        assert [(await w)[0].png for w in waits] == [b"next", b"last"]
        queue.close()
        return [*seen, slow.interrupted]

    assert asyncio.run(scene(Slow())) == [0, 1, 1]


def test_an_interrupted_worker_draws_the_next_picture(workspace: Workspace) -> None:
    worker = Worker(workspace.root)
    try:
        system = promoted_system(workspace)
        first = worker.draw(Job(system, prompt="a red disc", seed=1))
        endless = threading.Thread(target=lambda: pytest.raises(Failed, worker.draw, Job(system, "a", steps=100_000)))
        endless.start()
        threading.Event().wait(0.5)
        worker.interrupt()
        endless.join(30)
        assert not endless.is_alive() and worker.draw(Job(system, prompt="a red disc", seed=1)) == first
    finally:
        worker.close()
