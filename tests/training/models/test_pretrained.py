"""Where published weights lie, and what identifies them."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from flywheel.core.errors import UsageError
from training.models.pretrained import locate, require_finite_weights, weights_digest


def test_a_models_own_folder_and_a_pipelines(tmp_path):
    own, pipeline = tmp_path / "own", tmp_path / "pipeline"
    for folder, file in ((own, "config.json"), (pipeline / "text_encoder", "tokenizer.json")):
        folder.mkdir(parents=True)
        (folder / file).write_text("{}")
    assert locate(str(own), "vae") == own
    assert locate(str(pipeline), "text_encoder") == pipeline / "text_encoder"


@pytest.mark.parametrize("name", ["/no/such/folder", "./none", "just-a-word", "a/b/c"])
def test_what_is_neither_folder_nor_tag_is_refused_without_the_network(name):
    with pytest.raises(UsageError, match="neither a folder nor a hub tag .* give the folder of a VAE"):
        locate(name, "vae")


def test_a_folder_of_something_else_is_refused(tmp_path):
    with pytest.raises(UsageError, match="has neither config.json nor text_encoder/: give the folder of a text enc"):
        locate(str(tmp_path), "text_encoder")


def test_a_tag_that_cannot_be_downloaded_says_why(monkeypatch):
    pytest.importorskip("huggingface_hub")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(UsageError, match="VAE owner/name cannot be downloaded from the hub"):
        locate("owner/name", "vae")


def test_a_digest_is_of_names_types_and_values():
    def model(value: float = 1.0, kind: torch.dtype = torch.float32) -> nn.Linear:
        layer = nn.Linear(2, 2).to(kind)
        nn.init.constant_(layer.weight, value)
        nn.init.constant_(layer.bias, 0)
        return layer

    same = weights_digest(model())
    assert weights_digest(model()) == same and len(same) == 64
    others = [weights_digest(model(2.0)), weights_digest(model(kind=torch.bfloat16)), weights_digest(model(), "minilm")]
    wrapped = weights_digest(nn.ModuleDict({"a": model()}))
    assert len({same, wrapped, *others}) == 5


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16, torch.float16])
def test_a_weight_that_is_not_finite_is_named_with_its_owner(value, kind):
    good, bad = torch.ones(3, dtype=kind), torch.tensor([1.0, value, 2.0]).to(kind)
    require_finite_weights("a", [("x", good), ("ids", torch.arange(3)), ("empty", torch.zeros(0))])
    with pytest.raises(UsageError, match=r"a/b: the weight y is not finite \(NaN or infinity\): .*another one"):
        require_finite_weights("a/b", [("x", good), ("y", bad), ("z", bad)])
