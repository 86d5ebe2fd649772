"""The learning rate's fall, and the optimiser."""

from __future__ import annotations

import pytest


def test_a_falling_rate_ends_at_its_share():
    from training.state import falling

    assert [falling(0.1, step, 4) for step in range(4)] == pytest.approx([1.0, 0.7, 0.4, 0.1])
    assert falling(1.0, 3, 4) == falling(0.1, 0, 1) == 1.0


def test_the_optimiser_takes_the_steps_of_pytorchs():
    import torch

    from training.state import AdamW, adamw

    def trained(of):
        model = torch.nn.Linear(8, 2)
        torch.nn.init.constant_(model.weight, 0.5)
        optimizer = of(dict(model.named_parameters()))
        for n in range(1, 4):
            optimizer.zero_grad()
            model(torch.arange(8.0) / n).square().sum().backward()
            optimizer.step()
        assert optimizer.state[model.weight]["step"] == 3 and not model.weight.isnan().any()
        return model.weight

    torch.manual_seed(0)
    ours = trained(lambda named: adamw(named, 0.1, 0.1, (0.9, 0.95)))
    options = {"lr": 0.1, "weight_decay": 0.1, "betas": (0.9, 0.95), "fused": True}
    torch.manual_seed(0)
    assert torch.equal(ours, trained(lambda named: torch.optim.AdamW(named.values(), **options)))
    assert AdamW.step is not torch.optim.AdamW.step
