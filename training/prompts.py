"""Prompts to train on without target pictures: their category, which ones a step draws, and their conditions."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor

from flywheel.core.errors import UsageError
from flywheel.core.files import digest
from flywheel.core.image import BadImage, decode
from training.data.row_group import to_uint8, to_unit
from training.distributed import World
from training.models.autoencoder import Autoencoder
from training.models.condition import ConditionEncoder, pad, padded_length
from training.models.mmdit import MMDiT, Prefix
from training.models.positions import Layout
from training.randomness import generator
from training.sampling import resized
from training.sequence import as_tokens, sequence_layout


class RolloutPrompt(Protocol):
    """A prompt that pictures are drawn for, such as a suite's: references are files, checks judge the pictures."""

    @property
    def prompt_id(self) -> str: ...

    @property
    def text(self) -> str: ...

    @property
    def task(self) -> str: ...

    @property
    def references(self) -> tuple[Path, ...]: ...

    @property
    def checks(self) -> tuple[dict[str, Any], ...]: ...

    def reference_bytes(self) -> tuple[bytes, ...]:
        """Encoded references, in order."""
        ...


P = TypeVar("P", bound=RolloutPrompt)


def category(prompt: RolloutPrompt) -> str:
    """Key of reward weights and prompt mix: the capability of the first check, else the task."""
    return prompt.checks[0]["capability"] if prompt.checks else prompt.task


def prompts_digest(prompts: Sequence[RolloutPrompt]) -> str:
    """Digest of a list of prompts and their references. Errors: `UsageError` names a reference that is missing."""
    rows = []
    for p in prompts:
        try:
            hashes = [hashlib.sha256(b).hexdigest() for b in p.reference_bytes()]
        except OSError as error:
            raise UsageError(f"prompt {p.prompt_id}: a reference cannot be read ({error}): restore it") from error
        rows.append((p.prompt_id, p.text, p.task, hashes, p.checks))
    return digest(rows)


