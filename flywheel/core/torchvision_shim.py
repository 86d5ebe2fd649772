"""Makes torchvision importable beside a CPU build of torch: transformers, diffusers and open_clip import it."""

from __future__ import annotations


def declare_operators() -> None:
    """Declare the schemas of torchvision's `nms` and `qnms` where its compiled extension does not load; safe to repeat.

    torchvision registers shape functions for both when it is imported, which fails while the operators are unknown.
    Nothing here calls them.
    """
    import sys
    from contextlib import suppress
    from importlib import util
    from pathlib import Path

    import torch

    if "torchvision" in sys.modules:
        return
    # First the extension itself: where it loads, it would abort the process on finding the operators declared.
    for library in Path(util.find_spec("torchvision").origin).parent.glob("_C.*"):
        with suppress(OSError):
            torch.ops.load_library(str(library))
    signature = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
    for name in ("nms", "qnms"):
        if not hasattr(torch.ops.torchvision, name):
            torch.library.define(f"torchvision::{name}", signature)
