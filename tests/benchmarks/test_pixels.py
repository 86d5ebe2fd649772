"""The odd pictures of the benchmark are many and distinct, and ours agrees wherever no browser is needed."""

from __future__ import annotations

import pytest

from benchmarks.odd import Case, cases
from benchmarks.pixels import Verdict, by_tifffile, compare

CASES = cases()


def test_names_are_distinct_and_kinds_are_many() -> None:
    names = {c.name for c in CASES}
    assert len(names) == len(CASES) >= 200 and len({c.kind for c in CASES}) >= 25
    assert {c.judge for c in CASES} == {"browser", "source", "tifffile", "refused"}
    assert all((c.truth is not None) == (c.judge == "source") for c in CASES)


@pytest.mark.parametrize("case", [c for c in CASES if c.judge != "browser"], ids=lambda c: c.name)
def test_ours_agrees_with_what_needs_no_browser(case: Case) -> None:
    verdict = compare(case, by_tifffile(case.data) if case.judge == "tifffile" else case.truth)
    assert verdict.passes, verdict.reason


def test_another_size_and_other_colours_do_not_pass() -> None:
    case = next(c for c in CASES if c.judge == "source")
    assert case.truth is not None
    assert not compare(case, case.truth.resize((10, 10))).passes
    assert not compare(case, case.truth.point(lambda v: v // 2)).passes
    assert not Verdict(case, (1, 1), None).sizes_equal
