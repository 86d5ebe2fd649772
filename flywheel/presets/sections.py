"""The sections of a preset: what each setting means, and the range that it must lie in."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from string import Formatter
from typing import Annotated, Any

from flywheel.core.errors import UsageError
from flywheel.core.generator import MOST_GUIDANCE
from flywheel.core.plugins import names
from flywheel.core.ranges import Amount, Count, Positive, Share, Span, require_ranges

Signed = Annotated[float, Span(-1, 1)]
Percent = Annotated[float, Span(0, 100)]
AbovePercent = Annotated[float, Span(0, 100, above=True)]
Alpha = Annotated[float, Span(0, 0.5, above=True, below=True)]
Margin = Annotated[float, Span(0, 1, above=True)]
Margins = Annotated[Mapping[str, float], Span(0, 1, above=True)]


@dataclass(frozen=True, kw_only=True)
class Training:
    """Which recipe trains, and for how many optimiser steps."""

    recipe: Mapping[str, Any]  # `base` names a recipe of `training.recipes`; further keys change it
    base_steps: Positive  # first round, all stages together
    round_steps: Positive  # every later round, candidate and control alike
    round_stages: tuple[str, ...] = ()  # stages that later rounds train, such as ("S4", "S5", "S6"); (): all
    processes: Positive = 1  # that train each model together, also in RL and distillation; with GPUs, one each
    start: str = ""  # checkpoint to start from, which the first round judges: a folder, or a plug-in; "": none

    def __post_init__(self) -> None:
        require_ranges(self, "training.")

    def recipe_of(self, *, later: bool) -> dict[str, Any]:
        """The recipe of the first round, or of a later one."""
        return {**self.recipe, "stages": list(self.round_stages)} if later and self.round_stages else dict(self.recipe)


@dataclass(frozen=True, kw_only=True)
class Trainer:
    """What trains a round's data phase: our own loop, or a command of your own.

    command: split as a shell would, but run without one; each of `PLACEHOLDERS` in braces is replaced. It must leave a
    generator in {output}. After a kill, the next run starts it again with the same folders, so that a script that saves
    its state there resumes.
    """

    command: str = ""  # empty: our own loop
    data: str = "manifest"  # what {data} is: manifest | images | webdataset
    samples: Count = 0  # rows that are exported as images or webdataset; 0: as many as the mix has
    control: bool = True  # also train the control, without the round's remedies

    PLACEHOLDERS = ("data", "incumbent", "output", "steps", "seed", "arm")

    def __post_init__(self) -> None:
        require_ranges(self, "trainer.")
        if self.data not in ("manifest", "images", "webdataset"):
            raise UsageError(f"trainer.data is {self.data!r}: choose manifest, images or webdataset")
        try:
            used = {name for _, name, _, _ in Formatter().parse(self.command) if name is not None}
        except ValueError as error:
            raise UsageError(f"trainer.command: {error}; write a brace of your own twice") from error
        if unknown := used - set(self.PLACEHOLDERS):
            raise UsageError(
                f"trainer.command: {{{min(unknown)}}} is unknown; choose among {', '.join(self.PLACEHOLDERS)}, and "
                "write a brace of your own twice"
            )
        try:
            shlex.split(self.command)
        except ValueError as error:
            raise UsageError(f"trainer.command cannot be split into words ({error}): close its quotes") from error
        if self.command and "output" not in used:
            raise UsageError("trainer.command has no {output}: the command must leave the trained generator there")


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """How the suite is sampled and judged."""

    suite: str  # pool: held-out rows of the pool; a .jsonl file; or the name of a plug-in, such as demo
    side: Annotated[int, Span(8, 16384)]  # pixels
    steps: Annotated[int, Span(1, 10_000)]
    cfg: Annotated[float, Span(0, MOST_GUIDANCE)]
    pictures: Annotated[int, Span(1, 10_000)] = 2  # per prompt, each from a seed of its own
    held_out: Annotated[int, Span(1, 100_000)] = 32  # pool suite: pictures kept from training
    hidden: float | str = 0.2  # share of the suite that is judged and never chased, or a .jsonl suite of its own
    judge: Mapping[str, Any] = field(
        default_factory=dict
    )  # VLM judge: url, model, key_variable; or kind: a plug-in; {}: none
    scorers: Mapping[str, Any] = field(default_factory=dict)  # options of scorers that need them: clip, detector

    def __post_init__(self) -> None:
        require_ranges(self, "evaluation.")
        for name, options in self.scorers.items():
            if not isinstance(options, Mapping):
                raise UsageError(f"evaluation.scorers.{name} is {options!r}: give a table of its options")
        known = ("pool", *names("flywheel.suites"))
        if self.suite not in known and not self.suite.endswith(".jsonl"):
            raise UsageError(f"unknown suite {self.suite!r}: choose {', '.join(known)} or a .jsonl file")
        if isinstance(self.hidden, str) and not self.hidden.endswith(".jsonl"):
            raise UsageError(f"evaluation.hidden is {self.hidden!r}: give a share or a .jsonl file")
        if not isinstance(self.hidden, str) and not 0 <= self.hidden <= 0.5:
            raise UsageError(f"evaluation.hidden is {self.hidden}: give a share from 0 to 0.5")


@dataclass(frozen=True, kw_only=True)
class Attribution:
    """Budget and thresholds of error attribution."""

    seeds: Count  # further seeds per failing prompt and round
    enhanced_seeds: Count = 1  # seeds of the enhanced prompt
    enhanced_gain: Signed = 0.0  # the enhanced prompt's share of passes must exceed the prompt's own by this much
    min_seeds: Count = 1  # a case with fewer seeds, all failed, stays unsure
    unsure_margin: Percent = 0.0  # percentile points around `sparse_percentile` within which density is unsure
    budget: Count = 0  # images of one round's experiments; 0: enough for all cases
    neighbours: Positive = 8  # captions that measure the density around a prompt
    sparse_percentile: AbovePercent = 25.0  # below this percentile of the pool's own density the pool is sparse

    def __post_init__(self) -> None:
        require_ranges(self, "attribution.")


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How routed cases become a data quota, and how many of them make an RL run."""

    remedy_share: Share  # share of rows that serves cases, among the next round's rows without the kept ones
    max_targets: Positive  # capabilities served with data in one round, those with most cases in sparse regions first
    min_cases: Positive  # a capability with fewer open cases is not served with data; RL needs as many in all
    samples: Count  # remedy samples of one round, over all targets
    kept_share: Share = 0.3  # share of rows that keep what the incumbent can do: see `flywheel.rounds.plan.make_plan`
    retrieval_similarity: Signed = 0.6  # least cosine between prompt and caption
    picture_similarity: Signed = 0.8  # least cosine between pictures
    picture_text_similarity: Signed = 0.28  # least cosine between prompt and picture, where a CLIP is configured

    def __post_init__(self) -> None:
        require_ranges(self, "plan.")


