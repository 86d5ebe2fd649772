"""Data sets of the hub: a local server with its API, and folders."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from curation.sources import open_source
from curation.sources.hub import find_hub, parsed_id
from curation.sources.ingest import ingest
from flywheel.core.errors import UsageError
from flywheel.core.workspace import Workspace
from tests.curation.sources.fake_hub import COMMIT, fake_hub
from tests.curation.sources.kinds import CAPTIONS, PICTURES, write_kinds
from tests.curation.sources.pooled import rows

ROOT = Path(__file__).resolve().parents[3]
# The hub's address is read when huggingface_hub is imported: a process of its own.
PROGRAM = """
import json, sys
from curation.sources.ingest import ingest
from flywheel.core.workspace import Workspace
workspace = Workspace(sys.argv[1])
print(json.dumps([vars(ingest(workspace, address)) for address in sys.argv[2:]]))
"""


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """A repository with two splits of Parquet, as the hub has them."""
    data = write_kinds(tmp_path_factory.mktemp("kinds"))["parquets"] / "data"
    train, test = (p.read_bytes() for p in sorted(data.iterdir()))
    return {
        "README.md": b"---\nlicense: mit\n---\nAbout.",
        "data/train-00000-of-00001.parquet": train,
        "data/test-00000-of-00001.parquet": test,
    }


def test_an_id_of_the_hub(files: dict[str, bytes], tmp_path: Path) -> None:
    with fake_hub("ada/cats", files) as (endpoint, asked):
        environment = {**os.environ, "HF_ENDPOINT": endpoint, "HF_HOME": str(tmp_path / "cache"), "HF_HUB_OFFLINE": "0"}
        given = ["datasets:ada/cats?split=test", "datasets:ada/cats", "hf://datasets/ada/cats/data/*.parquet"]
        command = [sys.executable, "-c", PROGRAM, str(tmp_path / "w"), *given]
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:] + "\n".join(asked)
    counts = [(r["new"], r["known"], r["quarantined"]) for r in json.loads(done.stdout)]
    assert counts[:2] == [(2, 0, 0), (2, 2, 0)]
    assert counts[2][2] == 0 and sum(counts[2]) == 4
    got = rows(Workspace(tmp_path / "w"))
    assert {r["image"] for r in got} == set(PICTURES.values()) and {r["caption"] for r in got} == set(CAPTIONS.values())
    assert got[0]["source_uri"].startswith(f"hf://datasets/ada/cats@{COMMIT}/data/test-00000-of-00001.parquet#")


def test_a_folder_as_datasets_sees_it(files: dict[str, bytes], workspace: Workspace, tmp_path: Path) -> None:
    for name, content in files.items():
        (tmp_path / "s" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "s" / name).write_bytes(content)
    assert [f.name.partition("/")[0] for f in find_hub(f"datasets:{tmp_path}/s")] == ["test", "train"]
    assert ingest(workspace, f"datasets:{tmp_path}/s?split=train").new == 2
    with pytest.raises(UsageError, match="has no split 'dev': choose test, train"):
        open_source(f"datasets:{tmp_path}/s?split=dev")
    with pytest.raises(UsageError, match="cannot be opened"):
        open_source(f"datasets:{tmp_path}/none")


def test_addresses() -> None:
    assert parsed_id("datasets:a/b?split=x&revision=v1") == ("a/b", {"split": "x", "revision": "v1"})
    for wrong, why in (("datasets:", "names no data set"), ("datasets:a/b?part=1", "'part' is not an option")):
        with pytest.raises(UsageError, match=why):
            parsed_id(wrong)
