"""Balance, semantic duplicates and near prompts: whole policies on a scored pool, and the pure parts word for word."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from curation.decide.contamination import near, shingles
from curation.decide.semantic import similar
from curation.policy.policy import Policy
from curation.policy.reader import load_policy
from curation.policy.snapshots import diff, find, listed
from curation.run import curate
from curation.sources.ingest import ingest
from flywheel.cli.main import app
from flywheel.core.errors import UsageError
from flywheel.core.files import read_json
from flywheel.core.workspace import Workspace
from tests.curation.corpus import encoded, texture, write_folder

KINDS = {"dog": 8, "car": 4, "cake": 2, "thing": 2}  # category animal, vehicle, food, other

STAGE = """\
[S6]
resolutions = [64]
enters = ["t2i"]

[S6.filters.broken_files]
check = "readable"

[S6.filters.balance]
check = "balance"
per = "category.name"
cap = {cap}
"""


def policy(folder: Path, text: str, cap: int = 100) -> Policy:
    path = folder / "mine.toml"
    path.write_text(STAGE.format(cap=cap) + text)
    return load_policy(path)


@pytest.fixture(scope="module")
def pictured(tmp_path_factory: pytest.TempPathFactory, ray_session: None) -> Iterator[SimpleNamespace]:
    """A pool of sixteen pictures in four categories."""
    root = tmp_path_factory.mktemp("balance")
    words = [w for w, count in KINDS.items() for _ in range(count)]
    files = {f"{n:02d}-{w}.png": encoded(texture(n, 80, 80)) for n, w in enumerate(words)}
    source = write_folder(root / "src", files, {f: f"a {f[3:-4]} in the sun, number {f[:2]}" for f in files})
    workspace = Workspace(root / "w")
    ingest(workspace, source)
    yield SimpleNamespace(workspace=workspace, root=root)


def drawn(workspace: Workspace, policy: Policy, **options: object) -> tuple[Counter[str], dict[str, float]]:
    """(rows of each kind in the shards, share of all draws by kind)."""
    manifest = Path(curate(workspace, policy, **options).manifest)
    rows: Counter[str] = Counter()
    weights: Counter[str] = Counter()
    for file in read_json(manifest)["files"]:
        for row in pq.read_table(manifest.parent / file["path"], columns=["caption", "weight"]).to_pylist():
            rows[row["caption"].split()[1]] += 1
            weights[row["caption"].split()[1]] += row["weight"]
    return rows, {kind: weight / weights.total() for kind, weight in weights.items()}


def test_caps_by_category(pictured: SimpleNamespace) -> None:
    rows, share = drawn(pictured.workspace, policy(pictured.root, "caps = { vehicle = 1 }", cap=5))
    assert rows == {"dog": 5, "car": 1, "cake": 2, "thing": 2}
    assert share == pytest.approx({k: n / 10 for k, n in rows.items()})  # neither quotas nor tail: as they come


def test_quotas_are_shares_of_the_draws(pictured: SimpleNamespace) -> None:
    rows, share = drawn(pictured.workspace, policy(pictured.root, "quotas = { food = 0.5, vehicle = 0.1 }"))
    assert rows == KINDS
    assert share == pytest.approx({"cake": 0.5, "car": 0.1, "dog": 0.4 * 8 / 10, "thing": 0.4 * 2 / 10})


def test_the_long_tail_is_drawn_more_often_up_to_a_limit(pictured: SimpleNamespace) -> None:
    _, even = drawn(pictured.workspace, policy(pictured.root, "tail = 0"))
    assert even == pytest.approx(dict.fromkeys(KINDS, 0.25))
    _, root = drawn(pictured.workspace, policy(pictured.root, "tail = 0.5"))
    total = sum(n**0.5 for n in KINDS.values())
    assert root == pytest.approx({k: n**0.5 / total for k, n in KINDS.items()})
    _, limited = drawn(pictured.workspace, policy(pictured.root, "tail = 0\nmost = 1.5"))  # 2 for the rare ones without
    weights = {"dog": 0.5 * 8, "car": 1.0 * 4, "cake": 1.5 * 2, "thing": 1.5 * 2}
    assert limited == pytest.approx({k: w / sum(weights.values()) for k, w in weights.items()})


def test_captions_near_a_prompt_do_not_train(pictured: SimpleNamespace) -> None:
    prompts = frozenset({"a dog in the warm sun, number 03", "a car in the sun, number 09"})
    equal, _ = drawn(pictured.workspace, policy(pictured.root, ""), exclude_prompts=prompts)
    assert equal == KINDS | {"car": 3}
    loose = policy(pictured.root, "\n[evaluation]\nprompt_similarity = 0.6\n")
    near_too, _ = drawn(pictured.workspace, loose, exclude_prompts=prompts)
    assert near_too == {k: n for k, n in KINDS.items() if k not in ("dog", "car")} | {"dog": 7}


def test_the_difference_of_snapshots(pictured: SimpleNamespace) -> None:
    workspace = pictured.workspace
    a = curate(workspace, policy(pictured.root, "", cap=50))
    b = curate(workspace, policy(pictured.root, "caps = { vehicle = 1 }", cap=50))
    found = diff(workspace, a.snapshot[:8], b.snapshot)
    assert found["policy"] == [{"line": "S6.balance.caps", "before": None, "after": [["vehicle", 1]]}]
    (moved,) = found["samples"]
    assert (moved["before"], moved["after"], moved["samples"], len(moved["examples"])) == ("admitted", "balance", 3, 3)
    assert [c["after"] - c["before"] for c in found["counts"]] == [0, -3, 3, 0]
    assert not found["scorers"] and not found["pool"] and found["shards"]
    same = diff(workspace, a.snapshot, a.snapshot)
    assert not any(same[k] for k in ("policy", "scorers", "pool", "samples", "shards"))
    assert {s["snapshot"] for s in listed(workspace)} >= {a.snapshot, b.snapshot}
    assert find(workspace, a.snapshot)["files"].keys() == {
        "decisions.parquet", "stages.parquet", "funnel.parquet", "quarantine.parquet", "policy.json", "evaluation.json",
    }  # fmt: skip
    run = CliRunner()
    shown = run.invoke(app, ["snapshot", "list", "-w", str(workspace.root), "--json"])
    assert [s["admitted"] for s in json.loads(shown.stdout) if s["snapshot"] in (a.snapshot, b.snapshot)] == [16, 13]
    shown = run.invoke(app, ["snapshot", "diff", a.snapshot, b.snapshot, "-w", str(workspace.root), "--json"])
    assert json.loads(shown.stdout) == json.loads(json.dumps(found))
    assert "balance" in run.invoke(app, ["snapshot", "diff", a.snapshot, b.snapshot, "-w", str(workspace.root)]).stdout
    with pytest.raises(UsageError, match="no snapshot begins with 'zz'"):
        diff(workspace, "zz", b.snapshot)
    with pytest.raises(UsageError, match="no snapshot begins with ''"):
        find(workspace, "")


# Near prompts --------------------------------------------------------------------------------------------------------
VOCABULARY = ("a", "red", "blue", "dog", "cat", "sits", "on", "the", "mat", "猫")
WORDS = st.lists(st.sampled_from(VOCABULARY), max_size=7).map(" ".join)


@settings(max_examples=150, deadline=None)
@given(st.lists(WORDS, max_size=6), st.lists(WORDS, max_size=6), st.sampled_from([0.3, 0.5, 0.75, 0.9]))
def test_near_finds_what_comparing_all_finds(captions: list[str], prompts: list[str], similarity: float) -> None:
    def close(a: str, b: str) -> bool:
        x, y = shingles(a), shingles(b)
        return a == b or (bool(x and y) and len(x & y) >= similarity * len(x | y))

    assert near(captions, prompts, similarity) == [c for c in captions if any(close(c, p) for p in prompts)]


def test_near_is_about_words_and_their_order() -> None:
    prompt = "a photo of a red bench under two large green trees"
    captions = [
        "photo of a red bench under two large green trees",
        "a photo of a red bench under two large green bushes",
        "a photo of a green bench under two large red trees",
        "a photo of a bench",
    ]
    assert near(captions, [prompt], 0.75) == captions[:2]
    assert near(["a photo of a tench"], ["a photo of a bench"], 0.75) == []
    assert near(captions, [prompt], 1.0) == []


# Semantic duplicates -------------------------------------------------------------------------------------------------
@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10_000), count=st.integers(0, 40), since=st.integers(0, 40))
def test_similar_finds_what_comparing_all_finds(seed: int, count: int, since: int) -> None:
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(4, 8))
    vectors = centres[rng.integers(0, 4, count)] + rng.normal(size=(count, 8)) * rng.choice([0, 0.1, 0.5], (count, 1))
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    groups = rng.integers(0, 2, count)
    found = similar(vectors, groups, cosine=0.95, since=since)
    leader = dict(zip(found.rows.tolist(), found.representatives.tolist()))
    pairs = {tuple(p) for p in found.near.tolist()}
    for a in range(count):
        for b in range(max(a + 1, since), count):
            cosine = float(vectors[a] @ vectors[b])
            if abs(cosine - 0.95) < 1e-5:
                continue
            heads = tuple(sorted((leader.get(a, a), leader.get(b, b))))
            known = heads[0] == heads[1] or heads in pairs or heads[1] < since
            assert known or not (cosine >= 0.95 and groups[a] == groups[b])
    for (a, b), cosine in zip(found.near.tolist(), found.apart.tolist()):
        assert a < b and b >= since and groups[a] == groups[b] and cosine >= 0.95 - 1e-5
