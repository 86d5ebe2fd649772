"""torchvision, or what imports it, can be imported with the CPU build of torch."""

import subprocess
import sys

import pytest
import torch

from flywheel.core.torchvision_shim import declare_operators


@pytest.mark.slow
def test_the_operators_are_declared_and_may_be_declared_again() -> None:
    declare_operators()
    declare_operators()
    assert all(hasattr(torch.ops.torchvision, name) for name in ("nms", "qnms"))
    import torchvision

    assert torchvision.__version__


@pytest.mark.slow
def test_nothing_is_imported_before_it_is_asked_for() -> None:
    code = "import sys, flywheel.core.torchvision_shim; print('torch' in sys.modules or 'torchvision' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "False", done.stderr
