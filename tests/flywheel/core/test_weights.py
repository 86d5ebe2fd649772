"""Weights are fetched once by a pinned hash from a local server that plays the hub; without it nothing waits."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from curation.policy.policy import Policy
from curation.policy.reader import load_policy
from curation.run import configure
from curation.scorers import Unavailable, load
from flywheel.cli.main import app
from flywheel.core import weights
from flywheel.core.errors import UsageError
from flywheel.core.scorer import Item
from flywheel.core.weights import Unreachable, Weights, fetch, intact, local_path, obtain
from tests.curation.corpus import encoded, texture, write_tiny_clip
from tests.flywheel.core.hub import Hub, hub, silent

DATA = bytes(range(256)) * 64
HUB = "https://huggingface.co"


def entry(data: bytes, name: str = "tiny", file: str = "model.bin") -> Weights:
    sha256 = hashlib.sha256(data).hexdigest()
    return Weights(name, "made by a test", "none", len(data), sha256, f"{HUB}/us/{name}/resolve/abc/{file}")


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A hub with `tiny`, asked in place of huggingface.co."""
    with hub() as running:
        running.files["model.bin"] = DATA
        monkeypatch.delenv("FLYWHEEL_WEIGHTS_MIRROR", raising=False)
        monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
        monkeypatch.setenv("FLYWHEEL_WEIGHTS", str(tmp_path / "weights"))
        monkeypatch.setenv("HF_ENDPOINT", running.address)
        listed(monkeypatch, entry(DATA))
        yield running


def listed(monkeypatch: pytest.MonkeyPatch, *entries: Weights) -> None:
    monkeypatch.setattr(weights, "catalogue", lambda: {e.name: e for e in entries})


def test_pull_list_and_verify(served: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    def flywheel(*words: str) -> tuple[int, list[dict]]:
        result = CliRunner().invoke(app, ["weights", *words, "--json"])
        return result.exit_code, json.loads(result.stdout)

    assert flywheel("list")[1][0]["here"] is False and flywheel("verify") == (0, [])
    _, (pulled,) = flywheel("pull")
    assert Path(pulled["path"]).read_bytes() == DATA
    assert served.asked == [("/us/tiny/resolve/abc/model.bin", "")]
    flywheel("pull", "tiny")
    assert len(served.asked) == 1, "what is here is not fetched again"
    assert flywheel("list")[1][0]["here"] is True
    assert flywheel("verify") == (0, [{"name": "tiny", "path": pulled["path"], "intact": True}])
    Path(pulled["path"]).write_bytes(b"x" * len(DATA))
    assert (flywheel("verify")[0], intact(entry(DATA))) == (1, False)


def test_an_interrupted_download_is_resumed(served: Hub) -> None:
    served.break_after = 5000
    with pytest.raises(Unreachable, match="weights not reachable: tiny"):
        fetch(entry(DATA))
    assert not entry(DATA).path.exists()
    served.break_after = None
    seen: list[tuple[int, int, str]] = []
    assert fetch(entry(DATA), lambda *step: seen.append(step)).read_bytes() == DATA
    assert served.asked[-1][1] == "bytes=5000-" and seen[-1][2] == "MiB of tiny"
    assert [p.name for p in entry(DATA).path.parent.iterdir() if p.name != ".lock"] == ["model.bin"]


def test_a_finished_download_that_was_not_renamed_is_not_repeated(served: Hub) -> None:
    path = entry(DATA).path
    path.parent.mkdir(parents=True)
    path.with_name(".model.bin.part").write_bytes(DATA)
    assert fetch(entry(DATA)).read_bytes() == DATA and not served.asked


@pytest.mark.parametrize("wrong", [DATA[:-1] + b"!", DATA + b"!", DATA[:-1]], ids=["changed", "longer", "shorter"])
def test_a_wrong_file_is_refused_and_not_kept(served: Hub, wrong: bytes) -> None:
    served.files["model.bin"] = wrong
    with pytest.raises(UsageError, match=r"is not tiny: (its SHA-256 is|it is longer)"):
        fetch(entry(DATA))
    assert not entry(DATA).path.exists()
    served.files["model.bin"] = DATA
    assert fetch(entry(DATA)).read_bytes() == DATA


def test_a_mirror_is_asked_in_place_of_every_address(served: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLYWHEEL_WEIGHTS_MIRROR", f"{served.address}/mirror/")
    fetch(entry(DATA))
    assert served.asked == [("/mirror/model.bin", "")]


def test_a_run_does_not_wait_for_what_does_not_answer(served: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    with silent() as address:
        monkeypatch.setenv("HF_ENDPOINT", address)
        began = time.monotonic()
        reasons = [obtain(["weights:tiny", 3, ""]) for _ in range(5)]
        assert time.monotonic() - began < 5.0  # once 1.5, not five times
    assert all(r.keys() == {"weights:tiny"} and "weights not reachable: tiny" in r["weights:tiny"] for r in reasons)
    monkeypatch.setenv("HF_ENDPOINT", served.address)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert obtain(["weights:tiny"]) and not served.asked


def test_unknown_weights_are_named(served: Hub) -> None:
    with pytest.raises(UsageError, match="unknown weights 'huge': choose from tiny"):
        local_path("weights:huge")


def test_a_run_fetches_what_its_policy_names_and_clip_loads_it(
    served: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The network's weights are random: for how they are loaded, not for what they say."""
    clip = write_tiny_clip(tmp_path)
    files = {"open_clip_pytorch_model.bin": "net", "head.pth": "head"}
    served.files = {name: (clip / name).read_bytes() for name in files}
    listed(monkeypatch, *(entry(served.files[n], weights_, n) for n, weights_ in files.items()))
    options = {"model": f"local-dir:{clip}", "pretrained": "weights:net", "aesthetic_head": "weights:head"}
    with pytest.raises(Unavailable, match="weights not reachable: net"):
        load("clip", **options)
    policy = Policy("", load_policy("qwen-image-2").stages, {"clip": options})
    gone = dict.fromkeys(options.values(), "weights not reachable: no network")
    assert configure(policy, gone)[1]["clip"] == "weights not reachable: no network"
    assert obtain(policy.scorer_values()) == {} and "clip" in configure(policy)[0]
    named = load("clip", **options)
    direct = load(
        "clip",
        model=options["model"],
        pretrained=str(clip / "open_clip_pytorch_model.bin"),
        aesthetic_head=str(clip / "head.pth"),
    )
    item = Item(encoded(texture(1)), "a cat")
    assert named.score([item]) == direct.score([item]) and named.version == direct.version


def test_the_default_policy_names_pinned_weights() -> None:
    policy = load_policy("qwen-image-2")
    named = [v for v in policy.scorers["clip"].values() if v.startswith(weights.PREFIX)]
    assert len(named) == 2 and all(weights.named(n).bytes < 2**20 * 600 for n in named)
    filters = [f.name for s in policy.stages for f in s.filters if (f.score or "").startswith("clip.")]
    assert {"image_text", "aesthetic"} <= set(filters)
