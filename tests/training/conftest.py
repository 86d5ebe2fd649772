"""Shared snapshot of the training tests."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.training.snapshots import card_rows, write_snapshot


@pytest.fixture(scope="session")
def snapshot(tmp_path_factory) -> Path:
    """150 T2I and 70 TI2I rows in one 64-pixel bucket."""
    folder = tmp_path_factory.mktemp("snapshot")
    return write_snapshot(folder, [{"rows": card_rows(150)}, {"rows": card_rows(70, task="ti2i")}])


@pytest.fixture(scope="session")
def trained(tmp_path_factory, snapshot):
    """The checkpoint of a short, uninterrupted tiny run on the snapshot."""
    from tests.training.tiny_runs import run

    return run(tmp_path_factory.mktemp("uninterrupted"), snapshot)


@pytest.fixture(scope="session")
def start(tmp_path_factory, trained):
    """A checkpoint like `trained` whose every weight matters."""
    from tests.training.rl_parts import random_start

    return random_start(tmp_path_factory.mktemp("start"), trained)


@pytest.fixture(scope="session")
def dinov2(tmp_path_factory) -> Path:
    """Folder of a tiny DINOv2."""
    from transformers import Dinov2Config, Dinov2Model

    folder = tmp_path_factory.mktemp("dinov2")
    torch.manual_seed(0)
    config = Dinov2Config(hidden_size=24, num_hidden_layers=2, num_attention_heads=2, image_size=56, patch_size=14)
    Dinov2Model(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    """Small products gain nothing from threads, and threads that wait for each other on a busy machine cost minutes."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
