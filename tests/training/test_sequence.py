"""Pictures and text in one sequence."""

from __future__ import annotations

import torch

from training.sequence import as_tokens, sequence_layout


def test_references_come_before_the_text_and_the_target_last():
    size = (4, 6)
    assert sequence_layout(16, 0, size) == (16, size)
    assert sequence_layout(16, 2, size) == (size, size, 16, size)


def test_text_that_leads_a_reference_is_taken_from_the_text():
    size = (4, 6)
    assert sequence_layout(16, 2, size, lead=(3, 2)) == (3, size, 2, size, 11, size)
    assert sequence_layout(5, 2, size, lead=(3, 2)) == (3, size, 2, size, size)


def test_latents_become_tokens_row_by_row():
    tokens = as_tokens(torch.arange(2 * 3 * 2 * 2).reshape(2, 3, 2, 2))
    assert tokens.shape == (2, 4, 3) and tokens[0].tolist() == [[0, 4, 8], [1, 5, 9], [2, 6, 10], [3, 7, 11]]
