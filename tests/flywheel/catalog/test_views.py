"""The analysts' tables as they are described."""

from __future__ import annotations

import pyarrow as pa
import pytest

from curation.decide.judge import _FUNNEL
from curation.scorers import SCORERS
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


class Plain:
    """A plug-in as the example of `flywheel.Scorer` has it: its fields say nothing of themselves."""

    fields = (pa.field("mean", pa.float64()), pa.field("least", pa.float64(), metadata={"unit": "level"}))


def test_scores_of_a_plug_in_need_no_description(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SCORERS, "plain", f"{__name__}:Plain")
    mine = [field for field in views._scores() if field.name.startswith("plain.")]
    assert [field.name for field in mine] == ["plain.mean", "plain.least"] and all(map(meaning, mine))


def test_the_funnel_has_the_columns_that_curation_writes() -> None:
    assert views.BULK["funnel"][1].names == _FUNNEL.names
