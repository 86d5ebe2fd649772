"""Whether a commit is whole, wherever it was cut off."""

from __future__ import annotations

import json
from pathlib import Path

from flywheel.core import commit_log
from flywheel.core.ledger import Ledger
from flywheel.core.workspace import Workspace


def test_a_commit_that_is_cut_off_at_any_byte_is_not_whole(tmp_path: Path):
    ledger = Ledger(Workspace(tmp_path / "w"), "signals")
    ledger.append([{"signal_id": "a"}], key="k")
    assert commit_log.newest(ledger.path) == 1
    data = (ledger.path / commit_log.name(1)).read_bytes()
    assert commit_log.whole(data, 1)
    assert not any(commit_log.whole(data[:cut], 1) for cut in range(len(data)))


def test_a_commit_of_an_earlier_version_states_no_number_of_lines():
    lines = [json.dumps(line) for line in ({"commitInfo": {"operation": "WRITE"}}, {"add": {}})]
    assert commit_log.whole("\n".join(lines).encode(), 1)
    assert not commit_log.whole(b"[]", 1) and not commit_log.whole(b"{}", 1) and not commit_log.whole(b"", 1)
    assert commit_log.newest(Path("/nowhere")) is None
