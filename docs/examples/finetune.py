"""Fine-tune the UNet of a diffusers pipeline (Stable Diffusion and its like) on a folder of images.

python finetune.py --data DIR --model FOLDER_OR_TAG --output DIR --steps 500 --seed 0

DIR is what `trainer.data = "images"` exports: pictures, and `metadata.jsonl` with `file_name` and `text`. It saves
its state every `--save-every` steps; started again with the same arguments, it goes on from there. At the end it leaves
the whole pipeline in the output folder.
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path

import numpy as np
import torch
from diffusers import DDPMScheduler, DiffusionPipeline
from PIL import Image


def read(folder: Path, side: int) -> tuple[list[str], torch.Tensor]:
    """Captions and pictures [N, 3, side, side] in [-1, 1] of the text-to-image rows."""
    rows = [json.loads(line) for line in (folder / "metadata.jsonl").read_text().splitlines()]
    rows = [row for row in rows if row["task"] == "t2i"]
    pictures = [np.asarray(Image.open(folder / r["file_name"]).convert("RGB").resize((side, side))) for r in rows]
    unit = torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).float() / 127.5 - 1
    return [row["text"] for row in rows], unit


def encode(pipeline: DiffusionPipeline, captions: list[str]) -> torch.Tensor:
    """Text states [N, L, D]."""
    tokenizer = pipeline.tokenizer
    ids = tokenizer(
        captions, padding="max_length", max_length=tokenizer.model_max_length, truncation=True, return_tensors="pt"
    )
    return pipeline.text_encoder(ids.input_ids.to(pipeline.device))[0]


def main() -> None:
    """Train, saving state on the way, then save the pipeline."""
    parser = argparse.ArgumentParser()
    for name in ("data", "output"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--model", required=True)
    for name, default in (("steps", 500), ("seed", 0), ("batch", 16), ("save-every", 50)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--learning-rate", type=float, default=1e-4)
    args = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    pipeline = DiffusionPipeline.from_pretrained(args.model).to(device)
    side = pipeline.unet.config.sample_size * pipeline.vae_scale_factor
    scheduler = DDPMScheduler.from_config(pipeline.scheduler.config)
    captions, pictures = read(args.data, side)
    with torch.no_grad():
        latents = torch.cat([pipeline.vae.encode(p.to(device)).latent_dist.mode() for p in pictures.split(16)])
        latents = latents * pipeline.vae.config.scaling_factor
        texts, null = torch.cat([encode(pipeline, [c]) for c in captions]), encode(pipeline, [""])
    optimizer = torch.optim.AdamW(pipeline.unet.parameters(), lr=args.learning_rate, weight_decay=0.0)
    state, done = args.output / "state.pt", 0
    if state.exists():
        saved = torch.load(state, map_location=device)
        pipeline.unet.load_state_dict(saved["unet"])
        optimizer.load_state_dict(saved["optimizer"])
        done = saved["done"]
        print(f"resumed at step {done}", flush=True)
    for step in range(done, args.steps):
        random = torch.Generator().manual_seed(args.seed * 1_000_003 + step)  # each step draws the same, resumed or not
        rows = torch.randint(len(latents), (args.batch,), generator=random)
        noise = torch.randn(latents[rows].shape, generator=random).to(device)
        times = torch.randint(scheduler.config.num_train_timesteps, (args.batch,), generator=random).to(device)
        dropped = (torch.rand(args.batch, generator=random) < 0.1).to(device)  # for classifier-free guidance
        states = torch.where(dropped[:, None, None], null, texts[rows])
        predicted = pipeline.unet(scheduler.add_noise(latents[rows], noise, times), times, states).sample
        target = latents[rows] if scheduler.config.prediction_type == "sample" else noise
        loss = torch.nn.functional.mse_loss(predicted, target)
        optimizer.zero_grad()
        loss.backward()
        for group in optimizer.param_groups:  # to zero at the end, where single batches would else decide
            group["lr"] = args.learning_rate * (1 - step / args.steps)
        optimizer.step()
        if (step + 1) % args.save_every == 0:
            print(f"step {step + 1}/{args.steps} loss {loss.item():.4f}", flush=True)
            values = {"unet": pipeline.unet.state_dict(), "optimizer": optimizer.state_dict(), "done": step + 1}
            torch.save(values, state.with_suffix(".tmp"))
            os.replace(state.with_suffix(".tmp"), state)
    pipeline.save_pretrained(args.output)
    state.unlink(missing_ok=True)


if __name__ == "__main__":
    main()
