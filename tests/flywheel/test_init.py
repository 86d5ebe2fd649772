"""The public API: each name has an example in its docstring that runs."""

from __future__ import annotations

import doctest
import subprocess
import sys
from pathlib import Path

import pytest

import flywheel as fw
from tests.curation.corpus import encoded, texture, write_folder

PRESET = """
policy = "demo"
training = { recipe = { base = "tiny", batch = { 64 = 4 }, resolution = { 64 = 64 } }, base_steps = 1, round_steps = 1 }
evaluation = { suite = "demo-quick", steps = 1 }
attribution = { seeds = 1, budget = 1 }
"""
CHECKS = doctest.NORMALIZE_WHITESPACE


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as the examples assume: twelve pictures with captions in `photos`, and a preset of a few steps."""
    root = tmp_path_factory.mktemp("examples")
    pictures = {f"{n}.png": encoded(texture(n).resize((400, 300))) for n in range(12)}
    write_folder(root / "photos", pictures, {name: f"a colourful texture called {name}" for name in pictures})
    (root / "small.toml").write_text(PRESET)
    return root


@pytest.mark.usefixtures("ray_session")
@pytest.mark.parametrize("name", fw.__all__)
def test_the_example_of_each_name_runs(name: str, folder: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(folder)
    (example,) = doctest.DocTestFinder(recurse=False).find(getattr(fw, name), name, globs={})
    assert example.examples, f"{name} has no example"
    told: list[str] = []
    doctest.DocTestRunner(optionflags=CHECKS).run(example, out=told.append)
    assert not told, "".join(told)


def test_the_module_says_what_it_has_and_loads_nothing():
    code = "import sys, flywheel; print([m for m in ('torch', 'ray', 'duckdb', 'numpy') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"
    assert sorted(fw.__all__) == fw.__all__ == dir(fw) and doctest.testmod(fw).failed == 0
    with pytest.raises(AttributeError, match="nothing"):
        _ = fw.nothing
