"""The doctor says what is wrong with a machine; each line that can fail is shown to fail."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from curation.sources.pool import quarantined_at_ingest
from flywheel.core.ledger import Ledger
from flywheel.core.workspace import Workspace
from flywheel.operate import doctor
from tests.curation.corpus import textures, write_folder

ROOT = Path(__file__).resolve().parents[3]


def lines(root: Path, **services) -> dict[str, doctor.Line]:
    return {line.name: line for line in doctor.examine(root, services=services)}


def test_a_good_machine(tmp_path: Path):
    checks = lines(tmp_path, Probe=lambda: "answered")
    assert {line.status for line in checks.values()} <= {doctor.OK, doctor.WARNING}
    assert checks["Probe"].found.startswith("answered")
    assert checks["compare-and-swap"].status == doctor.OK
    assert list(tmp_path.iterdir()) == []


def test_what_fails_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def refuse() -> str:
        raise ConnectionError("no answer")

    monkeypatch.setattr(doctor, "REQUIRED", {"ray": "ray", "no-such-package": "nowhere", "numpy": "no_such_module"})
    monkeypatch.setattr(doctor, "MEMORY", 2**60)
    monkeypatch.setattr(doctor, "DISK", 2**60)
    monkeypatch.setattr(Ledger, "append", lambda self, rows, key: True)
    checks = lines(tmp_path, Ray=refuse)
    failed = {name for name, line in checks.items() if line.status == doctor.FAILURE}
    assert failed == {"no-such-package", "numpy", "Ray", "compare-and-swap"}
    assert {checks["memory"].status, checks["disk"].status} == {doctor.WARNING}
    assert all(checks[name].advice for name in (*failed, "memory", "disk"))


@pytest.fixture
def without_libgl(tmp_path: Path) -> dict[str, str]:
    """Environment of a machine whose OpenCV does not load."""
    error = "libGL.so.1: cannot open shared object file: No such file or directory"
    folder = write_folder(tmp_path / "broken", {"cv2.py": f"raise ImportError({error!r})\n".encode()})
    return {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, (folder, ROOT)))}


def flywheel(*arguments: object, env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "flywheel.cli", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env=env)


def test_the_doctor_loads_what_a_run_loads(tmp_path: Path, without_libgl: dict[str, str]):
    done = flywheel("doctor", "--no-services", "--workspace", tmp_path, env=without_libgl)
    assert done.returncode == 1 and not done.stderr
    failed = re.findall(r"failure  (\S+): does not load: ImportError: libGL.so.1.*\n +→ .*(opencv\S+)", done.stdout)
    assert ("opencv-contrib-python", doctor.OPENCV) in failed
    assert doctor.OPENCV in (ROOT / "requirements" / "opencv.txt").read_text()


def test_a_package_that_does_not_load_costs_no_row(tmp_path: Path, without_libgl: dict[str, str]):
    pictures = textures(12)
    source = write_folder(tmp_path / "source", pictures, dict.fromkeys(pictures, "a texture"))
    given = ("--source", source, "--captions", source / "captions.jsonl", "--workspace", tmp_path / "w", "--workers", 1)
    done = flywheel("curate", *given, env=without_libgl)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    said = done.stderr.splitlines()[-1]
    assert said.startswith("error: the package cv2 does not work here (libGL.so.1: ") and "flywheel doctor" in said
    assert not list(Workspace(tmp_path / "w").path("scores").rglob("*.parquet"))
    assert quarantined_at_ingest(Workspace(tmp_path / "w")) == []


def test_a_folder_that_is_not_there(tmp_path: Path):
    assert lines(tmp_path / "none")["write, read, rename"].status == doctor.FAILURE


def test_ledger_files_carry_their_hash(tmp_path: Path):
    from flywheel.core.files import file_digest

    ledger = Ledger(Workspace(tmp_path / "w"), "rounds")
    assert ledger.append([{"round": 1}], key="a") and not ledger.append([{"round": 2}], key="a")
    assert ledger.append([], key="b")
    assert [r["round"] for r in ledger.rows()] == [1]
    assert all(file_digest(Path(f)) in f for f in ledger.files())
