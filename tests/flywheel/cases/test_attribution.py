"""The track of a case from its evidence, and the budget of experiments."""

import pyarrow as pa

from flywheel.cases.attribution import affordable, attribute, batches
from flywheel.presets import Attribution
from flywheel.signals.suite import Prompt


def test_attribution_order():
    settings = Attribution(seeds=3, sparse_percentile=25)

    def track(enhanced: bool | None, seeds: int, density: float) -> str:
        row = {
            "enhanced": "better",
            "enhanced_seeds": 1,
            "enhanced_passed": enhanced if enhanced is None else int(enhanced),
        }
        row |= {"seeds": 3, "seeds_passed": seeds, "density": density}
        return attribute(pa.Table.from_pylist([row]), settings)[0][0]

    assert track(True, 3, 0) == "prompt_enhancement"
    assert track(False, 1, 0) == "rl"
    assert track(None, 0, 10) == "pretraining"
    assert track(False, 0, 80) == "human"


def test_unsure_says_why():
    columns = {"seeds": [1, None, 3, 3], "seeds_passed": [0, None, 0, 0], "density": [1.0, None, None, 24.0]}
    table = pa.table(
        columns | {k: pa.nulls(4, pa.int64()) for k in ("enhanced_seeds", "enhanced_passed")}
    ).append_column("enhanced", pa.nulls(4, pa.string()))
    verdicts = attribute(table, Attribution(seeds=3, min_seeds=3, unsure_margin=2))
    assert {t for t, _ in verdicts} == {"unsure"}
    assert [r.split(":")[1].split(",")[0].strip() for _, r in verdicts] == [
        "only 1 seeds were tried",
        "not experimented on yet",
        "none of 3 seeds passes",
        "none of 3 seeds passes",
    ]


def test_the_budget_pays_for_the_first_prompts_in_whole_batches():
    prompts = [Prompt(str(n), str(n), "t2i", (), ()) for n in range(70)]
    assert len(affordable(prompts, Attribution(seeds=3, budget=41))) == 10
    assert [len(b) for b in batches(affordable(prompts, Attribution(seeds=3)))] == [32, 32, 6]
