"""Does the tiny preset learn? One batch by heart, and the demo's world: unseen shape × colour × place, by scorers.

python benchmarks/learning.py [--steps 1100] [--seeds 3] [--folder DIR]

World: every picture that the demo's source folder holds, planted defects left out, sharded without curation. Test: the
suite's held-out single cards, a combination that no picture shows, `--seeds` images of each; an image counts when
`curation.verify.checks` passes its shape, its colour and its place. CPU minutes are of this process, training alone:
encoder, autoencoder, every step and checkpoint. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import io
import json
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # this folder holds files named like packages

from curation.shards.fit import fit
from curation.verify.checks import passed, verify
from flywheel.core.files import file_digest, read_json, write_json, write_parquet
from flywheel.core.schema import ROW_GROUP, SHARD
from flywheel.core.scorer import Item
from flywheel.demo.suite import questions
from flywheel.demo.world import write_world
from training.batch import batch_loss
from training.data.loader import Loader
from training.data.plan import DataPlan, MixSource
from training.initial import build_model
from training.models.encoders import load_condition_encoder
from training.phase import prepare_with, texts_with, train
from training.recipes import Recipe, recipe
from training.sampling import sample
from training.vae.autoencoding import fit_autoencoder

SIDE = 64
WORLD = recipe(
    "tiny",
    batch={SIDE: 32},
    resolution={SIDE: SIDE},
    channels=16,
    t2i_share=0.9,
    final_learning_rate=0.05,
    warmup=50,
    checkpoint_every=10_000,
    validate_every=10_000,
    stages=("S1",),
)


def world_shards(folder: Path) -> Path:
    """The demo's world as shards of one bucket, without its planted defects; returns the manifest."""
    world = write_world(folder / "world")
    defects = {d["file"] for d in read_json(world.planted)["defects"]}
    rows: dict[int, list[dict[str, Any]]] = {}
    for line in world.captions.read_text().splitlines():
        row = json.loads(line)
        if row["file"] in defects:
            continue
        references = row.get("references", [])
        shown = [fit((world.folder / name).read_bytes(), SIDE, SIDE) for name in (row["file"], *references)]
        rows.setdefault(len(references), []).append(
            {
                "sample_id": row["file"],
                "task": "ti2i" if references else "t2i",
                "caption": row["caption"],
                "image": shown[0],
                "references": shown[1:],
                "slice": "base",
            }
        )
    files = []
    for count, part in sorted(rows.items()):
        path = folder / f"{count}.parquet"
        write_parquet(path, pa.Table.from_pylist(part, schema=SHARD), row_group_size=ROW_GROUP)
        layout = {"bucket": SIDE, "width": SIDE, "height": SIDE, "task": part[0]["task"], "references": count}
        measured = {"sha256": file_digest(path), "bytes": path.stat().st_size, "rows": len(part)}
        files.append({"path": path.name, "stages": ["S1"], **layout, **measured})
    write_json(folder / "manifest.json", {"snapshot": "benchmark", "files": files})
    return folder / "manifest.json"


def judge(checkpoint: Path, seeds: Sequence[int]) -> tuple[int, Counter[str]]:
    """(images, how many of them passed by capability and in "all") of the held-out single cards."""
    suite = [q for name, q in questions() if name.startswith("single")]
    right: Counter[str] = Counter()
    for seed in seeds:
        images = sample(checkpoint, [q.prompt for q in suite], size=(SIDE, SIDE), steps=20, cfg=3.0, seed=seed)
        items = [Item(image=_png(x), caption=q.prompt) for x, q in zip(images, suite, strict=True)]
        for outcomes in verify(items, [q.checks for q in suite]):
            right.update(o.capability for o in outcomes if o.passed)
            right["all"] += passed(outcomes)
    return len(suite) * len(seeds), right


def learn(folder: Path, manifest: Path, steps: int) -> tuple[Path, float]:
    """(checkpoint, CPU minutes) of a run on the world."""
    clock = time.process_time()
    checkpoint = train(folder, [MixSource(manifest=manifest)], WORLD, steps=steps)
    return checkpoint.path, (time.process_time() - clock) / 60


def overfit(manifest: Path, steps: int = 300) -> float:
    """Loss on one batch after `steps` on that batch alone (noise and times fixed), as a share of its first value."""
    recipe: Recipe = WORLD.change(batch={SIDE: 4})
    plan = DataPlan([MixSource(manifest=manifest)], batch=recipe.batch, t2i_share=1.0, seed=0)
    encoder = load_condition_encoder()
    loader = Loader(
        plan,
        prepare_with(fit_autoencoder(plan, recipe)),
        texts=texts_with(encoder),
        encode=encoder.encode,
        resolution=recipe.resolution,
    )
    (micro,) = loader.batch(0)
    model, null, losses = build_model(recipe, encoder, seed=0), encoder.encode([""])[0], []
    optimizer = torch.optim.Adam(model.parameters(), lr=recipe.stages[0].learning_rate)
    for _ in range(steps):
        loss = batch_loss(model, micro, null, recipe, seed=0).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses[-1] / losses[0]


def _png(image: Any) -> bytes:
    out = io.BytesIO()
    Image.fromarray(image).save(out, "PNG")
    return out.getvalue()


def main() -> None:
    """Print the table, then the figures as one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=1100, help="training steps on the world")
    parser.add_argument("--seeds", type=int, default=3, help="images of each held-out prompt")
    parser.add_argument("--folder", type=Path, help="new folder to keep (default: a temporary one)")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as scratch:
        folder = arguments.folder or Path(scratch)
        manifest = world_shards(folder)
        loss = overfit(manifest)
        checkpoint, minutes = learn(folder / "run", manifest, arguments.steps)
        images, right = judge(checkpoint, range(arguments.seeds))
    print(f"one batch by heart: {loss:.2g} of its first loss")
    print(f"{'held out':<10}{'right':>8}   of {images} images")
    for name in ("object", "color", "position", "all"):
        print(f"{name:<10}{right[name] / images:>8.1%}")
    figures = {
        "overfit_loss": float(f"{loss:.3g}"),
        "learning_accuracy": round(right["all"] / images, 4),
        "learning_cpu_min": round(minutes, 2),
        "steps": arguments.steps,
        **{f"learning_{name}": round(right[name] / images, 4) for name in ("object", "color", "position")},
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
