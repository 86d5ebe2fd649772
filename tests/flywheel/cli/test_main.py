"""Wrong usage ends in one sentence and exit code 2; help is quick and imports nothing heavy."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from flywheel.core.files import write_json, write_parquet
from flywheel.core.ledger import Ledger
from flywheel.core.schema import QUARANTINE
from flywheel.core.workspace import Workspace
from tests.flywheel.cli.command import flywheel

AGAIN = "run the same command again; finished work is kept"


def test_help_lists_the_verbs_and_imports_nothing_heavy():
    out = flywheel("--help")
    assert out.returncode == 0
    verbs = ("demo", "run", "sql", "explain", "funnel", "what-if", "policy", "cases", "rounds", "report")
    assert all(verb in out.stdout for verb in verbs)
    heavy = ("ray", "torch", "prefect", "duckdb", "pyarrow", "numpy")
    code = f"import sys, flywheel.cli.main; print([m for m in {heavy} if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"


def test_the_version_is_that_of_the_package():
    from importlib.metadata import version

    assert flywheel("--version").stdout == f"flywheel {version('image-flywheel')}\n"


def test_a_full_disk_is_one_sentence():
    command = [sys.executable, "-m", "flywheel.cli", "policy", "show", "qwen-image-2"]
    with open("/dev/full", "w") as full:
        out = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True)
    assert out.returncode == 2 and out.stderr.startswith("error: the disk is full ([Errno 28] No space left on device)")
    assert "Traceback" not in out.stderr


@pytest.mark.parametrize(
    "why",
    [
        "An error occurred (500) when calling the HeadObject operation (reached max retries: 7): Internal Server Error",
        "AWS Error NETWORK_CONNECTION during GetObject operation",
        "Generic S3 error: Error performing PUT http://127.0.0.1",
    ],
)
def test_an_s3_that_stays_away_is_one_sentence(monkeypatch: pytest.MonkeyPatch, why: str):
    def fail(*_: object, **__: object) -> None:
        raise OSError(121, "Internal Server Error") from RuntimeError(why)

    monkeypatch.setattr("flywheel.cli.main.app", fail)
    out = flywheel("tables")
    assert out.returncode == 2 and out.stderr == f"error: S3 stopped answering ({why}): when it is back, {AGAIN}\n"


def test_a_damaged_file_is_one_sentence(tmp_path: Path):
    workspace = Workspace(tmp_path / "w")
    ledger = Ledger(workspace, "signals")
    ledger.append([{"signal_id": "a"}], key="a")
    damaged = Path(ledger.files()[0])
    damaged.write_bytes(damaged.read_bytes()[:-9])
    out = flywheel("signals", "route", "-w", str(workspace.root))
    assert out.returncode == 2 and "Traceback" not in out.stderr
    assert "error: a file is damaged (" in out.stderr and damaged.name in out.stderr


@pytest.mark.parametrize("content", [None, b"{"])
def test_a_file_of_a_workspace_that_is_gone_or_no_json_is_one_sentence(tmp_path: Path, content: bytes | None):
    workspace = Workspace(tmp_path / "w")
    manifest = workspace.path("pool", "00001-a", "manifest.json")
    write_json(manifest, {"shards": [], "rows": 0, "quarantined": 0})
    if content is not None:
        write_parquet(manifest.with_name("quarantine.parquet"), QUARANTINE.empty_table())
        manifest.write_bytes(content)
    named = manifest if content is not None else manifest.with_name("quarantine.parquet")
    out = flywheel("explain", "a.jpg", "-w", str(workspace.root))
    assert out.returncode == 2 and out.stderr.startswith("error: a file of the workspace is missing or damaged (")
    assert str(named) in out.stderr and "`flywheel fsck` names all such files" in out.stderr


def test_an_argument_that_is_no_text_is_one_sentence():
    out = flywheel("enhancer", "try", "caf\udce9")
    assert (out.returncode, out.stdout) == (2, "") and "Traceback" not in out.stderr
    assert "the argument caf\\udce9 is not UTF-8" in out.stderr


@pytest.mark.parametrize("place", ["first", "last", "joined"])
def test_the_log_format_may_stand_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str):
    """One JSON object a line on stderr, and stdout as always."""
    verb = ["fsck", "-w", str(tmp_path / "w"), "--json"]
    Workspace(tmp_path / "w")
    monkeypatch.setenv("FLYWHEEL_LOG_FORMAT", "text")  # the command sets it for what it starts
    option = ["--log-format", "json"] if place != "joined" else ["--log-format=json"]
    done = flywheel(*([*option, *verb] if place == "first" else [*verb, *option]))
    assert done.returncode == 0, done.stderr
    events = [json.loads(line) for line in done.stderr.splitlines()]
    assert [e["event"] for e in events] == ["begin", "end"] and {e["step"] for e in events} == {"verify"}
    assert json.loads(done.stdout)["sound"]
    monkeypatch.setenv("FLYWHEEL_LOG_FORMAT", "text")
    assert flywheel(*verb).stderr.startswith("[")
