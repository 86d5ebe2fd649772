"""The Qwen3-VL that is made on the spot: the same everywhere, and it keeps words apart."""

from __future__ import annotations

import torch

from training.models.encoders import load_condition_encoder
from training.models.qwen3vl import Qwen3VL


def test_it_is_the_same_each_time_and_as_a_folder(tmp_path):
    encoder, again = (load_condition_encoder("qwen3-vl:tiny") for _ in range(2))
    assert encoder.fingerprint == again.fingerprint and 4e6 < sum(p.numel() for p in encoder.model.parameters()) < 5e6
    encoder.model.save_pretrained(tmp_path)
    encoder.processor.save_pretrained(tmp_path)
    assert Qwen3VL.open(str(tmp_path)).fingerprint == encoder.fingerprint


def test_words_matter_and_like_words_are_close():
    encoder = load_condition_encoder("qwen3-vl:tiny")
    red, crimson, table = encoder.encode([f"a {word} disc at the left" for word in ("red", "blue", "table")])
    assert red.shape == crimson.shape and encoder.dim == red.shape[1] == 128
    assert torch.allclose(red[:2], table[:2])  # causal: what comes before the word
    near, far = (torch.cosine_similarity(red[3], other[3], dim=0) for other in (crimson, table))
    assert 0.9 > near > far + 0.1
    (picture,) = encoder.encode(["make it red"], [torch.zeros(2, 3, 64, 64, dtype=torch.uint8)])
    assert len(encoder.lead(2)) == 2 and sum(encoder.lead(2)) < len(picture) and bool(picture.isfinite().all())
