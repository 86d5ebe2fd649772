"""Settings of rounds that are free tables, or name what is elsewhere: tried before a run starts."""

from __future__ import annotations

from flywheel.core.errors import UsageError
from flywheel.core.plugins import names
from flywheel.core.storage import located
from flywheel.generators import open_generator
from flywheel.generators.pipeline import is_local
from flywheel.generators.recorded import RecordedGenerator
from flywheel.presets import Preset, blaming, load_preset
from flywheel.remedies.enhancer import load_enhancer
from flywheel.signals.judging import judge_class, judge_of


def require_usable(name: str) -> None:
    """Open what a preset configures as far as nothing is loaded. Errors: `UsageError` with preset, line and key."""
    from curation.scorers import scorer_class

    preset = load_preset(name)
    if preset.generator:
        with blaming(name, "generator"):
            generator = open_generator(preset.generator)
            if isinstance(generator, RecordedGenerator):
                generator.require_folder()
    with blaming(name, "evaluation", "judge"):
        if "kind" in (judge := preset.evaluation.judge):
            judge_class(judge["kind"])  # its weights are for those who judge
        else:
            judge_of(judge, None)
    for scorer, options in preset.evaluation.scorers.items():
        with blaming(name, "evaluation", "scorers", scorer):
            scorer_class(options.get("scorer", scorer))
    if not preset.enhancer.trainable:
        with blaming(name, "enhancer"):
            load_enhancer(preset.enhancer)
    with blaming(name, "training"):
        _require_start(preset)


def _require_start(preset: Preset) -> None:
    start = preset.training.start
    if start and start not in names("flywheel.checkpoints") and is_local(start) and not located(start).exists():
        raise UsageError(f"start names {start}, which is not there: give the folder of a checkpoint or pipeline")
