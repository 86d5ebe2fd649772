"""Rows of shards as samples."""

from __future__ import annotations

from pathlib import Path

import pytest

from curation.export.request import folder_of, parts, request
from curation.export.rows import Tally, samples, suffix
from tests.curation.corpus import encoded, texture
from tests.curation.export.exporting import ROWS, SNAPSHOT, snapshot


@pytest.mark.parametrize(("form", "name"), [("JPEG", "jpg"), ("PNG", "png")])
def test_the_extension_is_that_of_the_bytes(form: str, name: str) -> None:
    assert suffix(encoded(texture(0), form)) == name


def test_keys_are_unique_and_counts_are_of_what_was_read(tmp_path: Path) -> None:
    workspace = snapshot(tmp_path)
    wanted, manifest = request(workspace, format="hf", snapshot=SNAPSHOT, part_bytes=30_000)
    keys, tally = [], Tally()
    for part in parts(wanted, manifest):
        tally = Tally()
        keys += [s.key for s in samples(folder_of(workspace, wanted), part, "knowledge", tally)]
        assert tally.rows == sum(tally.licences.values()) == sum(tally.tasks.values())
    assert len(keys) == len(set(keys)) == 2 * ROWS
