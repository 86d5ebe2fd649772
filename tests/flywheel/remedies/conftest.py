"""The pool that remedies are made from, and requests for rewards, once per session."""

from __future__ import annotations

from pathlib import Path

import pytest

from flywheel.remedies.rewards import Local
from tests.flywheel.remedies.cards import write_base
from tests.flywheel.remedies.samples import request, samples
from training.rewards import Request


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shard manifest of a small pool of cards."""
    return write_base(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="session")
def requests() -> list[Request]:
    """A right card, the wrong card, a damaged file, and an edit that kept everything."""
    (right, wrong), (edit,) = samples("position"), samples("identity", 1)
    return [request(right), request(right, wrong.image), request(right, right.image[:60]), request(edit)]


@pytest.fixture(scope="session")
def local() -> Local:
    """Rewards computed in this process."""
    return Local(("instruction", "consistency", "portrait"))
