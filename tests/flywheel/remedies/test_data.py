"""Remedies: retrieval, scarcity, decontamination with a planted evaluation prompt, what review decides, the RL rule."""

import io
import itertools
import json
import random
import tomllib
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from curation.synthesis import draw, meaning
from flywheel.cases.events import Case
from flywheel.core.files import write_parquet
from flywheel.core.image import decode
from flywheel.core.records import Manifest, ShardFile
from flywheel.core.schema import SHARD
from flywheel.core.workspace import Workspace
from flywheel.demo.cards import single_cards
from flywheel.demo.word_cards import word_cards
from flywheel.presets import Rewards, load_preset
from flywheel.remedies import data, reward_policy
from flywheel.remedies.augment import augment
from flywheel.remedies.held_out import HeldOut
from flywheel.remedies.index import CaptionIndex
from flywheel.remedies.review import Queue
from flywheel.signals.suite import Prompt, load_suite
from tests.flywheel.plans import entry, round_plan

PLANTED = "on the left of a white card sits one red circle"  # the first evaluation prompt, in other words, in the pool
PROMPTS = {  # id → prompt, verifier, capability
    "s1": ("a red circle on the left of a white card", "color", "color"),
    "w1": ('the word "APPLE" in red letters on a white card', "text", "typography"),
    "p1": ("an old lighthouse keeper reads by lamp light", "count", "count"),
}
SUITE = [
    Prompt(i, text, "t2i", (), ({"verifier": v, "capability": c, "text": "APPLE"},))
    for i, (text, v, c) in PROMPTS.items()
]
CASES = [Case("c1", 1, "color", "pretraining", "s1", SUITE[0].text, "routed")]
PLAN = round_plan(2, entry("base", 0.5), entry("color", 0.5, samples=8))


