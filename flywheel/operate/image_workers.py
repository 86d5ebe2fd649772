"""What draws for the image server: one process per GPU, or one on the CPU, and the queue before them."""

from __future__ import annotations

import asyncio
import math
import os
import signal
import threading
import time
import traceback
from collections import deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from flywheel.core.errors import UsageError
from flywheel.core.generator import Generator, Pixels, Undrawn, png
from flywheel.core.local_workers import end_with_parent
from flywheel.core.records import System
from flywheel.core.workspace import Workspace

if TYPE_CHECKING:
    from flywheel.remedies.enhancer import Rewriter

LONGEST_RETRY = 600  # seconds that a client is asked to wait, at most


@dataclass(frozen=True)
class Job:
    """One picture to draw with a system; without a prompt, only its weights are loaded. See `Order` for the fields."""

    system: System
    prompt: str = ""
    seed: int = 0
    size: tuple[int, int] | None = None
    steps: int | None = None
    guidance: float | None = None
    negative: str | None = None
    references: tuple[Pixels, ...] = ()
    mask: Pixels | None = None


@dataclass(frozen=True)
class Picture:
    """A picture as PNG, and the prompt that was drawn if the enhancer rewrote it."""

    png: bytes = b""
    rewritten: str | None = None


class Failed(Exception):
    """There is no picture. status: 400 if another request may have one, 500 or 503 if the server is the cause."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message, status)
        self.message, self.status = message, status


class Full(Exception):
    """The queue is full; `seconds`: after which it may have room."""

    def __init__(self, seconds: int) -> None:
        super().__init__(seconds)
        self.seconds = seconds


# In a worker's process ------------------------------------------------------------------------------------------------
class Artist:
    """Draws with one system of a workspace at a time: another one replaces it, as after a promotion."""

    def __init__(self, root: str) -> None:
        self.workspace = Workspace(Path(root), create=False)
        self._id = ""
        self._opened: tuple[Generator, Rewriter] | None = None

    def draw(self, job: Job) -> Picture:
        """The picture that `flywheel sample -w` draws for the same prompt, seed and settings. Errors: `Failed`."""
        generator, rewrite = self._open(job.system)
        if not job.prompt:
            return Picture()
        try:
            better = rewrite(job.prompt, [png(r) for r in job.references] if job.system.enhancer else ())
        except UsageError as error:
            raise Failed(str(error), 503) from error
        side = job.system.side or getattr(generator, "largest", None)
        size = job.size or ((side, side) if side else None)
        if size is None:
            raise Failed("size: give WIDTHxHEIGHT, because this system has no size of its own", 400)
        try:
            (image,) = generator.draw(
                [better or job.prompt],
                seeds=[job.seed],
                size=size,
                references=[job.references],
                masks=None if job.mask is None else [job.mask],
                negative=job.negative,
                steps=job.steps or job.system.steps,
                guidance=job.system.cfg if job.guidance is None else job.guidance,
            )
        except UsageError as error:
            raise Failed(str(error), 400) from error
        if isinstance(image, Undrawn):
            raise Failed(image.reason, 503 if image.again else 400)
        return Picture(png(image), better)

    def _open(self, system: System) -> tuple[Generator, Rewriter]:
        from flywheel.rounds import systems

        if self._opened is not None and self._id == system.id:
            return self._opened
        self._opened = None  # its memory is needed
        try:
            generator = systems.generator(self.workspace, system)
            for part in ("sampler", "pipeline"):  # weights of built-in kinds are loaded at their first use
                if hasattr(type(generator), part):
                    getattr(generator, part)
            self._opened, self._id = (generator, systems.rewriter(self.workspace, system)), system.id
        except UsageError as error:
            raise Failed(str(error), 500) from error
        return self._opened


def _work(pipe: Connection, root: str, gpu: str | None) -> None:
    """Draw what comes through the pipe until the server ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to every process of a terminal; the server ends this one
    threading.Thread(target=end_with_parent, daemon=True).start()
    if gpu is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = gpu
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # threads that spin while they wait slow down a busy machine
    artist = Artist(root)
    while True:
        try:
            job = pipe.recv()
        except (EOFError, OSError):
            return
        try:
            answer: Picture | Failed = artist.draw(job)
        except Failed as error:
            answer = error
        except Exception as error:  # noqa: BLE001 - this picture fails, the next one may not
            traceback.print_exc()
            answer = Failed(f"drawing failed ({type(error).__name__}: {error}): see the log of the server", 500)
        pipe.send(answer)


# In the server --------------------------------------------------------------------------------------------------------
class Drawer(Protocol):
    """What the queue gives jobs to, one at a time."""

    def draw(self, job: Job) -> Picture:
        """Blocks until the picture is drawn. Errors: `Failed`."""
        ...

    def interrupt(self) -> None:
        """Give up what is being drawn: `draw` raises `Failed`, and the next picture can be drawn."""
        ...

    def close(self) -> None:
        """End at once."""
        ...


