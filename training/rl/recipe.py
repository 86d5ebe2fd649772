"""Recipes of reinforcement learning."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Annotated, Any

from flywheel.core.errors import UsageError
from flywheel.core.generator import MOST_GUIDANCE
from flywheel.core.ranges import Above, Amount, Count, Positive, Share, Span, require_ranges
from training.lora import TARGETS, require_lora
from training.recipe_file import named

ALGORITHMS = ("grpo", "guard", "nft")
STEPS = ("sde", "cps")  # kinds of a stochastic step
GUIDANCE = ("hybrid", "objective", "none")
EVERY = "*"

# Which verifier watches a reward on held-out prompts, in order of preference: never the reward itself, whose own score
# rises while it is gamed. The first one that is available and not trained on is taken. [D]
WATCHERS: Mapping[str, tuple[str, ...]] = {
    "ocr": ("alignment", "natural"),
    "alignment": ("instruction", "natural"),
    "aesthetic": ("alignment", "natural"),
    "portrait": ("alignment", "natural"),
    "consistency": ("instruction", "natural"),
    "instruction": ("alignment", "natural"),
}


@dataclass(frozen=True, kw_only=True)
class RLRecipe:
    """One RL phase. [S] report and the reports around it, [D] our decision where nothing public says it.

    weights: reward weights by prompt category; "*" applies to categories not listed [S: per category].
    algorithm: "grpo", "guard" (GRPO-Guard's ratio), "nft" (DiffusionNFT). step: "sde" or "cps".
    guidance: "hybrid" guides roll-outs and optimises the conditional branch alone [S]; "objective" optimises the
    guided velocity, both branches; "none" never guides. cfg: of guided roll-outs and of held-out pictures.
    sampling_steps: of a roll-out. window: (first, count) of its steps that are stochastic and trained: high noise only.
    DiffusionNFT instead noises the finished picture to `count` evenly spaced times.
    prompts, group: prompts per step, pictures per prompt. inner_steps: optimiser steps on one step's roll-outs.
    clip: range of the ratio below and above 1. kl: weight of the velocity KL to the reference.
    min_range: a reward whose range in a group is smaller is not used there. flat_steps: the run stops after as many
    steps in a row without a group to learn from; 0: never.
    proxies: reward → another verifier that watches it on held-out prompts; default: as in `WATCHERS`.
    check_every: steps between checks of the proxies, on up to `held_out` prompts. tolerance: standard errors by which
    a proxy must fall to count. mix_floor: smallest part of its base share that a prompt category keeps [D].
    learning_rate: without warm-up, falling linearly to its `final_learning_rate` share.
    lora_rank: 0 trains every weight; lora_alpha: 0 is twice the rank; lora_targets: layers of each block.
    nft_strength, nft_limit: DiffusionNFT's β, and the advantage from which a sample
    is certainly good: a small limit cuts off one side of a skewed group; the rest pulls all pictures to the guided
    ones.
    """

    name: str
    steps: Count
    weights: Annotated[Mapping[str, Mapping[str, float]], Span(0)]
    side: Positive
    prompts: Positive
    group: Annotated[int, Span(2)]
    learning_rate: Amount
    clip: Annotated[tuple[float, float], Span(0)]
    algorithm: str = "grpo"
    step: str = "sde"
    guidance: str = "hybrid"
    cfg: Annotated[float, Span(0, MOST_GUIDANCE)] = 3.0
    sampling_steps: Positive = 10
    window: tuple[int, int] = (0, 4)
    noise_level: Amount = 0.7
    inner_steps: Positive = 2
    kl: Amount = 0.01
    min_range: Amount = 0.01
    flat_steps: Count = 10
    proxies: Mapping[str, str] = field(default_factory=dict)
    check_every: Positive = 10
    held_out: Count = 32
    tolerance: Amount = 1.0
    mix_floor: Share = 0.25
    lora_rank: Count = 32
    lora_alpha: Amount = 0.0
    lora_targets: tuple[str, ...] = TARGETS
    final_learning_rate: Amount = 1.0
    weight_decay: Amount = 0.0
    betas: Annotated[tuple[float, float], Span(0, 1, below=True)] = (0.9, 0.95)
    gradient_clip: Above = 1.0
    ema: Share = 0.9
    checkpoint_every: Count = 10
    rows: Count = 0  # of one forward pass; 0: a whole prompt group
    nft_strength: Above = 1.0
    nft_limit: Above = 5.0

    def __post_init__(self) -> None:
        if self.group < 2:
            raise UsageError(f"group {self.group}: an advantage needs at least two pictures of a prompt")
        require_ranges(self)
        for name, allowed in {"algorithm": ALGORITHMS, "step": STEPS, "guidance": GUIDANCE}.items():
            if getattr(self, name) not in allowed:
                raise UsageError(f"{name} is {getattr(self, name)!r}: use one of {', '.join(allowed)}")
        first, count = self.window
        if first < 0 or count < 1 or first + count >= self.sampling_steps:
            raise UsageError(
                f"window {self.window} does not fit {self.sampling_steps} steps: the last one, which adds no noise, "
                "cannot be trained"
            )
        if itself := sorted(r for r, proxy in self.proxies.items() if r == proxy):
            raise UsageError(f"proxies: {itself[0]!r} cannot watch itself: name another verifier")
        require_lora(self)

    def weight(self, category: str, reward: str) -> float:
        """Base weight of a reward for a prompt category."""
        return self.weights.get(category, self.weights.get(EVERY, {})).get(reward, 0.0)

    @property
    def rewards(self) -> tuple[str, ...]:
        """Rewards that are trained on."""
        return tuple(sorted({name for row in self.weights.values() for name, weight in row.items() if weight}))

    def watchers(self, reward: str) -> tuple[str, ...]:
        """Verifiers that may watch `reward` on held-out prompts, the preferred ones first."""
        wanted = (self.proxies[reward],) if reward in self.proxies else WATCHERS.get(reward, ())
        return tuple(sorted((n for n in wanted if n != reward), key=lambda n: n in self.rewards))

    def proxy(self, reward: str, available: Collection[str]) -> str | None:
        """The verifier that watches `reward` on held-out prompts; None if none of its watchers is available."""
        return next((n for n in self.watchers(reward) if n in available), None)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self)


_report = partial(
    RLRecipe,
    group=24,
    clip=(1e-4, 1e-4),
    learning_rate=1e-4,
    sampling_steps=20,
    window=(1, 8),
    kl=0.01,
    cfg=4.0,
    prompts=48,
    steps=2000,
    lora_rank=64,
    ema=0.99,
)

RL_RECIPES = {
    # T2I: aesthetic, alignment, portrait; TI2I: instruction following, visual consistency [S]; their weights [D].
    "rl": _report(
        name="rl",
        side=512,
        weights={
            EVERY: {"aesthetic": 0.5, "alignment": 1.0, "instruction": 1.0, "consistency": 1.0},
            "portrait": {"aesthetic": 0.5, "alignment": 0.5, "portrait": 1.0},
            "typography": {"ocr": 1.0, "aesthetic": 0.25},
        },
    ),
    "rl-tiny": RLRecipe(
        name="rl-tiny",
        steps=40,
        side=64,
        weights={EVERY: {"instruction": 1.0}, "identity": {"instruction": 1.0, "consistency": 0.5}},
        prompts=6,
        group=8,
        learning_rate=1e-3,
        clip=(1e-3, 1e-3),
        window=(0, 4),
        lora_rank=16,
        held_out=16,
    ),
}


def rl_recipe(name: str, **changes: Any) -> RLRecipe:
    """A named recipe, with changes. Errors: `UsageError` for unknown names and values."""
    return named(RL_RECIPES, name, changes)