@dataclass(frozen=True, kw_only=True)
class Review:
    """Human review of the samples that enter the remedy shards."""

    auto_approve: bool = False  # approve without a reviewer; the ledger records that
    reviews: Count = 1  # per sample, each by a different person; more than half must accept
    claim_minutes: Amount = 30.0  # a claim that is not decided by then passes to the next reviewer
    seconds: Amount = 15.0  # duration of one review, for the plan's estimate
    deadline_hours: Amount = 72.0  # after queueing; samples without a review by then are left out. 0: no deadline

    def __post_init__(self) -> None:
        require_ranges(self, "review.")
        if self.reviews < 1:
            raise UsageError("review.reviews: give at least 1, or set auto_approve = true for no review")


@dataclass(frozen=True, kw_only=True)
class Rewards:
    """The RL run of a round, and the rule that turns RL cases into its reward weights and prompt mix.

    See `flywheel.remedies.reward_policy`.
    """

    recipe: str | Mapping[str, Any] = "rl-tiny"  # RL recipe; as a table, `base` names it and further keys change it
    updates: Count = 0  # optimiser steps of a round's RL run; 0: RL cases wait, and the plan says so
    prompts: Positive = 256  # prompts of the RL run
    floor: Share = 0.2  # share of prompts and weight that is split evenly, so that no capability is forgotten
    focus: Share = 0.6  # weight of a category's own rewards in its vector
    damping: Share = 0.5  # factor for a reward whose rise made another capability worse

    def __post_init__(self) -> None:
        require_ranges(self, "rewards.")


@dataclass(frozen=True, kw_only=True)
class Enhancer:
    """The prompt enhancer: attribution tries it, systems may draw through it, rounds train it if it is a causal LM."""

    backend: str = "rules"  # rules | the folder or hub tag of a causal LM | http(s)://…/v1
    model: str = ""  # model of an endpoint
    key_variable: str = ""  # environment variable that holds the endpoint's key
    sees: bool = False  # the endpoint's model gets the references of edits too, so it must accept pictures
    draw: bool = False  # candidates draw through it from the first round; else once a round has trained one
    examples: Positive = 512  # reverse-engineered training examples per round
    sft_steps: Count = 100  # optimiser steps of a round's SFT of a causal LM; 0: it is not trained
    grpo_steps: Count = 20  # optimiser steps of the GRPO that follows
    batch: Positive = 8  # rows per step; in GRPO, the rewrites of one prompt
    lora: Count = 16  # rank of the LoRA adapters; 0 trains all weights

    def __post_init__(self) -> None:
        require_ranges(self, "enhancer.")
        endpoint = self.backend.startswith(("http://", "https://"))
        if not self.backend or ("://" in self.backend and not endpoint and not self.backend.startswith("s3://")):
            raise UsageError(f"enhancer.backend is {self.backend!r}: give rules, a folder, a hub tag or http(s)://…/v1")
        if endpoint and not self.model:
            raise UsageError("enhancer.model is empty: name the model of the endpoint")
        if self.batch < 2 and self.grpo_steps:
            raise UsageError("enhancer.batch is 1: GRPO compares rewrites of a prompt, give 2, or set grpo_steps = 0")

    @property
    def trainable(self) -> bool:
        """True for a causal LM: rules have no weights, and an endpoint's are elsewhere."""
        return self.backend != "rules" and not self.backend.startswith(("http://", "https://"))


@dataclass(frozen=True, kw_only=True)
class Distil:
    """The few-step student of a round's candidate."""

    recipe: str | Mapping[str, Any] = "dmd-tiny"  # as a table, `base` names it and further keys change it
    updates: Count = 0  # student updates; 0: rounds distil no student
    prompts: Positive = 128  # captions of the pool to distil on

    def __post_init__(self) -> None:
        require_ranges(self, "distil.")


@dataclass(frozen=True, kw_only=True)
class Gate:
    """When the gate blocks a candidate; see `flywheel.rounds.gate`."""

    alpha: Alpha = 0.05  # level of each one-sided test: share of candidates that pass it by chance
    margin: Margin = 0.1  # rise of a failure rate, as a share of pictures, that must be ruled out in every capability
    margins: Margins = field(default_factory=dict)  # of single capabilities; 1: never ruled out, not guarded

    def __post_init__(self) -> None:
        require_ranges(self, "gate.")

    def margin_of(self, capability: str) -> float:
        """The margin of a capability."""
        return self.margins.get(capability, self.margin)
