"""Draws are a function of their key."""

from __future__ import annotations

import numpy as np

from training.randomness import generator


def test_equal_keys_draw_alike_and_others_do_not():
    def draw(*key: int | str) -> bytes:
        return generator(*key).standard_normal(8).tobytes()

    assert draw(1, "noise", 3) == draw(1, "noise", 3) == draw("1", "noise", "3")
    keys = [(1, "noise", 3), (1, "noise", 4), (2, "noise", 3), (1, "time", 3), (13, "noise"), (1, "noise3")]
    assert len({draw(*key) for key in keys}) == len(keys)


def test_neighbouring_keys_are_independent():
    draws = np.stack([generator("n", i).standard_normal(2000) for i in range(20)])
    assert np.abs(np.corrcoef(draws) - np.eye(20)).max() < 0.12
    assert abs(draws.mean()) < 0.03 and abs(draws.std() - 1) < 0.03


def test_the_stream_of_a_key_never_changes():
    """Finished checkpoints resume with it."""
    assert generator(5, "noise", 0).integers(0, 2**32, 3).tolist() == [2586658074, 570367492, 1713580588]
