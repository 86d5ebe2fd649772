"""Pages of small text."""

from __future__ import annotations

import numpy as np

from curation.synthesis.pages import pages


def test_pages_are_full_of_text_and_a_function_of_the_seed():
    one, again, other = (list(pages(2, seed=seed, side=128)) for seed in (0, 0, 1))
    assert [p.tobytes() for p in one] == [p.tobytes() for p in again]
    assert one[0].tobytes() not in (one[1].tobytes(), other[0].tobytes())
    for page in pages(4, seed=3):
        edges = np.abs(np.diff(np.asarray(page.convert("L"), dtype=int), axis=1)) > 30
        assert page.size == (256, 256) and edges.mean() > 0.04
        assert all(edges[top : top + 64].any() for top in range(0, 256, 64))