class Worker:
    """A process that draws; one that dies is started again, and costs the picture that it was drawing."""

    def __init__(self, root: Path | str, gpu: str | None = None) -> None:
        self._arguments, self._closed = (str(root), gpu), False
        self._start()

    def _start(self) -> None:
        context = get_context("spawn")
        self._pipe, other = context.Pipe()
        self._process = context.Process(target=_work, args=(other, *self._arguments), daemon=True)
        self._process.start()
        other.close()  # now the pipe ends with the process

    def draw(self, job: Job) -> Picture:
        """See `Drawer`."""
        try:
            self._pipe.send(job)
            answer = self._pipe.recv()
        except (EOFError, OSError) as error:
            if self._closed:
                raise Failed("the server is stopping: send it again later", 503) from error
            self._process.join()
            self._start()
            raise Failed(
                "the process that was drawing ended, perhaps for want of memory: send it again", 503
            ) from error
        if isinstance(answer, Failed):
            raise answer
        return answer

    def interrupt(self) -> None:
        """See `Drawer`. The process is started again, and loads the weights again."""
        self._process.kill()

    def close(self) -> None:
        """See `Drawer`."""
        self._closed = True
        self._process.kill()
        self._process.join()


def gpus() -> list[str | None]:
    """A name for CUDA_VISIBLE_DEVICES per GPU that this process may use; one None on a machine without any."""
    import torch

    named = [n for n in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if n]
    count = torch.cuda.device_count()
    return list(named[:count] or map(str, range(count))) or [None]


class Queue:
    """Jobs in the order in which they came, for the workers that are idle; at most `limit` jobs wait."""

    def __init__(self, workers: Sequence[Drawer], *, limit: int) -> None:
        self.workers, self.limit = tuple(workers), limit
        self._idle = list(workers)
        self._running: dict[asyncio.Future[Picture], Drawer] = {}
        self._waiting: deque[tuple[Job, asyncio.Future[Picture]]] = deque()
        self._threads = ThreadPoolExecutor(len(workers))
        self._seconds = 1.0  # of a picture, a moving average

    @property
    def waiting(self) -> int:
        """Jobs that wait for a worker."""
        return len(self._waiting)

    @property
    def drawing(self) -> int:
        """Jobs that are being drawn."""
        return len(self.workers) - len(self._idle)

    def load(self, system: System) -> None:
        """Load the system's weights in every worker. Blocks. Errors: `UsageError`."""
        try:
            list(self._threads.map(lambda worker: worker.draw(Job(system)), self.workers))
        except Failed as error:
            raise UsageError(error.message) from error

    async def draw(self, jobs: Sequence[Job]) -> list[Picture]:
        """All pictures, in order. Errors: `Full`, `Failed`.

        Cancelled jobs leave the queue; what is drawn for them is given up if others wait for its worker.
        """
        if len(self._waiting) + len(jobs) > self.limit + len(self._idle):
            ahead = len(self._waiting) + self.drawing
            seconds = math.ceil(self._seconds * ahead / len(self.workers))
            raise Full(min(max(seconds, 1), LONGEST_RETRY))
        futures: list[asyncio.Future[Picture]] = [asyncio.get_running_loop().create_future() for _ in jobs]
        self._waiting.extend(zip(jobs, futures, strict=True))
        self._give_out()
        self._give_up()
        try:
            return await asyncio.gather(*futures)
        finally:
            for future in futures:
                future.cancel()
            self._waiting = deque(entry for entry in self._waiting if not entry[1].done())
            self._give_up()

    def _give_up(self) -> None:
        """Interrupt workers that draw for nobody while somebody waits."""
        if self._waiting:
            for future in [f for f in self._running if f.done()]:
                self._running.pop(future).interrupt()

    def _give_out(self) -> None:
        while self._idle and self._waiting:
            (job, future), worker = self._waiting.popleft(), self._idle.pop()
            self._running[future] = worker
            running = asyncio.get_running_loop().run_in_executor(self._threads, worker.draw, job)
            running.add_done_callback(partial(self._finished, worker, future, time.monotonic()))

    def _finished(
        self, worker: Drawer, wanted: asyncio.Future[Picture], began: float, done: asyncio.Future[Picture]
    ) -> None:
        self._idle.append(worker)
        self._running.pop(wanted, None)
        self._seconds += 0.2 * (time.monotonic() - began - self._seconds)
        error = done.exception()
        if not wanted.done():  # its client may have gone
            if error is not None:
                wanted.set_exception(error)
            else:
                wanted.set_result(done.result())
        self._give_out()

    def stop(self) -> None:
        """End the workers at once, also those that are drawing: their jobs, and those that wait, fail."""
        for worker in self.workers:
            worker.close()

    def close(self) -> None:
        """Stop, and end the threads."""
        self.stop()
        self._threads.shutdown()
