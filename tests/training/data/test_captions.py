"""Which caption of a picture trains: kinds at their shares, from shards and from cached latents."""

from __future__ import annotations

from collections import Counter
from threading import current_thread, main_thread

import pytest
import torch

from flywheel.core.errors import UsageError
from flywheel.core.schema import CAPTION_KINDS
from tests.training.data.loading import plain, plan_of, prepare_with
from tests.training.snapshots import card_rows, write_snapshot
from training.data.captions import UNLISTED, Caption, choices, draw
from training.data.latents import Latents, write_latents
from training.data.loader import Loader
from training.models.condition import Cached
from training.phase import texts_with
from training.recipes import recipe

SHARES = {"general": 0.4, "text": 0.2, "knowledge": 0.2, "structured": 0.2}


def entry(kind: str, text: str, origin: str = "source") -> dict:
    return {"kind": kind, "text": text, "origin": origin}


def test_the_choices_of_a_picture():
    several = [entry("general", "a"), entry("general", "b"), entry("text", "t", "m@1"), entry("instruction", "i")]
    assert choices("a", several, CAPTION_KINDS) == (("general", "a"), ("general", "b"), ("text", "t"))
    assert choices("b", several, CAPTION_KINDS)[0] == ("general", "b")
    replaced = [entry("general", "own"), entry("general", "new", "m@1"), entry("text", "t", "m@1")]
    assert choices("new", replaced, CAPTION_KINDS) == (("general", "new"), ("text", "t"))  # not what was replaced
    assert choices("edited", several, CAPTION_KINDS) == ((UNLISTED, "edited"),)  # by a reviewer: the others are not
    assert choices("a", None, CAPTION_KINDS) == choices("a", [], CAPTION_KINDS) == ((UNLISTED, "a"),)


def test_kinds_come_at_their_shares_and_missing_ones_fall_to_those_present():
    every = [Caption(kind, f"{kind} {n}") for kind in SHARES for n in range(2)]

    def counts(captions, shares=SHARES):
        return Counter(draw(captions, shares, 7, "caption", 64, slot) for slot in range(4000))

    kinds = Counter()
    for caption, n in counts(every).items():
        kinds[caption.kind] += n
        assert abs(n / 4000 - SHARES[caption.kind] / 2) < 0.03  # several of one kind share it evenly
    assert all(abs(kinds[k] / 4000 - share) < 0.03 for k, share in SHARES.items())
    two = Counter(c.kind for c in counts([every[0], every[2]]).elements())
    assert abs(two["general"] / 4000 - 2 / 3) < 0.03 and set(two) == {"general", "text"}
    assert set(counts(every, {"knowledge": 1.0})) == {every[4], every[5]}
    assert set(counts(every, {})) == set(counts(every, {"general": 0.0})) == {every[0]}
    assert counts(every) == counts(every)


@pytest.fixture
def described(tmp_path):
    """A snapshot of 40 cards with four kinds of captions, and 20 with one of their own."""
    rows = card_rows(60)
    for number, row in enumerate(rows):
        written = [entry(kind, f"{kind} of {row['sample_id']}", "m@1") for kind in CAPTION_KINDS[1:]]
        row["captions"] = [entry("general", row["caption"]), *(written if number < 40 else [])]
    return write_snapshot(tmp_path, [{"rows": rows}])


def loader_of(manifest, **more):
    texts: list[str] = []

    def encode(captions):
        texts.extend(captions)
        return [torch.full((1, 1), float(len(c))) for c in captions]

    plan = plan_of(manifest)
    return Loader(plan, more.pop("prepare", plain), resolution={}, caption_shares=SHARES, encode=encode, **more), texts


def test_a_loader_draws_the_same_captions_whenever_it_starts(described, autoencoder, tmp_path):
    first, texts = loader_of(described)
    drawn = [[micro.kinds for micro in first.batch(t)] for t in range(6)]
    kinds = Counter(k for batch in drawn for micro in batch for k in micro)
    assert sum(kinds.values()) == 120 and set(kinds) == set(SHARES) and kinds["general"] > kinds["text"]
    assert {text.split(" of ")[0] for text in texts} == set(SHARES) - {"general"}  # the condition was encoded before
    again, _ = loader_of(described)
    assert [[micro.kinds for micro in again.batch(t)] for t in (4, 5)] == drawn[4:]
    states = [micro.states for micro in again.batch(5)]
    assert any(float(s) > 1 for micro in states for s in micro)  # those of the drawn captions

    cached = Latents(tmp_path / "latents", autoencoder.fingerprint, {}, "float32")
    write_latents(first.plan.shards, autoencoder, cached)
    from_latents, _ = loader_of(described, prepare=prepare_with(autoencoder), latents=cached)
    assert [[micro.kinds for micro in from_latents.batch(t)] for t in range(6)] == drawn


def test_captions_of_the_next_batch_are_encoded_together_ahead_of_it(described):
    class Lengths:
        """An encoder of four numbers a letter, which remembers where it was asked for what."""

        dim, fingerprint, reads_references = 4, "lengths", False

        def __init__(self):
            self.asked: list[tuple[bool, int]] = []

        def encode(self, captions, references=None):
            self.asked.append((current_thread() is main_thread(), len(captions)))
            return [torch.full((len(c), 4), float(len(c))) for c in captions]

        def lead(self, references):
            return (0,) * references

    inner, plan = Lengths(), plan_of(described, t2i_share=1.0)
    cached = Cached(inner)
    loader = Loader(plan, plain, resolution={}, texts=texts_with(cached), caption_shares=SHARES, encode=cached.encode)
    for t in range(3):
        loader.expect(plan.batch(t))
        loader._reader.submit(int).result()  # what was asked for before is there
        micro_batches = [loader.gather(rows) for rows in plan.batch(t)]
        for micro in micro_batches:
            places = loader._places(micro.rows)
            texts = {caption.text: caption.kind for group, i in places for caption in group.choices[i]}
            lengths = [{len(text) for text, of in texts.items() if of == kind} for kind in micro.kinds]
            assert all(len(state) in allowed for state, allowed in zip(micro.states, lengths, strict=True))
    assert inner.asked and not any(here for here, _ in inner.asked)  # nothing was left to this thread
    assert sum(count for _, count in inner.asked) > 3 * len(inner.asked)


def test_shares_of_a_recipe():
    assert recipe("tiny", caption_shares={"text": 1.0}).to_dict()["caption_shares"] == {"text": 1.0}
    with pytest.raises(UsageError, match="unknown kind 'poem'"):
        recipe("tiny", caption_shares={"poem": 1.0})
    with pytest.raises(UsageError, match="caption_shares.text is -1.0: give a number of 0 or more"):
        recipe("tiny", caption_shares={"text": -1.0})
