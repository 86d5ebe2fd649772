"""The rule of weights and prompt mix."""

from __future__ import annotations

import pytest

from training.rl.balance import Balance, check, mix, observe


def test_a_reward_that_rises_while_its_proxy_falls_is_held_back_until_it_recovers():
    proxy = {str(i): 0.5 + 0.01 * (i % 3) for i in range(9)}
    fallen = {k: v - 0.1 for k, v in proxy.items()}
    balance, _ = check(Balance(), {"ocr": None}, {"ocr": proxy}, 1.0)
    assert check(balance, {"ocr": 0.1}, {"ocr": fallen}, 1.0)[0].factor("ocr") == 0.5  # risen since the start
    balance, _ = check(Balance(), {"ocr": 0.4}, {"ocr": proxy}, 1.0)
    balance, decided = check(balance, {"ocr": 0.6}, {"ocr": fallen}, 1.0)
    assert balance.factor("ocr") == 0.5 and decided["ocr"].startswith("held back: proxy -0.1000")
    balance, _ = check(balance, {"ocr": 0.6}, {"ocr": fallen}, 1.0)
    assert balance.factor("ocr") == 0.25
    # The reward fell back too: nothing rises while the proxy is down.
    balance, decided = check(balance, {"ocr": 0.3}, {"ocr": fallen}, 1.0)
    assert balance.factor("ocr") == 0.5 and decided["ocr"].startswith("kept")
    better = {k: v + 0.1 for k, v in proxy.items()}
    balance, _ = check(balance, {"ocr": 0.7}, {"ocr": better}, 1.0)
    assert balance.factor("ocr") == 1.0 and balance.best["ocr"].proxy == better
    noisy = {k: v + (0.3 if i % 2 else -0.26) for i, (k, v) in enumerate(better.items())}
    balance, decided = check(balance, {"ocr": 0.8}, {"ocr": noisy}, 1.0)
    assert balance.factor("ocr") == 1.0, decided  # within its own error
    balance, decided = check(balance, {"ocr": 0.8}, {"ocr": {}}, 1.0)
    assert decided == {"ocr": "not measured"} and Balance.from_dict(balance.to_dict()) == balance


def test_the_mix_leaves_what_teaches_nothing_down_to_a_floor():
    balance, base = Balance(), {"easy": 0.5, "good": 0.5}
    assert mix(balance, base, 0.25) == base
    for _ in range(20):
        balance = observe(balance, [("easy", False), ("good", True), ("good", False)])
    shares = mix(balance, base, 0.25)
    assert shares["easy"] == pytest.approx(0.25 / 0.75, abs=0.01) and sum(shares.values()) == pytest.approx(1)
