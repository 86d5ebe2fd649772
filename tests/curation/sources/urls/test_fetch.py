"""Lists of URLs through fetch and ingest: every URL ends, once, whatever is killed."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curation.sources import pool
from curation.sources.files import state
from curation.sources.ingest import ingest
from curation.sources.urls import Fetching
from curation.sources.urls.fetch import Fetched, fetch
from curation.sources.urls.store import Store
from flywheel.core import cluster
from flywheel.core.errors import UsageError
from flywheel.core.local_workers import LocalWorkers
from flywheel.core.workspace import Workspace
from flywheel.operate.erase import erase
from flywheel.operate.fsck import fsck
from tests.curation.sources.pooled import reasons, rows
from tests.curation.sources.urls.server import Behaviour, picture, serving

ROOT = Path(__file__).resolve().parents[4]
QUICK = Fetching(
    allow_private=True, timeout=2.0, backoff=0.05, delay=0.0, per_host=8, longest_wait=1.0, attempts=2, part_rows=10
)


@pytest.fixture
def behaviour() -> Behaviour:
    return Behaviour("User-agent: *\nDisallow: /private/\n")


@pytest.fixture
def server(behaviour: Behaviour) -> Iterator[str]:
    with serving(behaviour) as address:
        yield address


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path / "w")


def write_csv(path: Path, urls: list[str]) -> Path:
    path.write_text("URL,TEXT,LICENSE\n" + "".join(f"{u},caption {n},cc-by\n" for n, u in enumerate(urls)))
    return path


def fetched(workspace: Workspace, path: Path, **options: bool) -> Fetched:
    return fetch(workspace, [state(str(path))], QUICK, **options)


def test_every_url_ends_and_pictures_enter_the_pool(
    workspace: Workspace, tmp_path: Path, server: str, behaviour: Behaviour, ray_session: None
) -> None:
    urls = [f"{server}/ok/{n}.png" for n in range(25)]
    odd = ["private", "noai", "gone", "html", "loop", "broken"]
    path = write_csv(tmp_path / "list.csv", [*urls, *(f"{server}/{way}/x" for way in odd), "", urls[3]])
    found = ingest(workspace, path, fetching=QUICK)
    assert (found.found, found.new, found.quarantined) == (32, 25, 7)
    got = {r["source_uri"]: r for r in rows(workspace)}
    assert set(got) == set(urls) and got[urls[7]]["image"] == picture("7.png")
    assert [c["text"] for c in got[urls[3]]["captions"]] == ["caption 3", "caption 32"]  # of both its rows
    told = {r["source_uri"]: r["reason"] for r in pool.quarantined_at_ingest(workspace)}
    assert told[f"{path}#31"] == "refused: no URL in this row"
    whys = sorted(told.values())
    assert [why.partition(":")[0] for why in whys] == ["failed"] * 4 + ["refused"] * 3
    assert "refused: robots.txt disallows it" in whys and "failed: status 500" in whys
    before = behaviour.asked.copy()
    again = ingest(workspace, path, fetching=QUICK)
    assert (again.found, again.known, again.new, behaviour.asked) == (32, 32, 0, before)

    answers = pa.concat_tables([pq.read_table(p) for p in Store(workspace).answers()]).to_pylist()
    assert len(answers) == 32 and {a["license"] for a in answers if a["uri"] == urls[0]} == {"cc-by"}
    (noai,) = (a for a in answers if a["uri"].endswith("/noai/x"))
    assert (noai["status"], noai["directives"], noai["code"]) == ("refused", ["noai", "noimageai"], 200)


def test_failed_urls_are_asked_again_with_retry(
    workspace: Workspace, tmp_path: Path, server: str, behaviour: Behaviour, ray_session: None
) -> None:
    path = write_csv(tmp_path / "list.csv", [f"{server}/ok/a.png", f"{server}/unstable/x", f"{server}/gone/x"])
    found = ingest(workspace, path, fetching=QUICK)  # 503 twice, and there are two attempts
    assert (found.new, found.quarantined) == (1, 2)
    assert fetched(workspace, path) == Fetched(known=3)
    assert fetched(workspace, path, retry=True) == Fetched(fetched=1, failed=1, known=1)
    assert behaviour.asked["/ok/a.png"] == 1 and behaviour.asked["/gone/x"] == 2
    again = ingest(workspace, path, fetching=QUICK)
    assert (again.found, again.new, again.known, again.quarantined) == (3, 1, 2, 0)
    assert {r["image"] for r in rows(workspace)} == {picture("a.png"), picture("unstable")}


def test_what_a_host_was_given_up_for_is_asked_first_with_retry(
    workspace: Workspace, tmp_path: Path, server: str, behaviour: Behaviour
) -> None:
    """Five that are never answered, in front of a sound one: it would be given up again and again."""
    path = write_csv(tmp_path / "list.csv", [*(f"{server}/slow_headers/{n}" for n in range(5)), f"{server}/ok/a.png"])
    hasty = replace(QUICK, timeout=0.2, per_host=1, concurrency=1, attempts=1)
    assert fetch(workspace, [state(str(path))], hasty) == Fetched(failed=6)
    assert "/ok/a.png" not in behaviour.asked
    assert fetch(workspace, [state(str(path))], hasty, retry=True) == Fetched(fetched=1, failed=5)


def test_a_list_that_grows_is_fetched_where_it_grew(
    workspace: Workspace, tmp_path: Path, server: str, behaviour: Behaviour, ray_session: None
) -> None:
    folder = tmp_path / "lists"
    folder.mkdir()
    columns = {"url": [f"{server}/ok/{n}.png" for n in range(3)], "text": ["x"] * 3, "phash": [b"12345678"] * 3}
    pq.write_table(pa.table(columns), folder / "part-0.parquet")
    assert ingest(workspace, folder, fetching=QUICK).new == 3
    columns["url"][2] = f"{server}/ok/9.png"
    pq.write_table(pa.table(columns), folder / "part-1.parquet")
    found = ingest(workspace, folder, fetching=QUICK)
    assert (found.found, found.new, found.known) == (4, 1, 3)
    assert {c for path, c in behaviour.asked.items() if path.startswith("/ok/")} == {1}


def test_private_addresses_are_refused_by_default(
    workspace: Workspace, tmp_path: Path, server: str, ray_session: None
) -> None:
    path = write_csv(tmp_path / "list.csv", [f"{server}/ok/a.png"])
    found = ingest(workspace, path)
    assert (found.new, found.quarantined) == (0, 1)
    assert "refused: private address: 127.0.0.1" in reasons(workspace).values()


def test_a_mix_with_a_list(workspace: Workspace, tmp_path: Path, server: str, ray_session: None) -> None:
    folder = tmp_path / "s"
    folder.mkdir()
    (folder / "own.png").write_bytes(picture("own"))
    write_csv(folder / "list.csv", [f"{server}/ok/a.png"])
    assert ingest(workspace, folder, fetching=QUICK).new == 2
    assert {r["image"] for r in rows(workspace)} == {picture("own"), picture("a.png")}


def test_local_processes_in_the_place_of_ray_share_the_limits_of_hosts(
    workspace: Workspace, tmp_path: Path, server: str, behaviour: Behaviour, monkeypatch: pytest.MonkeyPatch
) -> None:
    behaviour.hold = 0.05
    path = write_csv(tmp_path / "list.csv", [f"{server}/ok/{n}.png" for n in range(40)])
    monkeypatch.setattr(cluster, "_local", workers := LocalWorkers(2))
    try:
        found = fetch(workspace, [state(str(path))], replace(QUICK, per_host=1))
    finally:
        workers.close()
    assert found == Fetched(fetched=40) and behaviour.most_at_once == 1


def test_a_workspace_on_s3(s3: str, tmp_path: Path, server: str, ray_session: None) -> None:
    workspace = Workspace(f"{s3}/w")
    path = write_csv(tmp_path / "list.csv", [f"{server}/ok/{n}.png" for n in range(12)])
    assert ingest(workspace, path, fetching=QUICK).new == 12
    assert ingest(workspace, path, fetching=QUICK).known == 12


def test_a_list_without_urls(workspace: Workspace, tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_text("a,b\n1,2\n")
    with pytest.raises(UsageError, match="no column of URLs"):
        fetched(workspace, tmp_path / "list.csv")


# In a process of its own, to be killed: plan a list and fetch its only part.
PROGRAM = """
import sys
from curation.sources import pool
from curation.sources.files import state
from curation.sources.urls import Fetching
from curation.sources.urls.fetch import _plan, fetch_part
from curation.sources.urls.hosts import Hosts
from curation.sources.urls.store import Store
from flywheel.core.workspace import Workspace
settings = Fetching(allow_private=True, delay=0.02, per_host=2)
store = Store(Workspace(sys.argv[1]))
if not store.batches():
    _plan(store, [state(sys.argv[2])], settings, retry=False)