def draw(
    prompts: Mapping[str, Sequence[RolloutPrompt]], shares: Mapping[str, float], count: int, *key: int | str
) -> list[RolloutPrompt]:
    """Draw `count` prompts: kinds at their shares, exact to one prompt; a kind repeats none before all were drawn.

    A pure function of its arguments. Kinds without prompts give their share to the others. Errors: `UsageError` when
    no kind is left.
    """
    rng = generator(*key)
    kinds = sorted(k for k in prompts if prompts[k] and shares.get(k, 0) > 0)
    if not kinds:
        raise UsageError("no prompt is left to draw: every kind is empty or has a share of 0: add prompts or shares")
    weights = np.array([shares[k] for k in kinds]) / sum(shares[k] for k in kinds)
    counts = np.floor(weights * count).astype(int)
    rest = weights * count - counts
    for i in rng.choice(len(kinds), count - counts.sum(), replace=False, p=rest / rest.sum()) if rest.sum() else ():
        counts[i] += 1
    chosen: list[RolloutPrompt] = []
    for kind, wanted in zip(kinds, counts, strict=True):
        orders = [rng.permutation(len(prompts[kind])) for _ in range(-(-wanted // len(prompts[kind])))]
        chosen += [prompts[kind][i] for i in np.concatenate(orders)[:wanted]] if orders else []
    return chosen


def spread(prompts: Sequence[P], count: int) -> list[P]:
    """Up to `count` prompts, evenly spaced, so that a list sorted by kind contributes every kind."""
    count = min(count, len(prompts))
    return [prompts[i * len(prompts) // count] for i in range(count)]


@dataclass(frozen=True)
class Condition:
    """Prompts of one layout: `text` [B, L, K], `valid` [B, L] or None, `references` [B, R·h·w, C] or None."""

    text: Tensor
    valid: Tensor | None
    layout: Layout
    references: Tensor | None

    def to(self, device: torch.device) -> Condition:
        """The same on a device."""
        valid, references = (x if x is None else x.to(device) for x in (self.valid, self.references))
        return replace(self, text=self.text.to(device), valid=valid, references=references)

    def prefix(self, model: MMDiT) -> Prefix:
        """Keys and values by `model`, for any number of times; gradients reach the condition's weights."""
        return model.prefill(self.text, self.layout, self.references, self.valid)


def velocity(model: MMDiT, x: Tensor, t_B: Tensor, prefix: Prefix) -> Tensor:
    """Velocity [B, C, h, w]; a prefix of one row serves all rows."""
    return model.decode(as_tokens(x), t_B, prefix).transpose(1, 2).unflatten(2, x.shape[-2:])


@dataclass(frozen=True)
class LayoutBatch:
    """Prompts of layout `number`: their positions `rows` in a list, and which of these are this process's, `own`.

    conditions: with and without text, of `own`.
    """

    number: int
    rows: list[int]
    own: list[int]
    conditions: tuple[Condition, Condition]


@dataclass
class ConditionReader:
    """Turns prompts into conditions for square pictures of `side` pixels, on `device`; each prompt is encoded once.

    Errors: `UsageError` for a reference that cannot be read, and for a side that does not fit the autoencoder.
    """

    encoder: ConditionEncoder
    autoencoder: Autoencoder
    text_tokens: int
    side: int
    device: torch.device = torch.device("cpu")
    _known: dict[str, tuple[Condition, Condition]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.side % self.autoencoder.factor or self.side <= 0:
            raise UsageError(f"side {self.side}: must be a multiple of {self.autoencoder.factor} pixels")

    @property
    def shape(self) -> tuple[int, int, int]:
        """[C, h, w] of a latent."""
        size = self.side // self.autoencoder.factor
        return self.autoencoder.channels, size, size

    def noise(self, *key: int | str) -> Tensor:
        """Standard normal latent on the CPU, a function of `key`."""
        return torch.from_numpy(generator(*key).standard_normal(self.shape, dtype="float32"))

    def read(self, prompts: Sequence[RolloutPrompt]) -> list[tuple[Condition, Condition]]:
        """(condition with the text, condition without it) of each, one row each; new texts are encoded together."""
        new = list({p.prompt_id: p for p in prompts if p.prompt_id not in self._known}.values())
        side = (self.side, self.side)
        shown = [resized([picture(p, i) for i in range(len(p.references))], side) for p in new]
        states = self.encoder.encode([text for p in new for text in (p.text, "")], [x for x in shown for _ in range(2)])
        for number, (prompt, pictures) in enumerate(zip(new, shown, strict=True)):
            self._known[prompt.prompt_id] = self._conditions(states[2 * number : 2 * number + 2], pictures)
        return [self._known[p.prompt_id] for p in prompts]

    @torch.no_grad()
    def _conditions(self, states: Sequence[Tensor], pictures: Tensor) -> tuple[Condition, Condition]:
        """One prompt's conditions; states: with and without its text."""
        tokens = None
        if count := len(pictures):
            latents = self.autoencoder.encode(to_unit(pictures))[None]
            tokens = as_tokens(latents.transpose(1, 2).flatten(3))
        conditional, unconditional = (
            Condition(*pad([s], n), sequence_layout(n, count, self.shape[1:], self.encoder.lead(count)), tokens)
            for s in states
            for n in [padded_length(len(s), self.text_tokens)]  # both stand where they were trained
        )
        return conditional.to(self.device), unconditional.to(self.device)

    def batches(self, prompts: Sequence[RolloutPrompt], world: World) -> list[LayoutBatch]:
        """The prompts by layout, where this process has some. It reads those alone; every process must call it."""
        own, read = world.own(range(len(prompts))), dict[int, tuple[Condition, Condition]]()

        def layouts() -> dict[int, tuple[Layout, Layout]]:
            read.update(zip(own, self.read([prompts[i] for i in own]), strict=True))
            return {i: (conditional.layout, unconditional.layout) for i, (conditional, unconditional) in read.items()}

        rows: dict[tuple[Layout, Layout], list[int]] = {}
        for i, layout in sorted(world.merged(layouts).items()):
            rows.setdefault(layout, []).append(i)
        out = []
        for number, positions in enumerate(rows.values()):
            if mine := [n for n, i in enumerate(positions) if i in read]:
                with_text, without = zip(*(read[positions[n]] for n in mine), strict=True)
                out.append(LayoutBatch(number, positions, mine, (_stack(with_text), _stack(without))))
        return out

    @torch.no_grad()
    def pictures(self, latents: Tensor) -> list[bytes]:
        """Latents [B, C, h, w] → PNG files."""
        from PIL import Image

        out = []
        for picture in to_uint8(self.autoencoder.decode(latents.cpu())).permute(0, 2, 3, 1).numpy():
            buffer = io.BytesIO()
            Image.fromarray(picture).save(buffer, "PNG")
            out.append(buffer.getvalue())
        return out


def _stack(rows: Sequence[Condition]) -> Condition:
    valid = None
    if any(r.valid is not None for r in rows):
        valid = torch.cat(
            [r.text.new_ones(r.text.shape[:2], dtype=torch.bool) if r.valid is None else r.valid for r in rows]
        )
    references = [r.references for r in rows if r.references is not None]
    text = torch.cat([r.text for r in rows])
    return Condition(text, valid, rows[0].layout, torch.cat(references) if references else None)


def picture(prompt: RolloutPrompt, number: int) -> np.ndarray:
    """One reference, uint8 [H, W, 3]. Errors: `UsageError` when it cannot be read."""
    try:
        return np.asarray(decode(prompt.references[number].read_bytes()))
    except (OSError, BadImage) as error:
        raise UsageError(
            f"prompt {prompt.prompt_id}: reference {prompt.references[number]} cannot be read ({error}): "
            "repair the file or remove the prompt"
        ) from error
