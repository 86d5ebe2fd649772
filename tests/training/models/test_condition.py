"""What the text encoder can tell apart, and its cache."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from training.models.condition import (
    MAX_ROWS,
    MAX_TOKENS,
    Cached,
    batches,
    pad,
    padded_length,
)
from training.models.encoders import load_condition_encoder


@pytest.fixture(scope="module")
def encoder():
    return load_condition_encoder("minilm")


def test_states_tell_colours_words_and_places_apart(encoder):
    base, color, place, word = (
        "a card with a red circle at the left and SALE on it",
        "a card with a blue circle at the left and SALE on it",
        "a card with a red circle at the right and SALE on it",
        "a card with a red circle at the left and OPEN on it",
    )
    states = encoder.encode([base, color, place, word])
    assert len({s.shape for s in states}) == 1 and states[0].shape[1] == encoder.dim
    for changed in states[1:]:
        similarity = torch.cosine_similarity(states[0], changed)
        assert similarity.min() < 0.85, "the changed token has another state"
        assert similarity.max() > 0.9, "and some token stays"


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("name", ["minilm", "qwen3-vl:tiny"])
def test_a_captions_states_do_not_depend_on_the_others_of_a_call(name, threads):
    encoder, before = load_condition_encoder(name), torch.get_num_threads()
    captions = ["a red circle", "", "two blue squares on a white card", "a red square", "words " * 30]
    captions += [" ".join(["small", "green", "card"][: 1 + n % 3] * (1 + n % 7)) for n in range(30)]
    torch.set_num_threads(threads)
    try:
        together, alone = encoder.encode(captions), [encoder.encode([c])[0] for c in captions]
        others = encoder.encode(captions[:0:-1])
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(a, b) for a, b in zip(together, alone, strict=True))
    assert all(torch.equal(a, b) for a, b in zip(together[:0:-1], others, strict=True))
    assert len({len(s) for s in together}) > 10


def test_states_have_a_token_each(encoder):
    captions = ["a red circle", "", "two blue squares on a white card", "a red square"]
    assert [len(s) for s in encoder.encode(captions)] == [5, 2, 9, 5]


def test_what_is_encoded_together_is_alike_in_length_and_bounded():
    found = list(batches([5, 8, 9, 1, 17, *[3] * 70, 20_000]))
    assert [length for _, length in found] == [8, 8, 16, 24, 20_000] and len(found[0][0]) == MAX_ROWS
    assert sorted(n for rows, _ in found for n in rows) == list(range(76)) and list(batches([])) == []
    assert all(len(rows) == 1 or len(rows) * length <= MAX_TOKENS for rows, length in found)


def test_embeddings_rank_by_meaning(encoder):
    vectors = encoder.embed(["a photo of a dog", "a picture of a puppy", "a slide with a chart"])
    assert torch.allclose(vectors.norm(dim=1), torch.ones(3), atol=1e-5)
    similarity = (vectors @ vectors.T).numpy()
    assert similarity[0, 1] > similarity[0, 2] + 0.2
    assert encoder.embed([]).shape == (0, 384)
    assert np.isfinite(similarity).all()


def test_padding(encoder):
    states = encoder.encode(["a red circle", "two blue squares on a white card"])
    text, valid = pad(states, 16)
    assert text.shape == (2, 16, encoder.dim) and valid.sum(1).tolist() == [5, 9]
    assert pad(states[:1], 5)[1] is None
    with pytest.raises(ValueError, match="9 tokens does not fit into 8"):
        pad(states, 8)
    assert [padded_length(n, 24) for n in (5, 24, 25, 33)] == [24, 24, 32, 40]


class Counting:
    """A condition encoder that remembers what it was asked."""

    dim, fingerprint = 4, "counting"

    def __init__(self, reads_references):
        self.reads_references, self.asked = reads_references, []

    def encode(self, captions, references=None):
        self.asked.append(list(captions))
        return [torch.full((len(c), 4), float(sum(len(r) for r in references or ()))) for c in captions]

    def lead(self, references):
        return (1,) * references


def test_a_caption_is_encoded_once_together_with_what_else_is_new():
    inner = Counting(reads_references=False)
    cached = Cached(inner)
    picture = [torch.zeros(1, 3, 2, 2, dtype=torch.uint8)]
    first = cached.encode(["ab", "c", "ab"])
    again = cached.encode(["c", "ab"], [picture[0], picture[0][:0]])  # references make no difference to it
    assert inner.asked == [["ab", "c"]]
    assert first[0] is again[1] and first[1] is again[0] and cached.lead(2) == (1, 1)

    states = cached.encode(["d", "c", "ef", "ab"])
    assert inner.asked[1:] == [["d", "ef"]] and [len(s) for s in states] == [1, 1, 2, 2]
    assert cached.encode([]) == [] and len(inner.asked) == 2


def test_references_are_content_where_the_encoder_reads_them():
    inner = Counting(reads_references=True)
    cached, black = Cached(inner), torch.zeros(1, 3, 2, 2, dtype=torch.uint8)
    for shown in (black, black.clone(), black + 1, black.reshape(1, 3, 1, 4), torch.cat([black, black])):
        cached.encode(["a"], [shown])
    assert len(inner.asked) == 4


def test_cached_states_are_the_encoders_and_memory_is_bounded():
    encoder = load_condition_encoder()
    captions = ["a red disc", "a blue square at the left", ""]
    inner, states = Counting(False), Cached(encoder).encode(captions)
    assert all(torch.equal(a, encoder.encode([c])[0]) for a, c in zip(states, captions, strict=True))
    small = Cached(inner, cache_bytes=100)
    for caption in ("abc", "def", "abc", "ghi", "def"):  # 48 bytes each: two fit, the one used last stays
        small.encode([caption])
    assert inner.asked == [["abc"], ["def"], ["ghi"], ["def"]]
    assert small.encode(["x" * 50])[0].nbytes == 800 and len(small._states) == 1  # larger than all: kept alone