fetch_part(str(store.batches()[0]), 0, settings, Hosts(2, 60.0))
"""


def test_killed_at_any_point_no_answer_is_asked_for_twice(
    workspace: Workspace, tmp_path: Path, server: str, behaviour: Behaviour
) -> None:
    urls = [f"{server}/ok/{n}.png" for n in range(60)]
    path = write_csv(tmp_path / "list.csv", urls)
    command = [sys.executable, "-c", PROGRAM, str(workspace.root), str(path)]
    for enough in (5, 25):
        process = subprocess.Popen(command, cwd=ROOT)
        wait_for(behaviour, enough)
        process.send_signal(signal.SIGKILL)
        process.wait()
    journal = next(workspace.root.glob("fetched/*/journal/00000"))
    with journal.open("ab") as file:
        file.write(b"half a record")
    subprocess.run(command, cwd=ROOT, check=True)
    (answers,) = Store(workspace).answers()
    assert sorted(pq.read_table(answers).column("uri").to_pylist()) == sorted(urls)
    assert set(pq.read_table(answers).column("status").to_pylist()) == {"fetched"}
    twice = [p for p, count in behaviour.asked.items() if p.startswith("/ok/") and count > 1]
    assert len(twice) <= 2 * 2  # those under way at each of the two kills: two requests at once
    assert not journal.exists()


def wait_for(behaviour: Behaviour, pictures: int) -> None:
    end = time.monotonic() + 120
    while sum(c for path, c in behaviour.asked.items() if path.startswith("/ok/")) < pictures:
        assert time.monotonic() < end
        time.sleep(0.01)


def test_an_erased_picture_is_gone_and_does_not_come_back(
    workspace: Workspace, tmp_path: Path, server: str, behaviour: Behaviour, ray_session: None
) -> None:
    urls = [f"{server}/ok/{n}.png" for n in range(3)]
    path = write_csv(tmp_path / "list.csv", urls)
    assert ingest(workspace, path, fetching=QUICK).new == 3
    erase(workspace, [urls[1]], by="ada", why="asked to")
    gone = picture("1.png")
    assert [p for p in workspace.root.rglob("*") if p.is_file() and gone in p.read_bytes()] == []
    report = fsck(workspace)
    assert [f for f in report.findings if "erased" in f.problem] == []
    assert [f for f in report.findings if "fetched/" in str(f)] == []  # no lock is left
    write_csv(path, [*urls, f"{server}/ok/3.png"])  # another version of the list
    ingest(workspace, path, fetching=QUICK)
    assert {r["image"] for r in rows(workspace)} == {picture(f"{n}.png") for n in (0, 2, 3)}
    assert {r["source_url"] for r in rows(workspace)} == {urls[0], urls[2], f"{server}/ok/3.png"}
    assert {r["license"] for r in rows(workspace)} == {"cc-by"}
    assert [p for p in workspace.root.rglob("*") if p.is_file() and gone in p.read_bytes()] == []
    assert [f for f in fsck(workspace).findings if "erased" in f.problem] == []
