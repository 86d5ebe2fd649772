"""Calibration: a check stays in a suite only if it tells true pictures from null pictures.

A check must pass at least 95 % of the true pictures and fail at least 95 % of each of its nulls. Which nulls those are
follows from what the check claims to measure, its task and its capability, not from how it measures it:

- an edit (task ti2i): the reference returned unedited, the edit of another pair, its tiles shuffled, a flat field;
  where the capability is text, also a wrong word;
- text in the picture (typography, long text, slides …): the picture of another prompt, a wrong word, its tiles
  shuffled, a flat field. Legible words in a blurred or compressed picture are still the right words;
- quality (photorealism, aesthetics): its tiles shuffled, a flat field, strong blur, JPEG quality 10, noise. A good
  photograph of something else is still a good photograph, so such a check judges no fidelity;
- everything else is fidelity to the prompt (object, count, colour, position …): the picture of another prompt, a flat
  field; where it is about places, also its tiles shuffled. A dog in a blurred or compressed picture is still a dog.

A picture of another prompt counts only where that prompt asks for something else.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from curation.verify.checks import Outcome, passed
from flywheel.core.files import read_json, write_json
from flywheel.signals import nulls
from flywheel.signals.judging import Verifiers, judge_images
from flywheel.signals.nulls import Trial
from flywheel.signals.suite import Prompt

LIMIT = 0.95  # share of true pictures that must pass, and of each null's pictures that must fail
OWN, UNEDITED, OTHER_EDIT, OTHER_PROMPT, WRONG_WORD = "own", "unedited", "other_edit", "other_prompt", "wrong_word"
_TOGETHER = 32  # pictures
_TEXT = ("typography", "multilingual_text", "long_text", "slides", "text_editing")
_QUALITY = ("photorealism", "aesthetics")
_PLACES = ("position", "relation", "composition")


def nulls_of(check: Mapping[str, Any], task: str) -> tuple[str, ...]:
    """Names of the nulls that a check must fail, by its task and capability: see above."""
    capability = check["capability"]
    words = (WRONG_WORD,) if capability in _TEXT else ()
    if task == "ti2i":
        return (UNEDITED, OTHER_EDIT, *words, "tile_shuffle", "flat")
    if capability in _QUALITY:
        return tuple(nulls.DAMAGES)
    shuffled = ("tile_shuffle",) if words or capability in _PLACES else ()
    return (OTHER_PROMPT, *words, *shuffled, "flat")


def is_fidelity(check: Mapping[str, Any], task: str) -> bool:
    """Whether the check tells if a picture shows what its prompt asks for."""
    return task == "t2i" and OTHER_PROMPT in nulls_of(check, task)


def fidelity(suite: Iterable[Prompt]) -> str:
    """A sentence on how many text-to-image prompts are judged by what they ask for; empty if all are."""
    prompts = [p for p in suite if p.task == "t2i"]
    judged = sum(any(is_fidelity(c, p.task) for c in p.checks) for p in prompts)
    if not judged:
        return "the suite judges no prompt fidelity: it has no check of what a prompt asks for"
    if judged == len(prompts):
        return ""
    return f"the suite judges prompt fidelity on {judged} of {len(prompts)} text-to-image prompts"


class Kind(NamedTuple):
    """A kind of check: calibrated as one."""

    verifier: str
    capability: str
    task: str


@dataclass(frozen=True)
class Separation:
    """How one kind of check does on the prompts of a suite.

    prompts: how many have it. own: share of true pictures that pass. nulls: share that passes of each null. left_out:
    why the suite does without it; empty if it is used. Shares in [0, 1].
    """

    verifier: str
    capability: str
    task: str
    prompts: int
    own: float | None
    nulls: Mapping[str, float]
    left_out: str = ""

    @property
    def name(self) -> str:
        """`verifier/capability`."""
        return f"{self.verifier}/{self.capability}"

    @property
    def worst(self) -> tuple[str, float]:
        """(the null that passes most often, its share)."""
        return max(self.nulls.items(), key=lambda x: x[1], default=("none", 0.0))

    @property
    def sentence(self) -> str:
        """The rates, and whether the check is used, for people."""
        if self.left_out:
            return f"left out: {self.name}, because {self.left_out}"
        null, share = self.worst
        return f"{self.name}: {self.own:.0%} of true pictures pass, at most {share:.0%} of a null ({null})"


@dataclass(frozen=True)
class Calibration:
    """The kinds of checks of a suite; passed: for each prompt, which of its true and null pictures pass it."""

    checks: tuple[Separation, ...]
    passed: Mapping[str, frozenset[str]]

    def write(self, path: Path, left_out: Sequence[str] = ()) -> None:
        """Write the rates, and the ids of the prompts that were `left_out`, as JSON."""
        write_json(path, {"limit": LIMIT, "checks": [asdict(c) for c in self.checks], "left_out": sorted(left_out)})

    def kept(self, prompt: Prompt) -> Prompt:
        """The prompt with the checks that separate."""
        good = {Kind(c.verifier, c.capability, c.task) for c in self.checks if not c.left_out}
        checks = tuple(c for c in prompt.checks if _kind(c, prompt.task) in good)
        return replace(prompt, checks=checks)

    def tells(self, prompt: Prompt) -> bool:
        """Whether the prompt's own checks tell its edit from the unedited reference and from other edits."""
        if prompt.task != "ti2i":
            return True
        passed = self.passed.get(prompt.prompt_id, frozenset())
        return OWN in passed and not passed & {UNEDITED, OTHER_EDIT}


