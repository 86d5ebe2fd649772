"""Images from a checkpoint: flow-matching Euler with guidance and a prefix K/V cache, batched by layout."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from flywheel.core.errors import UsageError
from flywheel.core.files import replacing
from flywheel.core.generator import MOST_GUIDANCE
from flywheel.core.image import fitted
from flywheel.core.mirror import fetched
from flywheel.core.storage import located
from training import schedules
from training.checkpoint import Checkpoint
from training.data.row_group import to_uint8, to_unit
from training.distributed import choose_device
from training.models.autoencoder import Autoencoder
from training.models.condition import Cached, ConditionEncoder, pad, padded_length
from training.models.encoders import load_condition_encoder
from training.models.mmdit import MMDiT, Prefix
from training.randomness import generator
from training.sequence import as_tokens, sequence_layout

MAX_BATCH = 32
STEPS = {"uniform": 20, "dynamic_shift": 40}
GUIDANCE = 3.0


def sample(
    checkpoint: Checkpoint | Path,
    prompts: Sequence[str],
    references: Sequence[Sequence[np.ndarray]] | None = None,
    *,
    size: tuple[int, int] = (64, 64),
    steps: int | None = None,
    cfg: float | None = None,
    seed: int = 0,
) -> np.ndarray:
    """uint8 images [N, H, W, 3], one per prompt; `size` is (height, width), `references` uint8 [h, w, 3] per prompt.

    An image depends only on checkpoint, prompt, references, size, steps, cfg and seed. Other images of its batch change
    it by rounding at most.
    """
    return Sampler(checkpoint).sample(prompts, references, size=size, steps=steps, cfg=cfg, seed=seed)


NOT_FINITE = (
    "the checkpoint computes values that are not finite (NaN or infinity): its weights are damaged, or diverged in "
    "training; draw with an earlier one"
)


class Sampler:
    """A checkpoint loaded once for several calls, onto `device` or a GPU where there is one; noise is from the CPU.

    Time grid: the checkpoint's own `sigmas` (a distilled student has them), which also set the number of steps; else
    its `schedule`, "uniform" by default. Its `cfg` is the default guidance. Errors: `UsageError` when the condition
    encoder has changed since training.
    """

    def __init__(self, checkpoint: Checkpoint | Path, device: torch.device | None = None) -> None:
        self.checkpoint = checkpoint if isinstance(checkpoint, Checkpoint) else Checkpoint(fetched(checkpoint))
        condition = self.checkpoint.config["condition"]
        # Cached, because the same prompts are sampled with several seeds.
        device = device or choose_device()
        encoder = Cached(load_condition_encoder(condition["encoder"]).to(device))
        model, autoencoder = self.checkpoint.model("ema").to(device), self.checkpoint.autoencoder().to(device)
        self._set(model, autoencoder, encoder, self.checkpoint.config)
        if self.encoder.fingerprint != condition["fingerprint"]:
            raise UsageError(
                f"{condition['encoder']} is not the condition encoder that {self.checkpoint.path} was trained with: "
                "restore its files"
            )

    @classmethod
    def of(
        cls, model: MMDiT, autoencoder: Autoencoder, encoder: ConditionEncoder, config: Mapping[str, Any]
    ) -> Sampler:
        """From parts in memory, such as a model in training; `config` as in a checkpoint."""
        self = cls.__new__(cls)
        self._set(model, autoencoder, encoder, config)
        return self

    def _set(
        self, model: MMDiT, autoencoder: Autoencoder, encoder: ConditionEncoder, config: Mapping[str, Any]
    ) -> None:
        self.model, self.autoencoder, self.encoder, self.config = model.eval(), autoencoder, encoder, config
        self.text_tokens = config["condition"]["tokens"]

    def sample(
        self,
        prompts: Sequence[str],
        references: Sequence[Sequence[np.ndarray]] | None = None,
        *,
        size: tuple[int, int] = (64, 64),
        steps: int | None = None,
        cfg: float | None = None,
        seed: int | Sequence[int] = 0,
        negative: str = "",
        masks: Sequence[np.ndarray | None] | None = None,
    ) -> np.ndarray:
        """See `sample`. seed: of all prompts, or one per prompt; negative: what guidance leads away from.

        masks: uint8 [h, w] per prompt, 255 where an edit may change its first reference, or None; all else keeps the
        pixels of that picture, fitted to `size`. Errors: `UsageError` for a size, number of references or mask that
        does not fit, and for a picture that is not finite.
        """
        pictures, finite = self.draw(
            prompts, references, size=size, steps=steps, cfg=cfg, seed=seed, negative=negative, masks=masks
        )
        if not finite.all():
            raise UsageError(NOT_FINITE)
        return pictures

    def draw(
        self,
        prompts: Sequence[str],
        references: Sequence[Sequence[np.ndarray]] | None,
        *,
        size: tuple[int, int],
        steps: int | None,
        cfg: float | None,
        seed: int | Sequence[int],
        negative: str,
        masks: Sequence[np.ndarray | None] | None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """As `sample`, with bool [N]: the pictures whose values are finite; the others mean nothing."""
        self._check(prompts, references, size)
        regions = [None if mask is None else _region(mask, size) for mask in masks or [None] * len(prompts)]
        self._check_masks(regions, prompts, references)
        seeds = [seed] * len(prompts) if isinstance(seed, int) else seed
        noise = torch.stack([self.noise(prompt, size, s) for prompt, s in zip(prompts, seeds, strict=True)])
        out, finite = np.zeros((len(prompts), *size, 3), np.uint8), np.zeros(len(prompts), bool)
        for rows, latents in self._batches(prompts, references, noise, steps, cfg, negative, regions):
            pixels = self.autoencoder.decode(latents.cpu())
            finite[rows] = pixels.isfinite().flatten(1).all(1).numpy()
            out[rows] = to_uint8(pixels).permute(0, 2, 3, 1).numpy()
        for row, region in enumerate(regions):
            if region is not None and references is not None:
                kept = fitted(Image.fromarray(references[row][0]).convert("RGB"), *size[::-1])
                out[row] = np.where(region[..., None], out[row], np.asarray(kept))
        return out, finite

    def latents(
        self,
        prompts: Sequence[str],
        references: Sequence[Sequence[np.ndarray]] | None = None,
        *,
        noise: Tensor,
        steps: int | None = None,
        cfg: float | None = None,
    ) -> Tensor:
        """Latents [N, C, h, w] denoised from `noise` of the same shape."""
        out = torch.zeros_like(noise)
        for rows, latents in self._batches(prompts, references, noise, steps, cfg):
            out[rows] = latents.to(out.device)
        return out

    def noise(self, prompt: str, size: tuple[int, int], seed: int) -> Tensor:
        """Initial noise of a prompt's image, [C, h, w]: a function of seed, prompt and size."""
        shape = (self.autoencoder.channels, *(side // self.autoencoder.factor for side in size))
        return torch.from_numpy(generator(seed, "sample", prompt).standard_normal(shape, dtype="float32"))

    def times(self, steps: int | None, tokens: int) -> np.ndarray:
        """The checkpoint's time grid for `steps` (default: 20; 40 with dynamic shift) and `tokens` target tokens."""
        if self.config.get("sigmas"):
            return schedules.own(self.config["sigmas"])
        schedule = self.config.get("schedule", "uniform")
        return schedules.times(schedule, STEPS.get(schedule, 0) if steps is None else steps, tokens)

    def guidance(self, cfg: float | None) -> float:
        """`cfg`, or the checkpoint's own guidance (1 for a student), or 3. Errors: `UsageError` unless 0 to 100."""
        if cfg is not None and not 0 <= cfg <= MOST_GUIDANCE:
            raise UsageError(f"cfg {cfg}: give a guidance weight from 0 to {MOST_GUIDANCE}; 1 is no guidance")
        return float(self.config.get("cfg", GUIDANCE)) if cfg is None else cfg

    @torch.no_grad()  # not inference_mode: position tables are cached, and training may use them next
    def _batches(
        self,
        prompts: Sequence[str],
        references: Sequence[Sequence[np.ndarray]] | None,
        noise: Tensor,
        steps: int | None,
        cfg: float | None,
        negative: str = "",
        regions: Sequence[np.ndarray | None] | None = None,
    ) -> Iterator[tuple[list[int], Tensor]]:
        """Yield rows of one layout with their latents, on the device of the model."""
        cfg = self.guidance(cfg)
        size = (noise.shape[-2] * self.autoencoder.factor, noise.shape[-1] * self.autoencoder.factor)
        pictures = [resized(row, size) for row in (references if references is not None else [()] * len(prompts))]
        states = self.encoder.encode(prompts, pictures)
        groups: dict[tuple[int, int], list[int]] = {}
        for i, state in enumerate(states):
            groups.setdefault((padded_length(len(state), self.text_tokens), len(pictures[i])), []).append(i)
        for (length, _), members in sorted(groups.items()):
            for start in range(0, len(members), MAX_BATCH):
                rows = members[start : start + MAX_BATCH]
                shown = torch.stack([pictures[i] for i in rows])
                x, own = noise[rows].to(self.model.image_in.weight.device), [states[i] for i in rows]
                held = [regions[i] for i in rows] if regions is not None else []
                free = self._free(held).to(x.device) if any(region is not None for region in held) else None
                yield rows, self._denoise(x, own, length, shown, steps, cfg, negative, free)

    def _denoise(
        self,
        x: Tensor,
        states: list[Tensor],
        length: int,
        shown: Tensor,
        steps: int | None,
        cfg: float,
        negative: str,
        free: Tensor | None = None,
    ) -> Tensor:
        """Integrate dx/dt = velocity from t = 1 to 0, Euler. Conditions are read once.

        free [B, 1, h, w]: 1 where latents may change; the others follow the first reference's, at the noise of each
        step.
        """
        count = shown.shape[1]
        tokens = None
        if count:
            latents = self.autoencoder.encode(to_unit(shown.flatten(0, 1))).unflatten(0, shown.shape[:2]).to(x.device)
            tokens = as_tokens(latents.transpose(1, 2).flatten(3))
        conditional = self._prefill(states, length, tokens, count, x)
        unconditional = None
        if cfg != 1.0:
            if count and self.encoder.reads_references:
                nulls = self.encoder.encode([negative] * len(x), list(shown))
            else:
                nulls = [self.encoder.encode([negative])[0]] * (len(x) if count else 1)
            # Each branch keeps its own length, as in training and in the open 2.1 pipeline.
            null_length = padded_length(max(map(len, nulls)), self.text_tokens)
            unconditional = self._prefill(nulls, null_length, tokens, count, x)
        times, noise = self.times(steps, x.shape[-2] * x.shape[-1]), x
        for t, following in zip(times[:-1], times[1:], strict=True):
            velocity = _velocity(self.model, x, float(t), conditional)
            if unconditional is not None:
                base = _velocity(self.model, x, float(t), unconditional)
                velocity = base + cfg * (velocity - base)
            x = x + float(following - t) * velocity
            if free is not None:
                kept = (1 - float(following)) * latents[:, 0] + float(following) * noise
                x = free * x + (1 - free) * kept
        return x

    def _free(self, regions: Sequence[np.ndarray | None]) -> Tensor:
        """Latent pixels with any pixel that may change, [B, 1, h, w]; all of them where there is no region."""
        shape = next(region.shape for region in regions if region is not None)
        whole = np.stack([np.ones(shape, bool) if region is None else region for region in regions])
        return torch.nn.functional.max_pool2d(torch.from_numpy(whole).float()[:, None], self.autoencoder.factor)

    def _prefill(self, states: list[Tensor], length: int, tokens: Tensor | None, count: int, x: Tensor) -> Prefix:
        text, valid = pad(states, length)
        layout = sequence_layout(length, count, (x.shape[-2], x.shape[-1]), self.encoder.lead(count))
        return self.model.prefill(text.to(x.device), layout, tokens, None if valid is None else valid.to(x.device))

    def _check(self, prompts: Sequence[str], references: Sequence | None, size: tuple[int, int]) -> None:
        if references is not None and len(references) != len(prompts):
            raise UsageError(
                f"{len(prompts)} prompts but {len(references)} lists of references: give one list per prompt"
            )
        if any(side % self.autoencoder.factor or side <= 0 for side in size):
            raise UsageError(f"size {size[1]}x{size[0]}: both sides must be multiples of {self.autoencoder.factor}")

    def _check_masks(
        self, regions: Sequence[np.ndarray | None], prompts: Sequence[str], references: Sequence | None
    ) -> None:
        if len(regions) != len(prompts):
            raise UsageError(f"{len(prompts)} prompts but {len(regions)} masks: give one per prompt, or None")
        if any(region is not None and not (references and references[row]) for row, region in enumerate(regions)):
            raise UsageError("a mask without a reference: give the picture that it edits")


def _region(mask: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Where an edit may change the picture: bool of `size`, fitted as references are."""
    return np.asarray(fitted(Image.fromarray(mask).convert("L"), *size[::-1])) > 127


def resized(images: Sequence[np.ndarray], size: tuple[int, int]) -> Tensor:
    """One prompt's references uint8 [R, 3, H, W], fitted to the target's size as shards fit them."""
    pictures = [fitted(Image.fromarray(image).convert("RGB"), *size[::-1]) for image in images]
    if not pictures:
        return torch.zeros(0, 3, *size, dtype=torch.uint8)
    return torch.from_numpy(np.stack([np.asarray(picture) for picture in pictures])).permute(0, 3, 1, 2)


def _velocity(model: MMDiT, x: Tensor, t: float, prefix: Prefix) -> Tensor:
    out = model.decode(as_tokens(x), torch.full((len(x),), t, device=x.device), prefix)
    return out.transpose(1, 2).unflatten(2, x.shape[-2:])


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
    with replacing(located(path)) as temporary:
        sheet.save(temporary, format="PNG")
    return path