def picture(n: int) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (64, 64), (n * 7 % 255, 90, 120)).save(out, "PNG")
    return out.getvalue()


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Manifest of a pool with 40 shapes, ten word cards, and the planted sample."""
    folder = tmp_path_factory.mktemp("base")
    words = [
        s.caption
        for s in itertools.islice(draw([word_cards()], seed="w", exclude=frozenset(p.text for p in SUITE)), 10)
    ]
    captions = [s.caption for s in itertools.islice(draw([single_cards()], seed="s"), 40)] + words + [PLANTED]
    rows = [
        {"sample_id": f"{n:064x}", "task": "t2i", "caption": c, "image": picture(n), "references": [], "slice": "base"}
        | {"width": 64, "height": 64}
        for n, c in enumerate(captions)
    ]
    write_parquet(folder / "64.parquet", pa.Table.from_pylist(rows, schema=SHARD))
    layout = {"path": "64.parquet", "bucket": 64, "width": 64, "height": 64, "task": "t2i", "references": 0}
    file = ShardFile(**layout, sha256="", bytes=0, rows=len(rows), stages=("S1",))
    Manifest(snapshot="s", files=(file,)).write(folder / "manifest.json")
    return folder / "manifest.json"


@pytest.fixture(scope="module")
def collected(base: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[dict]]:
    folder = tmp_path_factory.mktemp("remedy")
    return folder, data.collect(folder, PLAN, CASES, SUITE, base, preset=load_preset("demo"))


def near_evaluation(captions: list[str]) -> list[str]:
    held = {meaning(p.text) for p in SUITE} - {None}
    return [c for c in captions if meaning(c) in held or c in {p.text for p in SUITE}]


def test_a_planted_evaluation_prompt_never_becomes_a_candidate(collected: tuple[Path, list[dict]]):
    folder, rows = collected
    assert len(rows) == 8 and near_evaluation([r["caption"] for r in rows]) == []
    refused = pq.read_table(folder / "refused.parquet").to_pylist()
    found = {r["caption"]: r["filter"] for r in refused if r["recipe"] == "retrieved"}
    assert found[PLANTED] == data.EVALUATION_PROMPT and set(found.values()) == {data.EVALUATION_PROMPT}
    recipes = Counter(r["evidence"]["recipe"] for r in rows)
    assert 0 < recipes["retrieved"] <= 4 and all(0 <= r["priority"] <= 1 for r in rows)
    found = next(r for r in rows if r["evidence"]["recipe"] == "retrieved")
    assert found["evidence"]["case"] == "c1" and found["evidence"]["similarity"] >= 0.6


def test_only_what_the_review_accepted_is_sharded_and_an_edit_cannot_bring_an_evaluation_prompt_in(
    collected: tuple[Path, list[dict]], tmp_path: Path
):
    folder, rows = collected
    queue = Queue(Workspace(tmp_path / "w"))
    queue.add(2, rows)
    rejected, edited, sneaked = (queue.next("ada") and queue.decide(queue.next("ada").item, *d) for d in (
        ("rejected", "ada"), ("accepted", "ada"), ("accepted", "ada")
    ))  # fmt: skip
    items = queue.items()
    queue.approve_all(2)
    items = {(x.capability, x.sample_id): x for x in queue.items().values()}

    def with_caption(item: object, caption: str) -> None:
        slots = (items[item.capability, item.sample_id].slots[0].__class__(1, "accepted", "ada", None, caption, None),)
        items[item.capability, item.sample_id] = item.__class__(**{**vars(item), "slots": slots})

    with_caption(edited, "a better caption")
    with_caption(sneaked, SUITE[2].text.replace("lamp", "lampp"))
    counts = data.shard(folder, PLAN, SUITE, items)
    assert counts["color"]["rejected"] == 1 and counts["color"]["refused"] >= 2
    manifest = json.loads((folder / "manifest.json").read_text())
    sharded = [r for f in manifest["files"] for r in pq.read_table(folder / f["path"]).to_pylist()]
    assert len(sharded) == 6 and near_evaluation([r["caption"] for r in sharded]) == []
    assert rejected.sample_id not in {r["sample_id"] for r in sharded}
    assert "a better caption" in {r["caption"] for r in sharded}
    table = pq.read_table(folder / "generated.parquet").to_pylist()
    assert Counter(r["filter"] for r in table if r["filter"] != data.EVALUATION_PROMPT) == {None: 6, "review": 1}
    assert sneaked.sample_id in {r["sample_id"] for r in table if r["filter"] == data.EVALUATION_PROMPT}


@pytest.mark.parametrize(
    "text, near",
    [
        ("An old lighthouse-keeper reads, by lamp light!", True),
        ("an old lighthouse keepers reads by lamp light", True),
        ("by lamp light an old lighthouse keeper reads", True),
        ("an old sailor reads by lamp light", False),
        ('a card with "APPLE" written in red', True),
        ('the word "APPLE" in blue letters on a white card', False),
    ],
)
def test_near_neighbours_of_evaluation_prompts(text: str, near: bool):
    assert (HeldOut(p.text for p in SUITE).near(text) is not None) is near


def test_a_removed_category_is_scarce_and_a_common_one_is_not(base: Path):
    from flywheel.remedies.retrieval import captions

    rows = [r for r in captions(base) if '"' not in r[1]]
    index = CaptionIndex.build(rows)
    words = [f'the word "{w}" in red letters' for w in ("MILK", "TAXI", "SALE")]
    shapes = [c for _, c in rows[:3]]
    found = index.scarcity({"typography": words, "object": shapes}, neighbours=8, sparse=25)
    assert found["typography"]["sparse_share"] == 1 and found["object"]["sparse_share"] < 0.5


def test_augmented_samples_differ_and_keep_their_size():
    row = {"sample_id": "a", "caption": "c", "image": picture(3), "references": [picture(3)]}
    made = list(itertools.islice(augment([row], seed="0"), 3))
    assert len({m["image"] for m in made}) == 3 and decode(made[0]["image"]).size == (64, 64)
    assert made[0]["image"] == made[0]["references"][0]  # target and reference vary together
    assert list(augment([], seed="0")) == []


CHECKS = [("text", "typography"), ("count", "count"), ("identity", "identity"), ("alignment", "style")]
JUDGED = [Prompt(f"p{n}", f"t{n}", "t2i", (), ({"verifier": v, "capability": c},)) for n, (v, c) in enumerate(CHECKS)]


def rl(*capabilities: str) -> list[Case]:
    return [Case(f"{c}{n}", 1, c, "rl", f"p{n}", "t", "routed") for n, c in enumerate(capabilities)]


def test_weights_and_mix_follow_the_cases_and_say_why():
    cases = rl("typography", "typography", "typography", "count")
    failed = {c.case_id: ["text"] if c.capability == "typography" else ["count"] for c in cases}
    rule = reward_policy.adjust(cases, JUDGED, failed, settings=Rewards(prompts=100, floor=0.2))
    assert rule["weights"] == pytest.approx({"ocr": 0.65, "instruction": 0.25, "consistency": 0.05, "alignment": 0.05})
    assert rule["mix"] == {"count": 25, "identity": 5, "style": 5, "typography": 65}
    assert rule["categories"]["typography"]["ocr"] == pytest.approx(0.6)
    assert "typography: 3 of 4 open RL cases → 65 of 100 prompts" in rule["log"]


def test_a_reward_whose_rise_cost_another_capability_is_damped_and_the_log_says_so():
    cases, failed = rl("typography"), {"typography0": ["text"]}
    settings = Rewards(floor=0.2)
    plain = reward_policy.adjust(cases, JUDGED, failed, settings=settings)
    before = {"weights": {"ocr": 0.1}, "rose": {"ocr": 0.3}}
    damped = reward_policy.adjust(cases, JUDGED, failed, settings=settings, previous=before, regressed=["style"])
    assert damped["weights"]["ocr"] < plain["weights"]["ocr"]
    assert any("style got worse → times 0.5" in line for line in damped["log"])
    own = reward_policy.adjust(cases, JUDGED, failed, settings=settings, previous=before, regressed=["typography"])
    assert own["weights"] == plain["weights"]  # a reward that judges what got worse is needed more, not less


@given(
    st.lists(st.sampled_from([c for _, c in CHECKS]), max_size=30), st.floats(0, 1), st.integers(0, 300), st.randoms()
)
def test_weights_vectors_and_mix_always_add_up(capabilities: list, floor: float, prompts: int, rng: random.Random):
    cases = rl(*capabilities)
    failed = {c.case_id: [v for v, k in CHECKS if k == c.capability and rng.random() < 0.7] for c in cases}
    rule = reward_policy.adjust(cases, JUDGED, failed, settings=Rewards(prompts=prompts, floor=floor))
    assert sum(rule["mix"].values()) == prompts and min(rule["mix"].values()) >= 0
    for weights in (rule["weights"], *rule["categories"].values()):
        assert sum(weights.values()) == pytest.approx(1) and min(weights.values()) >= 0


def test_rl_prompts_are_a_suite_with_checks_and_none_is_an_evaluation_prompt(tmp_path: Path):
    rule = {"mix": {"typography": 6, "identity": 2, "poetry": 4}, "log": [], "weights": {"ocr": 1.0}}
    rule["categories"] = {"identity": {"consistency": 0.75, "ocr": 0.25}}
    near = ['a sign with the word "BREAD"', SUITE[1].text, "no text at all"]
    path = reward_policy.write(
        tmp_path, rule, base="rl-tiny", pins={"round": 3}, suite=SUITE, retrieved=lambda capability, n: near[:n], seed=0
    )
    written = json.loads(path.read_text())
    prompts = load_suite(tmp_path / written["prompts"])
    assert Counter(p.prompt_id.split("-")[1] for p in prompts) == {"typography": 6, "identity": 2, "poetry": 1}
    assert near_evaluation([p.text for p in prompts]) == [] and all(p.checks for p in prompts)
    assert all(r.is_file() for p in prompts for r in p.references)
    recipe = tomllib.loads((tmp_path / written["recipe"]).read_text())
    assert recipe == {"base": "rl-tiny", "weights": {"*": {"ocr": 1.0}, **rule["categories"]}}
    assert all(p.checks[0]["capability"] == p.category for p in prompts)
    assert written["round"] == 3 and "poetry: 1 of 4 prompts found" in written["log"][-1]