def load_separations(suite: Path) -> list[Separation]:
    """The rates that were measured when the suite file was made; none if it was not made from a pool."""
    path = suite.with_name("calibration.json")
    return [Separation(**row) for row in read_json(path)["checks"]] if path.exists() else []


def separation(suite: Path) -> dict[str, dict[str, float]]:
    """{check: {"own": share of true pictures that pass, "null": that of the worst null}} of the checks in use."""
    used = (c for c in load_separations(suite) if not c.left_out)
    return {c.name: {"own": c.own or 0.0, "null": c.worst[1]} for c in used}


def calibrate(
    trials: Sequence[Trial],
    spare: Sequence[Trial] = (),
    *,
    by: Verifiers | None = None,
    progress: Callable[[int, int, str], None] | None = None,
) -> Calibration:
    """Judge the true pictures and the nulls of every check. Costs one judgement per picture.

    spare: trials that no suite will have; their pictures serve as those of other prompts.
    """
    counts: dict[Kind, dict[str, list[bool]]] = {}
    reasons: dict[Kind, str] = {}
    verdicts: dict[str, dict[str, list[bool]]] = {}
    judged = [(name, t) for number in range(len(trials)) for name, t in _pictures([*trials, *spare], number)]
    for (name, trial), of_prompt in zip(judged, _outcomes([t for _, t in judged], by, progress)):
        verdicts.setdefault(trial.prompt.prompt_id, {}).setdefault(name, []).append(passed(of_prompt))
        for outcome in of_prompt:
            kind = Kind(outcome.verifier, outcome.capability, trial.prompt.task)
            shares = counts.setdefault(kind, {OWN: []})
            if outcome.passed is None:
                reasons.setdefault(kind, str(outcome.evidence.get("not_applied", "it could not be applied")))
            else:
                shares.setdefault(name, []).append(outcome.passed)
    checks = tuple(_separation(kind, counts[kind], trials, reasons.get(kind, "")) for kind in sorted(counts))
    # A prompt passes a null if one picture of it passes, its true pictures only if all do.
    names = {i: frozenset(n for n, v in of.items() if (all if n == OWN else any)(v)) for i, of in verdicts.items()}
    return Calibration(checks, names)


def _outcomes(
    trials: Sequence[Trial], by: Verifiers | None, progress: Callable[[int, int, str], None] | None
) -> Iterator[list[Outcome]]:
    """The outcomes of each trial's checks, a few pictures at a time."""
    for done in range(0, len(trials), _TOGETHER):
        some = trials[done : done + _TOGETHER]
        outcomes = judge_images([t.prompt for t in some], [t.picture for t in some], by=by)
        if progress:
            progress(done + len(some), len(trials), "true and null pictures judged")
        yield from outcomes


def _pictures(trials: Sequence[Trial], number: int) -> Iterator[tuple[str, Trial]]:
    """(name of a null, or `own`; the trial with its picture and only the checks that it concerns)."""
    trial = trials[number]
    task, checks = trial.prompt.task, trial.prompt.checks
    yield OWN, trial
    if mirrored := [c for c in checks if _mirrors(c, task)]:
        yield OWN, _with(trial, mirrored, nulls.mirrored(trial.picture))
    for name in sorted({n for c in checks for n in nulls_of(c, task)}):
        for null in _nulls(trials, number, name):
            yield name, _with(null, [c for c in null.prompt.checks if name in nulls_of(c, task)], null.picture)


def _mirrors(check: Mapping[str, Any], task: str) -> bool:
    """Whether a mirrored picture must pass as well; then the rate rests on more than the picture that was chosen."""
    return task == "t2i" and check["capability"] not in (*_TEXT, *_PLACES)


def _nulls(trials: Sequence[Trial], number: int, name: str) -> list[Trial]:
    trial = trials[number]
    if name == UNEDITED:
        return nulls.unedited(trial)
    if name in (OTHER_EDIT, OTHER_PROMPT):
        return nulls.others(trials, number)
    if name == WRONG_WORD:
        return [nulls.wrong_words(trial)]
    return [replace(trial, picture=nulls.damaged(name, trial.picture))]


def _with(trial: Trial, checks: Sequence[dict[str, Any]], picture: bytes) -> Trial:
    return Trial(replace(trial.prompt, checks=tuple(checks)), picture)


def _separation(kind: Kind, shares: Mapping[str, list[bool]], trials: Sequence[Trial], reason: str) -> Separation:
    prompts = sum(any(_kind(c, t.prompt.task) == kind for c in t.prompt.checks) for t in trials)
    own = shares[OWN]
    rates = {name: sum(v) / len(v) for name, v in sorted(shares.items()) if name != OWN and v}
    expected = nulls_of({"capability": kind.capability}, kind.task)
    if not own:
        left_out = reason
    elif sum(own) < LIMIT * len(own):
        left_out = f"it passes {sum(own)} of {len(own)} true pictures, {LIMIT:.0%} must pass"
    elif absent := [n for n in expected if n not in rates]:
        left_out = f"there is no picture of the null {absent[0]} to try it on"
    elif rates[loudest := max(expected, key=lambda n: rates[n])] > 1 - LIMIT + 1e-9:
        left_out = f"it passes {rates[loudest]:.0%} of the null {loudest}, {LIMIT:.0%} must fail"
    else:
        left_out = ""
    return Separation(**kind._asdict(), prompts=prompts, own=_mean(own), nulls=rates, left_out=left_out)


def _kind(check: Mapping[str, Any], task: str) -> Kind:
    return Kind(check["verifier"], check["capability"], task)


def _mean(passes: Sequence[bool]) -> float | None:
    return sum(passes) / len(passes) if passes else None
