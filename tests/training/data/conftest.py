"""What the tests of reading share."""

from __future__ import annotations

from urllib.request import Request, urlopen

import pytest
import torch

from tests.training.snapshots import card_rows, write_snapshot
from training.models.autoencoder import PatchAutoencoder


@pytest.fixture(scope="module")
def autoencoder():
    """Orthonormal patches of 8 pixels, drawn."""
    basis, _ = torch.linalg.qr(torch.randn(192, 16, generator=torch.Generator().manual_seed(0)))
    return PatchAutoencoder(torch.zeros(192), basis.contiguous(), torch.full((16,), 3.0))


@pytest.fixture
def faulty(tmp_path):
    """Two shards of one layout: row 17 of the first is damaged; and the second's path, to be removed."""
    rows = card_rows(30)
    rows[17]["image"] = rows[17]["image"][:60]
    return write_snapshot(tmp_path, [{"rows": rows}, {"rows": card_rows(30, seed=1)}]), tmp_path / "00001.parquet"


@pytest.fixture(scope="module")
def bucket(s3_server):
    """A bucket for every test of this file."""
    host, port = s3_server
    urlopen(Request(f"http://{host}:{port}/snapshots", method="PUT")).close()
    return "s3://snapshots"
