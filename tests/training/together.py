"""One of several processes that train together: torchrun starts it with jobs as JSON.

phases: arguments of training phases, one after the other; vae: folder of a small VAE; loops: folder of runs by reward
and of a distillation, from the checkpoint `start`."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.training.dmd import tiny as dmd
from tests.training.rl import tiny as rl
from tests.training.rl_parts import Redness, prompts
from tests.training.vae.tiny import SMALL, wave_pictures
from training.data.plan import MixSource
from training.distributed import World, joined
from training.dmd.trainer import train as distil
from training.phase import train
from training.recipes import from_dict
from training.rewards import RewardsLost
from training.rl.trainer import NothingToLearn
from training.rl.trainer import train as reinforce
from training.vae.training import train_vae

REWARDED = replace(rl.TINY, steps=2, inner_steps=1)
DISTILLED = replace(dmd.TINY, learning_rate=1e-4, fake_learning_rate=1e-4)  # Adam enlarges what rounding differs in


def main(world: World, jobs: Mapping[str, Any]) -> None:
    train_vae(Path(jobs["vae"]), wave_pictures(), SMALL, world=world)
    train_loops(world, Path(jobs["loops"]), Path(jobs["start"]))
    for job in jobs["phases"]:
        if job["start"] and world.first:  # what another run wrote, as far as it got
            shutil.copytree(job["start"], Path(job["out"], Path(job["start"]).name))
        world.wait()
        sources = [MixSource(manifest=Path(job["manifest"]))]
        init = Path(job["init"]) if job.get("init") else None
        train(Path(job["out"]), sources, from_dict(job["recipe"]), seed=5, steps=job["steps"], init=init)


def train_loops(world: World, folder: Path, start: Path) -> None:
    """Runs by reward: one whose rewards one process loses in its second step, so that it is resumed; a flat one.

    Then a distillation.
    """
    (own := folder / f"cards-{world.rank}").mkdir(parents=True)
    cards, held_out = prompts(own, 8), prompts(own, 3, first=20)
    dying = Redness(dies_at=4 if world.rank else 10**9)
    with pytest.raises(RewardsLost, match="nobody scores: 1 of 2 steps are kept in"):
        reinforce(folder / "rl", cards, held_out, REWARDED, dying, init=start, seed=3)
    reinforce(folder / "rl", cards, held_out, REWARDED, Redness(), init=start, seed=3)
    flat = replace(REWARDED, min_range=2.0, flat_steps=1, held_out=0)
    with pytest.raises(NothingToLearn, match="in 1 steps in a row"):
        reinforce(folder / "flat", cards, held_out, flat, Redness(), init=start, seed=3)
    distil(folder / "dmd", cards, DISTILLED, init=start, seed=3)


if __name__ == "__main__":
    torch.set_num_threads(1)
    with joined() as joint:
        main(joint, json.loads(sys.argv[1]))
