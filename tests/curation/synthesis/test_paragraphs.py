"""Length and caption of paragraph pages."""

from __future__ import annotations

import random

import pytest

from curation.scorers.quotes import quoted_text
from curation.scorers.text import words
from curation.synthesis import paragraphs
from curation.synthesis.phrases import built_in


@pytest.mark.parametrize("tokens", [30, 950])
def test_paragraphs_have_the_length_that_is_asked_for(tokens: int) -> None:
    pages = [paragraphs.page(built_in("zh"), random.Random(n), 1024, tokens=tokens) for n in range(6)]
    lengths = [words(" ".join(p.texts)) for p in pages]
    assert max(lengths) <= tokens and max(lengths) > tokens / 3
    assert all(words(p.caption) <= 1024 and quoted_text(p.caption) == " ".join(p.texts) for p in pages)
