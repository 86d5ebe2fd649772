"""Scores as facets: which ones are offered, their histograms, and the policy's thresholds."""

from __future__ import annotations

from contextlib import closing

from dashboards.scores import BINS, Threshold, facet, offered
from flywheel.catalog.database import connect
from flywheel.core.lens import latest_snapshot
from flywheel.core.workspace import Workspace


def test_offered_are_numbers_that_the_pool_has(curated: Workspace, empty: Workspace) -> None:
    with closing(connect(curated, ("scores",))) as con:
        names = offered(con)
    assert {"pixels.entropy", "header.short_edge"} <= set(names)
    assert "header.format" not in names and "clip.similarity" not in names, "no text, and nothing that never ran"
    with closing(connect(empty, ("scores",))) as con:
        assert offered(con) == []


def test_a_facet_counts_every_row_once_and_knows_the_thresholds(curated: Workspace) -> None:
    snapshot = latest_snapshot(curated) or ""
    with closing(connect(curated, ("scores",))) as con:
        size = facet(curated, con, snapshot, "header.short_edge")
        assert facet(curated, con, snapshot, "clip.similarity") is None
    assert size is not None and (size.low, size.high) == (80.0, 128.0)
    assert (size.bins[0], size.bins[-1], sum(size.bins), len(size.bins)) == (1, 5, 6, BINS)
    assert Threshold("S1.resolution.min", 64.0) in size.thresholds
    assert (size.place(80.0), size.place(104.0), size.place(64.0)) == (0.0, 0.5, -1 / 3)
