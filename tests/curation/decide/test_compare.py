"""What is known of the text in two pictures."""

from __future__ import annotations

import pytest

from curation.decide.compare import Texts, same_text


@pytest.mark.parametrize(
    ("first", "second", "same"),
    [
        (Texts("Sale", "SALE"), Texts(None, "Sale"), True),
        (Texts("Sale", "Sale"), Texts("Sale", "Menu"), False),
        (
            Texts("Gate 1", "to gate 1 and 2, level 3, hall 4"),
            Texts("Gate 1", "to gate 1 and 2, level 3, hall 5"),
            None,
        ),
        (Texts("Sale"), Texts("Menu"), False),
        (Texts("Weekly report"), Texts("Weekly report: costs were lower"), None),
        (Texts("Sale"), Texts(), None),
        (Texts(None, ""), Texts(None, ""), None),
        (Texts("Sale", "Sale"), Texts("Sale", ""), False),
    ],
)
def test_same_text(first: Texts, second: Texts, same: bool | None) -> None:
    assert same_text(first, second) is same and same_text(second, first) is same
