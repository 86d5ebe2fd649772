"""Prompts and a cheap reward, computed from the pictures, for the tests of reinforcement learning and distillation."""

from __future__ import annotations

import multiprocessing
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import uvicorn
from fastapi import FastAPI

from flywheel.core.image import decode
from flywheel.signals.suite import Prompt
from tests.training.snapshots import COLORS, disc, png
from tests.training.tiny_models import randomised
from training import saving
from training.checkpoint import Checkpoint
from training.rewards import Request, RewardsLost, Scores


def prompts(folder: Path, count: int, *, first: int = 0, edits: bool = True) -> list[Prompt]:
    """Cards and, every other one, edits of a card whose picture lies in `folder`."""
    out, names = [], list(COLORS)
    for i in range(first, first + count):
        color, edit = names[i % 3], edits and i % 2 == 1
        check = {"verifier": "color", "capability": "editing" if edit else "color", "color": color}
        references = ()
        if edit:
            references = (folder / f"{i}.png",)
            references[0].write_bytes(png(disc(names[(i + 1) % 3], "left", (64, 64))))
        text = f"make disc {i} {color}" if edit else f"a {color} disc at the left, number {i}"
        out.append(Prompt(f"p{i}", text, "ti2i" if edit else "t2i", references, (check,)))
    return out


@dataclass
class Redness:
    """`red`: how red a picture is, `dark`: how dark. Lost from call number `dies_at` on."""

    names: tuple[str, ...] = ("red", "dark")
    workers: int = 2
    dies_at: int = 10**9
    calls: int = 0

    def score(self, requests: Sequence[Request]) -> list[Scores]:
        self.calls += 1
        if self.calls >= self.dies_at:
            raise RewardsLost("nobody scores")
        pixels = [np.asarray(decode(r.item.image), np.float64) / 255 for r in requests]
        return [{"red": float(p[..., 0].mean() - p[..., 1:].mean()), "dark": float(1 - p.mean())} for p in pixels]


@contextmanager
def serving(app: FastAPI) -> Iterator[str]:
    """The URL of a real server on a free port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = uvicorn.Server(uvicorn.Config(app, port=port, log_level="error"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join()


def killed_at(step: int, train: Callable[..., object]) -> int:
    """Run `train(progress=…)` in a child process that kills itself after a step; its exit code.

    The checkpoint before that step is written by then.
    """

    def child() -> None:
        def die(done: int, steps: int, line: object) -> None:
            if done == step:
                for writer in (t for t in threading.enumerate() if t.name == "checkpoint"):
                    writer.join()
                os.kill(os.getpid(), signal.SIGKILL)

        train(progress=die)

    process = multiprocessing.get_context("fork").Process(target=child)
    process.start()
    process.join()
    return process.exitcode


def written_late(monkeypatch: pytest.MonkeyPatch, module: str, name: str = "write") -> Callable[..., None]:
    """Let a loop's writer of intermediate checkpoints begin only when a later step is done; its `progress`."""
    original, taken, later = getattr(import_module(module), name), [0], threading.Condition()

    def late(path: Path, *arguments: object) -> Checkpoint:
        if path.name.startswith("step-"):
            with later:
                assert later.wait_for(lambda: taken[0] > int(path.name.removeprefix("step-")), timeout=60)
        return original(path, *arguments)

    def progress(done: int, steps: int, line: object) -> None:
        with later:
            taken[0] = done
            later.notify_all()

    monkeypatch.setattr(f"{module}.{name}", late)
    return progress


def random_start(folder: Path, like: Checkpoint) -> Checkpoint:
    """A checkpoint whose every weight matters: after a few training steps the text hardly moves the picture yet."""
    model = randomised(like.model(), std=0.05)
    weights = {name: p.detach() for name, p in model.named_parameters()}
    return saving.write(folder / "start", {"model": weights, "ema": weights}, like.autoencoder(), like.config)
