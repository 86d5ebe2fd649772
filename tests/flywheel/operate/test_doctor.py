"""The doctor says what is wrong with a machine; each line that can fail is shown to fail."""

import subprocess
import sys
from pathlib import Path

import pytest

from flywheel.core.ledger import Ledger
from flywheel.core.workspace import Workspace
from flywheel.operate import doctor


def lines(root: Path, **services) -> dict[str, doctor.Line]:
    return {line.name: line for line in doctor.examine(root, services=services)}


def test_a_good_machine(tmp_path: Path):
    found = lines(tmp_path, Probe=lambda: "answered")
    assert {line.status for line in found.values()} <= {doctor.OK, doctor.WARNING}
    assert found["Probe"].found.startswith("answered")
    assert found["compare-and-swap"].status == doctor.OK
    assert list(tmp_path.iterdir()) == []


def test_what_fails_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def refuse() -> str:
        raise ConnectionError("no answer")

    monkeypatch.setattr(doctor, "REQUIRED", ("ray", "no-such-package"))
    monkeypatch.setattr(doctor, "MEMORY", 2**60)
    monkeypatch.setattr(doctor, "DISK", 2**60)
    monkeypatch.setattr(Ledger, "append", lambda self, rows, key: True)
    found = lines(tmp_path, Ray=refuse)
    failed = {name for name, line in found.items() if line.status == doctor.FAILURE}
    assert failed == {"no-such-package", "Ray", "compare-and-swap"}
    assert {found["memory"].status, found["disk"].status} == {doctor.WARNING}
    assert all(found[name].advice for name in (*failed, "memory", "disk"))


def test_a_full_disk_is_one_sentence():
    command = [sys.executable, "-m", "flywheel.cli", "policy", "show", "qwen-image-2"]
    with open("/dev/full", "w") as full:
        out = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True)
    assert out.returncode == 2 and out.stderr.startswith("error: the disk is full ([Errno 28] No space left on device)")
    assert "Traceback" not in out.stderr


def test_a_folder_that_is_not_there(tmp_path: Path):
    assert lines(tmp_path / "none")["write, read, rename"].status == doctor.FAILURE


def test_ledger_files_carry_their_hash(tmp_path: Path):
    from flywheel.core.files import file_digest

    ledger = Ledger(Workspace(tmp_path / "w"), "rounds")
    assert ledger.append([{"round": 1}], key="a") and not ledger.append([{"round": 2}], key="a")
    assert ledger.append([], key="b")
    assert [r["round"] for r in ledger.rows()] == [1]
    assert all(file_digest(Path(f)) in f for f in ledger.files())
