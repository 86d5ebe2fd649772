"""One of several processes that train: started by torchrun with a folder, a manifest and a recipe as JSON."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch

from training.data.plan import Source
from training.recipes import from_dict
from training.trainer import train

if __name__ == "__main__":
    torch.set_num_threads(1)
    out, manifest, steps, recipe = sys.argv[1:]
    train(Path(out), [Source(manifest=Path(manifest))], from_dict(json.loads(recipe)), seed=5, steps=int(steps))
