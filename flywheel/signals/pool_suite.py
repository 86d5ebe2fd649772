"""A held-out suite from a user's own pool: some good rows are permanently kept from training and used for tests."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flywheel.core.errors import UsageError
from flywheel.core.files import write_bytes
from flywheel.core.image import decode_working
from flywheel.core.scorer import Item
from flywheel.core.scratch import Scratch
from flywheel.core.workspace import Workspace
from flywheel.presets import Evaluation
from flywheel.signals.calibration import Calibration, calibrate
from flywheel.signals.held_rows import Row, drawn, square
from flywheel.signals.judging import Verifiers
from flywheel.signals.limits import least_scores, photo_ranges
from flywheel.signals.nulls import Trial
from flywheel.signals.pinned import write_held_out
from flywheel.signals.suite import Prompt, write_rows

if TYPE_CHECKING:
    from curation.policy.policy import Policy
    from curation.synthesis import Sample

SHARE = 10  # at most one sound row in ten is kept from training
SPARE = 48  # further rows, at most, to fit limits to
SCORED = 24  # of these, rows whose least score is fitted: their checks are the dear ones
NULLS = 6  # further rows whose pictures serve as nulls where the suite has few
TYPOGRAPHY = 16  # prompts that quote a word
PICTURE_EDITING = "photo_editing"


def write(
    workspace: Workspace,
    policy: Policy,
    settings: Evaluation,
    *,
    seed: int,
    progress: Callable[[int, int, str], None] | None = None,
) -> Calibration:
    """Write the workspace's suite, its references, true pictures, calibration and list of held-out rows.

    Drawn from the sound rows of the scored pool, in proportion to their tasks and categories. Prompts: captions (does
    the picture show what they name, is it as sound as a photograph), edits of the same pictures, the pool's edit pairs,
    words to write. Only checks that separate are kept (`flywheel.signals.calibration`), and only edits that theirs
    tells from the unedited reference. Errors: `UsageError` if there are too few sound rows, or no check separates.
    """
    by = Verifiers.of(workspace, settings)
    candidates, sound = drawn(workspace, policy, 2 * settings.held_out + SPARE, side=settings.side, seed=seed)
    count = min(settings.held_out, sound // SHARE, len(candidates))
    if not count:
        raise UsageError(
            f"the pool has {sound} captioned pictures that pass the policy and its filters of quality; {SHARE} are "
            "needed to keep one for evaluation: give captions (--captions FILE.jsonl), or set evaluation.suite in the "
            "preset to a suite of your own"
        )
    first, spare = candidates[: 2 * count], candidates[2 * count :] or candidates
    limits = _Limits.fitted(spare, by)
    held = list(islice((row for row in first if limits.recognise(row, by)), count))
    with Scratch() as scratch:
        maker = _Maker(limits, by, scratch, settings.side, seed)
        trials = [*maker.of_rows(held), *maker.words()]
        others = maker.of_rows([r for r in candidates if r not in held][:NULLS])
        calibration = calibrate(trials, others, by=by, progress=progress)
        kept = [Trial(calibration.kept(t.prompt), t.picture) for t in trials if calibration.tells(t.prompt)]
        kept = [t for t in kept if t.prompt.checks]
        if not kept:
            reasons = "; ".join(c.sentence for c in calibration.checks)
            raise UsageError(
                "no check tells the pool's pictures from null pictures, so no round could be judged: set "
                f"evaluation.suite in the preset to a suite of your own ({reasons})"
            )
        names = {t.prompt.prompt_id for t in kept}
        left_out = [i for t in trials if (i := t.prompt.prompt_id) not in names]
        calibration.write(workspace.suite.with_name("calibration.json"), left_out)
        _save(workspace, kept, held)
    return calibration


def _save(workspace: Workspace, trials: Sequence[Trial], held: Sequence[Row]) -> None:
    """Write the references and true pictures, then the held-out ids, last the suite: with it, all exist."""
    folder = workspace.suite.parent
    for trial in trials:
        write_bytes(folder / "pictures" / f"{trial.prompt.prompt_id}.png", trial.picture)
        for path in trial.prompt.references:
            write_bytes(folder / "references" / path.name, path.read_bytes())
    used = {t.prompt.prompt_id.partition("-")[2] for t in trials}
    write_held_out(workspace, {i for r in held if _short(r) in used for i in (r.sample_id, *r.image_ids)})
    write_rows(workspace.suite, [_line(t.prompt) for t in trials])


def _short(row: Row) -> str:
    return row.sample_id[:12]


def _line(prompt: Prompt) -> dict[str, Any]:
    return {
        "prompt_id": prompt.prompt_id,
        "prompt": prompt.text,
        "task": prompt.task,
        "references": [f"references/{p.name}" for p in prompt.references],
        "checks": list(prompt.checks),
        "category": prompt.category,
    }


@dataclass(frozen=True)
class _Limits:
    """Limits of checks, fitted on rows that are not held out."""

    ranges: Mapping[str, Sequence[float]]  # of a `photo` check
    least: Mapping[str, float]  # verifier → least score of its checks

    @classmethod
    def fitted(cls, rows: Sequence[Row], by: Verifiers) -> _Limits:
        """Fit on the text-to-image rows."""
        plain, rows = cls({}, {}), [r for r in rows if r.task == "t2i"]
        prompts = [Prompt(_short(r), r.caption, r.task, (), tuple(plain.of_caption(r, by))) for r in rows]
        trials = [Trial(p, r.picture) for p, r in zip(prompts, rows)][:SCORED]
        return cls(photo_ranges([r.picture for r in rows]) if rows else {}, least_scores(trials, by=by))

    def of_caption(self, row: Row, by: Verifiers) -> list[dict[str, Any]]:
        """Checks of what a caption asks for."""
        from curation.scorers import Unavailable, load
        from curation.verify.objects import object_checks

        checks: list[dict[str, Any]] = []
        try:
            load("imagenet")
            checks += object_checks(row.caption)
        except Unavailable:
            pass  # a suite that judges no fidelity says so
        if "clip" in by.scorers:
            checks.append({"verifier": "alignment", "capability": "instruction_following"})
        return [c | ({"min": self.least[c["verifier"]]} if c["verifier"] in self.least else {}) for c in checks]

    def recognise(self, row: Row, by: Verifiers) -> bool:
        """Whether the row's own picture passes the checks of its caption, as far as it has any.

        A caption that its picture does not bear out, at the size that is evaluated, asks for what no check can judge.
        """
        from curation.verify.checks import verify

        checks = self.of_caption(row, by) if row.task == "t2i" else []
        (outcomes,) = verify([Item(row.picture, row.caption)], [checks], scorers=by.scorers)
        return all(o.passed is not False for o in outcomes)


@dataclass(frozen=True)
class _Maker:
    """Makes prompts with their true pictures; references are written to `folder`."""

    limits: _Limits
    by: Verifiers
    folder: Path
    side: int
    seed: int

    def of_rows(self, rows: Sequence[Row]) -> list[Trial]:
        """The caption and an edit of each text-to-image row, and the edit pairs as they are."""
        trials = []
        for number, row in enumerate(rows):
            trials += [self._caption(row), *self._edit(row, number)] if row.task == "t2i" else self._pair(row)
        return trials

    def words(self) -> list[Trial]:
        """Prompts that quote a word, where a recipe makes them."""
        from curation.synthesis import capabilities, synthesise

        if "typography" not in capabilities():
            return []
        samples = synthesise("typography", TYPOGRAPHY, seed=self.seed, exclude=frozenset())
        return [
            Trial(Prompt(f"word-{n:03d}", s.caption, "t2i", (), s.checks), square(s.image, self.side))
            for n, s in enumerate(samples)
        ]

    def _caption(self, row: Row) -> Trial:
        photo = {"verifier": "photo", "capability": "photorealism", "ranges": self.limits.ranges}
        checks = (*self.limits.of_caption(row, self.by), photo)
        return Trial(Prompt(f"photo-{_short(row)}", row.caption, "t2i", (), checks, category=row.category), row.picture)

    def _edit(self, row: Row, number: int) -> list[Trial]:
        """An edit that shows: operations in turn, now forward, now backward. None if no operation changes anything."""
        from curation.synthesis.photos import OPERATIONS, photo_edits

        for step in range(len(OPERATIONS)):
            operation = OPERATIONS[(number + step) % len(OPERATIONS)].as_asked
            edits = list(photo_edits(row.picture, seed=f"{self.seed}-{row.sample_id}", operations=(operation,)))
            if edits:
                return [self._edited(row, edits[number // len(OPERATIONS) % 2])]
        return []

    def _edited(self, row: Row, edit: Sample) -> Trial:
        checks = tuple({**c, "capability": PICTURE_EDITING} for c in edit.checks)
        name = f"edit-{_short(row)}"
        references = self._written(name, edit.references)
        return Trial(Prompt(name, edit.caption, "ti2i", references, checks, category=row.category), edit.image)

    def _pair(self, row: Row) -> list[Trial]:
        """The pool's own edit, if it changes something visible."""
        from curation.scorers.change import asked

        ranges = asked(decode_working(row.references[0]), decode_working(row.picture))
        if not ranges:
            return []
        check, name = {"verifier": "change", "capability": "editing", "ranges": ranges}, f"pair-{_short(row)}"
        references = self._written(name, row.references)
        return [Trial(Prompt(name, row.caption, "ti2i", references, (check,), category=row.category), row.picture)]

    def _written(self, name: str, references: Sequence[bytes]) -> tuple[Path, ...]:
        paths = tuple(self.folder / f"{name}-{n}.png" for n in range(len(references)))
        for path, reference in zip(paths, references):
            write_bytes(path, reference)
        return paths
