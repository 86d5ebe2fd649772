"""`flywheel fetch`, and a list as a source of `flywheel curate`."""

from __future__ import annotations

import json
from pathlib import Path

from tests.curation.sources.kinds import PICTURES, tar_members
from tests.curation.sources.pooled import write_tar
from tests.curation.sources.urls.server import Behaviour, serving
from tests.flywheel.cli.command import flywheel, wrong


def test_a_list_is_fetched_then_curated_beside_other_sources(tmp_path: Path, ray_session: None) -> None:
    behaviour = Behaviour("User-agent: *\nDisallow: /private/\n")
    preset = tmp_path / "p.toml"
    preset.write_text("[fetch]\nallow_private = true\ndelay = 0.0\nbackoff = 0.01\n")
    with serving(behaviour) as server:
        path = tmp_path / "list.csv"
        urls = [f"{server}/ok/{n}.png" for n in range(5)] + [f"{server}/gone/x", f"{server}/private/x"]
        path.write_text("url,text\n" + "".join(f"{u},a picture\n" for u in urls))
        done = flywheel("fetch", path, "-w", tmp_path / "w", "--preset", preset, "--json")
        assert done.returncode == 0, done.stderr
        found = json.loads(done.stdout)
        assert (found["fetched"], found["refused"], found["failed"], found["known"]) == (5, 1, 1, 0)
        assert {(r["status"], r["urls"]) for r in found["reasons"]} == {("fetched", 5), ("refused", 1), ("failed", 1)}
        done = flywheel("fetch", path, "-w", tmp_path / "w", "--preset", preset, "--retry", "--ignore-opt-outs")
        assert "0 fetched, 0 refused, 1 failed, 6 known before" in done.stderr and "status 410" in done.stdout
        tar = write_tar(tmp_path / "s.tar", tar_members())
        sources = ("--source", path, "--source", tar, "--preset", preset, "--policy", "demo")
        done = flywheel("curate", *sources, "-w", tmp_path / "w")  # its policy wants larger pictures than these
        assert f"{7 + len(PICTURES)} input = 0 admitted + 9 dropped + 2 quarantined" in done.stderr
        assert f"{path}: 7 inputs: 5 new, 0 known, 2 quarantined" in done.stderr
        assert f"{tar}: 4 inputs: 4 new, 0 known, 0 quarantined" in done.stderr
        assert behaviour.asked["/ok/0.png"] == 1 and behaviour.asked["/private/x"] == 0


def test_what_cannot_be_fetched(tmp_path: Path) -> None:
    tar = write_tar(tmp_path / "s.tar", tar_members())
    assert "holds no URL list" in wrong("fetch", tar, "-w", tmp_path / "w")
    assert "does not exist" in wrong("fetch", tmp_path / "none.csv", "-w", tmp_path / "w")
    (tmp_path / "list.txt").write_text("http://h/1\n")
    none_at_once = wrong("fetch", tmp_path / "list.txt", "-w", tmp_path / "w", "--per-host", 0)
    assert "--per-host" in none_at_once and "greater than or equal to 1" in none_at_once
    folder = tmp_path / "s"
    folder.mkdir()
    (folder / "a.png").write_bytes(PICTURES["0.png"])
    (tmp_path / "c.jsonl").write_text("")
    two = ("--source", folder, "--source", tar, "--captions", tmp_path / "c.jsonl")
    assert "--captions is for one source" in wrong("curate", *two, "-w", tmp_path / "v")
    two = ("--source", folder, "--source", tmp_path / "none")
    assert f"--source {tmp_path}/none does not exist" in wrong("curate", *two, "-w", tmp_path / "v")
