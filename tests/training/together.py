"""One of several processes that train together: torchrun starts it with jobs as JSON, one after the other.

The last one is the folder of a small VAE."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import torch

from tests.training.vae.tiny import SMALL, wave_pictures
from training.data.plan import MixSource
from training.distributed import joined
from training.phase import train
from training.recipes import from_dict
from training.vae.training import train_vae

if __name__ == "__main__":
    torch.set_num_threads(1)
    with joined() as world:
        *jobs, vae = json.loads(sys.argv[1])
        train_vae(Path(vae), wave_pictures(), SMALL, world=world)
        for job in jobs:
            if job["start"] and world.first:  # what another run wrote, as far as it got
                shutil.copytree(job["start"], Path(job["out"], Path(job["start"]).name))
            world.wait()
            sources = [MixSource(manifest=Path(job["manifest"]))]
            init = Path(job["init"]) if job.get("init") else None
            train(Path(job["out"]), sources, from_dict(job["recipe"]), seed=5, steps=job["steps"], init=init)
