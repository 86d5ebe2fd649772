"""The demo's world and its held-out suite: what is in it, what is not, and that it comes out the same every time."""

import hashlib
import json
from collections import Counter

import pytest

from curation.synthesis import meaning
from curation.verify.checks import passed, verify
from flywheel.core.scorer import Item
from flywheel.core.text import normalise
from flywheel.demo.palette import BACKGROUNDS
from flywheel.demo.suite import held_out_prompts, questions
from flywheel.demo.world import AMOUNTS, write_world


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return write_world(tmp_path_factory.mktemp("demo") / "source", size="quick")


@pytest.fixture(scope="module")
def rows(world):
    return [json.loads(line) for line in world.captions.read_text().splitlines()]


def tree(folder):
    return {
        str(p.relative_to(folder)): (hashlib.sha256(p.read_bytes()).hexdigest(), p.stat().st_mtime_ns)
        for p in folder.rglob("*")
        if p.is_file()
    }


def test_writing_again_touches_nothing_and_another_folder_gets_the_same_bytes(world, tmp_path):
    before = tree(world.folder)
    assert write_world(world.folder, size="quick") == world
    assert tree(world.folder) == before
    other = write_world(tmp_path / "again", size="quick")
    assert {k: v[0] for k, v in tree(other.folder).items()} == {k: v[0] for k, v in before.items()}


def test_an_interrupted_world_is_completed(world, tmp_path):
    broken = write_world(tmp_path / "broken", size="quick")
    (broken.folder / "card-0003.png").write_bytes(b"torn")
    (broken.folder / "card-0004.png").unlink()
    broken.planted.unlink()
    write_world(broken.folder, size="quick")
    assert {k: v[0] for k, v in tree(broken.folder).items()} == {k: v[0] for k, v in tree(world.folder).items()}


def test_another_seed_is_another_world(world, tmp_path):
    other = write_world(tmp_path / "other", seed=1, size="quick")
    same = {v[0] for v in tree(other.folder).values()} & {v[0] for v in tree(world.folder).values()}
    assert len(same) == 5  # two blanks, the bomb, the empty file and the text need no seed


def test_sizes(world):
    assert 250 <= world.files <= 350
    assert {k: sum(vars(a).values()) > 1000 for k, a in AMOUNTS.items()} == {"full": True, "quick": False}


def test_captions_name_existing_files_only(world, rows):
    names = {p.name for p in world.folder.iterdir()}
    assert all(r["file"] in names and set(r.get("references", [])) <= names for r in rows)
    assert world.planted.parent == world.folder.parent and world.planted.name not in names


def test_the_pool_is_poor_in_words_and_counts_and_rich_elsewhere(rows):
    kinds = Counter(r["file"].split("-")[0] for r in rows)
    assert kinds["word"] <= 6 and kinds["group"] <= 6
    assert min(kinds["card"], kinds["keep"], kinds["recolour"], kinds["photo"]) >= 18


def test_no_edit_and_no_single_card_comes_twice(rows):
    edits = Counter((r["references"][0], meaning(r["caption"]) or r["caption"]) for r in rows if "references" in r)
    cards = Counter((meaning(r["caption"]), background(r)) for r in rows if r["file"].startswith(("card-", "long-")))
    assert max(edits.values()) == max(cards.values()) == 1


def background(row):
    return next(name for name in BACKGROUNDS if f"{name} " in row["caption"])


def test_no_caption_says_what_the_suite_asks(rows):
    held = {meaning(p) for p in held_out_prompts()}
    assert not {meaning(r["caption"]) for r in rows} & held
    assert not {normalise(r["caption"]) for r in rows} & {normalise(p) for p in held_out_prompts()}


def test_no_card_shows_what_the_suite_asks(world, rows):
    """Judged by the detector: no picture with one shape shows a held-out shape, colour and place, on any background."""
    singles = [q for key, q in questions() if key.startswith("single")]
    assert len({meaning(q.prompt) for q in singles}) == 30
    pictures = [r for r in rows if r["file"].split("-")[0] in ("card", "recolour", "move")]
    items = [Item(image=(world.folder / r["file"]).read_bytes()) for r in pictures]
    checks = [[c for c in q.checks if c["verifier"] != "background"] for q in singles]
    outcomes = verify(items, [[c for group in checks for c in group]] * len(items))
    for row, judged in zip(pictures, outcomes):
        shown = [q.prompt for i, q in enumerate(singles) if passed(judged[4 * i : 4 * i + 4])]
        assert not shown, (row["file"], shown)
