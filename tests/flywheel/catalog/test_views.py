"""The analysts' tables as they are described."""

from __future__ import annotations

import pytest

from curation.decide.judge import _FUNNEL
from flywheel.catalog import views
from flywheel.catalog.views import ALL, BULK, DERIVED, LEDGER_MEANINGS, meaning
from flywheel.core.schema import LEDGERS


def test_every_ledger_is_a_view_and_no_name_is_taken_twice() -> None:
    assert LEDGER_MEANINGS.keys() == LEDGERS.keys()
    assert len(ALL) == len(BULK) + len(LEDGERS) + len(DERIVED)


@pytest.mark.parametrize("name", ALL)
def test_every_view_and_column_says_what_it_means(name: str) -> None:
    text, schema = ALL[name]
    assert text.strip() and all(meaning(field).strip() for field in schema)
    assert len(set(schema.names)) == len(schema.names)


def test_the_funnel_has_the_columns_that_curation_writes() -> None:
    assert views.BULK["funnel"][1].names == _FUNNEL.names
