"""The checkpoint that the quick demo starts from: a model of the demo's world that hardly writes words or counts yet.

It ships with the package. To make it again (twenty minutes on a busy machine): `python -m flywheel.demo.start FOLDER`.
Training is the same from run to run, but not to the last bit on another processor: the hash tells a damaged file.
"""

from __future__ import annotations

import sys
from pathlib import Path

from flywheel.core.errors import UsageError
from flywheel.core.files import file_digest
from flywheel.core.scratch import Scratch

FOLDER = Path(__file__).parent / "checkpoint"
PRESET = Path(__file__).with_name("start.toml")
SHA256 = "713e9f07a588d8f578e587880c857d0ea4f27b61dfa296896826fd6bb578b436"
SEED = 0  # of the world that it was trained on: only this world's held-out prompts are new to it


def checkpoint(*, seed: int) -> Path | None:
    """Folder of the checkpoint; None for a world of another seed, whose held-out prompts it may have seen.

    Errors: `UsageError` if its weights are missing or damaged.
    """
    if seed != SEED:
        return None
    weights = FOLDER / "ema.safetensors"
    if not weights.is_file() or file_digest(weights) != SHA256:
        raise UsageError(f"{weights} is missing or damaged: install the package again")
    return FOLDER


def make(folder: Path) -> Path:
    """Train two rounds by `start.toml` and write what they leave to an empty folder; returns the folder.

    Only what is needed to draw and to train on is kept: EMA weights, autoencoder and configuration.
    """
    from flywheel.demo.world import write_world
    from flywheel.rounds.job import Job
    from flywheel.rounds.run import run
    from training.checkpoint import Checkpoint
    from training.saving import write

    with Scratch() as scratch:
        source = scratch / "source"
        write_world(source, seed=SEED, size="full")
        job = Job(str(scratch / "w"), str(source), preset=str(PRESET), seed=SEED, rounds=2)
        trained = Checkpoint(Path(job.workspace) / run(job).rounds[1].system["checkpoint"])
        config = {k: v for k, v in trained.config.items() if k not in ("format", "files")}
        write(folder, {"ema": trained.tensors("ema")}, trained.autoencoder(), config)
    return folder


if __name__ == "__main__":
    made = make(Path(sys.argv[1]))
    print(f"{made}: ema.safetensors has the SHA-256 {file_digest(made / 'ema.safetensors')}")
