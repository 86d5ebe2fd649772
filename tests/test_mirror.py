"""Tests mirror the packages: each module has a test file of its name, and each test file names a module."""

from __future__ import annotations

import ast
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("flywheel", "curation", "training", "dashboards", "flows")
# Modules that other files test.
TESTED_ELSEWHERE = {
    "curation/export/exported.py": "tests/curation/export/test_formats.py runs the lines that load one",
    "flywheel/cli/__main__.py": "tests/flywheel/cli/test_main.py starts it",
    "flywheel/operate/erasures.py": "tests/flywheel/operate/test_erase.py proves erasures by it",
    "flywheel/operate/findings.py": "tests/flywheel/operate/test_fsck.py and test_verified.py make some",
    "flywheel/remedies/distil.py": "tests/flywheel/rounds/test_tracks.py distils by it",
    "flywheel/rounds/context.py": "tests/flywheel/rounds/test_steps.py and test_advice.py make one",
    "flywheel/rounds/pool.py": "tests/flywheel/rounds/test_run.py and test_steps.py run it",
}
# Modules that have no test file yet. This list may only shrink.
UNTESTED = {
    "flows/tracks.py",
    "flywheel/remedies/reinforce.py",
}
# Test files about what no single module does.
ABOUT_MORE = {
    "tests/test_deploy.py": "the image, the compose file and the manifests",
    "tests/test_docs.py": "the documentation",
    "tests/test_mirror.py": "the tests",
    "tests/test_plug_in.py": "the examples of docs/plug-in.md",
    "tests/benchmarks/test_copied.py": "the benchmark of copies",
    "tests/benchmarks/test_fuzz.py": "the fuzz of sources",
    "tests/benchmarks/test_gain_figures.py": "the figures of the gain benchmark",
    "tests/benchmarks/test_gpu.py": "the benchmark of a GPU",
    "tests/benchmarks/test_measure.py": "the benchmarks, which are no package",
    "tests/benchmarks/test_pixels.py": "the odd pictures of a benchmark",
    "tests/benchmarks/test_truth.py": "the truth benchmark",
    "tests/curation/sources/test_odd_rows.py": "rows that all kinds of source may meet",
    "tests/dashboards/test_browser.py": "all pages in a real browser",
    "tests/flywheel/operate/test_erase_remedies.py": "erasing from remedies, S3 and finished runs",
    "tests/flywheel/cli/test_read_only.py": "all verbs, where nothing can be written",
    "tests/flywheel/core/test_decode_memory.py": "memory of a decode, over all formats",
    "tests/flywheel/core/test_paths.py": "names of folders, through all layers",
    "tests/flywheel/rounds/test_run_on_s3.py": "a whole run whose workspace is on S3",
}


def file_of(module: str) -> str:
    """Where the tests of a module are: those of a package's `__init__.py` in `test_init.py`."""
    path = Path(module)
    return f"tests/{path.parent.as_posix()}/test_{path.stem.strip('_')}.py"


def modules() -> list[str]:
    """Modules that define a function or a class."""
    found = []
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
            if any(isinstance(node, kinds) for node in ast.parse(path.read_text()).body):
                found.append(path.relative_to(ROOT).as_posix())
    return found


def test_every_module_has_its_tests() -> None:
    wanted = {m: file_of(m) for m in modules() if m not in TESTED_ELSEWHERE.keys() | UNTESTED}
    assert {m: tests for m, tests in wanted.items() if not (ROOT / tests).exists()} == {}, "write these files"


def test_every_test_file_names_a_module() -> None:
    known = {file_of(p.relative_to(ROOT).as_posix()) for package in PACKAGES for p in (ROOT / package).rglob("*.py")}
    files = {p.relative_to(ROOT).as_posix() for p in (ROOT / "tests").rglob("test_*.py")}
    assert files - known - ABOUT_MORE.keys() == set(), "rename these files, or say in ABOUT_MORE what they are about"


def test_the_lists_name_files_that_exist() -> None:
    listed = {*TESTED_ELSEWHERE, *ABOUT_MORE, *UNTESTED}
    assert {name for name in listed if not (ROOT / name).exists()} == set()
    assert {module for module in UNTESTED if (ROOT / file_of(module)).exists()} == set(), "take these off the list"


def test_every_folder_of_tests_is_a_package() -> None:
    """Otherwise two files of one name are one module to pytest."""
    folders = {p.parent for p in (ROOT / "tests").rglob("test_*.py")}
    assert {str(f.relative_to(ROOT)) for f in folders if not (f / "__init__.py").exists()} == set()
