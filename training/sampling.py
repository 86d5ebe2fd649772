"""Images from a checkpoint: flow-matching Euler with guidance and a prefix K/V cache, batched by layout."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from flywheel.workspace import UsageError, replacing
from training.checkpoint import Checkpoint
from training.data.loader import to_uint8, to_unit
from training.models.condition import load_condition_encoder, pad, padded_length
from training.models.mmdit import MMDiT, Prefix
from training.randomness import generator
from training.trainer import as_tokens, sequence_layout

MAX_BATCH = 32


def sample(
    checkpoint: Checkpoint | Path,
    prompts: Sequence[str],
    references: Sequence[Sequence[np.ndarray]] | None = None,
    *,
    size: tuple[int, int] = (64, 64),
    steps: int = 20,
    cfg: float = 3.0,
    seed: int = 0,
) -> np.ndarray:
    """uint8 images [N, H, W, 3], one per prompt; `size` is (height, width), `references` uint8 [h, w, 3] per prompt.

    An image is a function of checkpoint, prompt, references, size, steps, cfg and seed; not of its batch mates.
    """
    return Sampler(checkpoint).sample(prompts, references, size=size, steps=steps, cfg=cfg, seed=seed)


class Sampler:
    """A checkpoint loaded once, for several calls."""

    def __init__(self, checkpoint: Checkpoint | Path) -> None:
        self.checkpoint = checkpoint if isinstance(checkpoint, Checkpoint) else Checkpoint(Path(checkpoint))
        self.model = self.checkpoint.model("ema").eval()
        self.autoencoder = self.checkpoint.autoencoder()
        condition = self.checkpoint.config["condition"]
        self.encoder = load_condition_encoder(condition["encoder"])
        self.text_tokens = condition["tokens"]

    @torch.no_grad()  # not inference_mode: position tables are cached, and training may use them next
    def sample(
        self,
        prompts: Sequence[str],
        references: Sequence[Sequence[np.ndarray]] | None = None,
        *,
        size: tuple[int, int] = (64, 64),
        steps: int = 20,
        cfg: float = 3.0,
        seed: int = 0,
    ) -> np.ndarray:
        """See `sample`. Errors: `UsageError` for sizes that the autoencoder cannot make, or unpaired references."""
        references = references if references is not None else [()] * len(prompts)
        self._check(prompts, references, size)
        states = [self.encoder.encode([prompt])[0] for prompt in prompts]
        groups: dict[tuple[int, int], list[int]] = {}
        for i, state in enumerate(states):
            groups.setdefault((padded_length(len(state), self.text_tokens), len(references[i])), []).append(i)
        out = np.zeros((len(prompts), *size, 3), np.uint8)
        for (length, _), members in sorted(groups.items()):
            for start in range(0, len(members), MAX_BATCH):
                chosen = members[start : start + MAX_BATCH]
                noise = torch.stack([self._noise(prompts[i], size, seed) for i in chosen])
                images = self._encode([references[i] for i in chosen], size)
                latents = self._denoise(noise, [states[i] for i in chosen], length, images, steps, cfg)
                pixels = to_uint8(self.autoencoder.decode(latents))
                out[chosen] = pixels.permute(0, 2, 3, 1).numpy()
        return out

    def _denoise(
        self, x: Tensor, states: list[Tensor], length: int, references: Tensor | None, steps: int, cfg: float
    ) -> Tensor:
        """Integrate dx/dt = velocity from t = 1 to 0, Euler. Conditions are read once."""
        count = 0 if references is None else references.shape[1]
        layout = sequence_layout(length, count, tuple(x.shape[-2:]))
        tokens = as_tokens(references.transpose(1, 2).flatten(3)) if count else None
        text, valid = pad(states, length)
        conditional = self.model.prefill(text, layout, tokens, valid)
        unconditional = None
        if cfg != 1.0:
            rows = len(x) if count else 1
            null, null_valid = pad([self.encoder.encode([""])[0]] * rows, length)
            unconditional = self.model.prefill(null, layout, tokens, null_valid)
        times = sigmas(steps)
        for t, following in zip(times[:-1], times[1:], strict=True):
            velocity = _velocity(self.model, x, float(t), conditional)
            if unconditional is not None:
                base = _velocity(self.model, x, float(t), unconditional)
                velocity = base + cfg * (velocity - base)
            x = x + float(following - t) * velocity
        return x

    def _encode(self, references: Sequence[Sequence[np.ndarray]], size: tuple[int, int]) -> Tensor | None:
        """Reference latents [B, R, C, h, w], area-resized to the target's size."""
        if not len(references[0]):
            return None
        images = torch.from_numpy(np.stack([[_resized(r, size) for r in row] for row in references]))
        images = images.permute(0, 1, 4, 2, 3)
        return self.autoencoder.encode(to_unit(images.flatten(0, 1))).unflatten(0, images.shape[:2])

    def _noise(self, prompt: str, size: tuple[int, int], seed: int) -> Tensor:
        shape = (self.autoencoder.channels, *(side // self.autoencoder.factor for side in size))
        return torch.from_numpy(generator(seed, "sample", prompt).standard_normal(shape, dtype="float32"))

    def _check(self, prompts: Sequence[str], references: Sequence, size: tuple[int, int]) -> None:
        if len(references) != len(prompts):
            raise UsageError(f"{len(prompts)} prompts but {len(references)} lists of references: give one list each")
        if any(side % self.autoencoder.factor or side <= 0 for side in size):
            raise UsageError(f"size {size[1]}x{size[0]}: both sides must be multiples of {self.autoencoder.factor}")


def _resized(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    return np.asarray(Image.fromarray(image).convert("RGB").resize(size[::-1], Image.Resampling.BOX))


def _velocity(model: MMDiT, x: Tensor, t: float, prefix: Prefix) -> Tensor:
    out = model.decode(as_tokens(x), torch.full((len(x),), t), prefix)
    return out.transpose(1, 2).unflatten(2, x.shape[-2:])


def sigmas(steps: int) -> np.ndarray:
    """Times from 1 (noise) to 0, evenly spaced, float64 [steps + 1]. Errors: `UsageError` for fewer than one step."""
    if steps < 1:
        raise UsageError(f"{steps} sampling steps: use at least 1")
    return np.linspace(1.0, 0.0, steps + 1)


def grid(images: np.ndarray, captions: Sequence[str], path: Path, *, columns: int = 8, scale: int = 2) -> Path:
    """Write uint8 images [N, H, W, 3] as one PNG, enlarged `scale` times, each above its caption; returns `path`."""
    n, height, width = images.shape[:3]
    columns = max(1, min(columns, n))
    cell_width, cell_height, line = width * scale, height * scale, 12
    per_line = max(1, cell_width // 6)
    wrapped = [[c[i : i + per_line] for i in range(0, len(c), per_line)][:4] for c in captions]
    text_height = line * max((len(w) for w in wrapped), default=0) + 4
    rows = -(-n // columns)
    sheet = Image.new("RGB", (columns * (cell_width + 4), rows * (cell_height + text_height + 4)), "white")
    draw = ImageDraw.Draw(sheet)
    for i in range(n):
        x, y = i % columns * (cell_width + 4), i // columns * (cell_height + text_height + 4)
        sheet.paste(Image.fromarray(images[i]).resize((cell_width, cell_height), Image.Resampling.NEAREST), (x, y))
        for k, part in enumerate(wrapped[i]):
            draw.text((x, y + cell_height + 2 + k * line), part, fill="black")
    with replacing(Path(path)) as temporary:
        sheet.save(temporary, format="PNG")
    return Path(path)
