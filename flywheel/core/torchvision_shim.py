"""Make torchvision importable with a CPU build of torch: transformers, diffusers and open_clip import it."""

from __future__ import annotations


def declare_operators() -> None:
    """Declare the operators `nms` and `qnms` if torchvision's compiled extension does not load; safe to repeat.

    Importing torchvision registers shape functions for both, which fails while the operators are undeclared. This
    project never calls them.
    """
    import sys
    from contextlib import suppress
    from importlib import util
    from pathlib import Path

    import torch

    if "torchvision" in sys.modules:
        return
    # First the extension itself: where it loads, it would abort the process on finding the operators declared.
    spec = util.find_spec("torchvision")
    for library in Path(spec.origin).parent.glob("_C.*") if spec and spec.origin else ():
        with suppress(OSError):
            torch.ops.load_library(str(library))
    signature = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
    for name in ("nms", "qnms"):
        if not hasattr(torch.ops.torchvision, name):
            torch.library.define(f"torchvision::{name}", signature)
