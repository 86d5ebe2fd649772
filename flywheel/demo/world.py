"""The demo's generated source folder: cards, words, edit pairs, photographs and planted defects.

It has few samples for typography and count on purpose: the first round fails there, and the flywheel repairs it.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from curation.synthesis import allowed, meaning
from curation.synthesis.canvas import encode
from curation.synthesis.photos import OPERATIONS
from curation.synthesis.sample import Recipe
from flywheel.core.files import read_json, write_bytes, write_json
from flywheel.demo.cards import draw_group, draw_single, group_caption, group_cards, single_caption, single_cards
from flywheel.demo.defects import Defect, defects, shuffled
from flywheel.demo.edits import Edit, keep_edits, keep_text, move_edits, move_text, recolour_edits, recolour_text
from flywheel.demo.mascot import draw_scene, scene_caption
from flywheel.demo.meaning import POSITIONS
from flywheel.demo.palette import INKS
from flywheel.demo.photographs import crops
from flywheel.demo.suite import Size, held_out_prompts
from flywheel.demo.word_cards import draw_word, word_caption, word_cards

VERSION = 1  # raise it when equal inputs give different files
Draw = Callable[[Any, random.Random], bytes]
Say = Callable[[Any, random.Random], str]


@dataclass(frozen=True, kw_only=True)
class Amounts:
    """How many pictures of each kind a world has."""

    singles: int
    groups: int
    words: int
    recolours: int
    moves: int
    scenes: int
    keeps: int
    photographs: int
    photo_edits: int


AMOUNTS: dict[str, Amounts] = {
    "full": Amounts(
        singles=350,
        groups=14,
        words=14,
        recolours=200,
        moves=140,
        scenes=160,
        keeps=260,
        photographs=45,
        photo_edits=20,
    ),
    "quick": Amounts(
        singles=150,
        groups=5,
        words=5,
        recolours=30,
        moves=20,
        scenes=24,
        keeps=36,
        photographs=18,
        photo_edits=6,
    ),
}


@dataclass(frozen=True)
class World:
    """A written world: the source folder, its captions, and the list of planted defects (outside the folder)."""

    folder: Path
    captions: Path
    planted: Path
    files: int


@dataclass(frozen=True)
class Picture:
    """One file of the world; with `references` it is the target of an edit."""

    file: str
    data: bytes
    caption: str | None
    references: tuple[str, ...] = ()

    def row(self) -> dict[str, Any]:
        """The line of captions.jsonl for this file."""
        row: dict[str, Any] = {"file": self.file, "caption": self.caption}
        return row | ({"task": "ti2i", "references": list(self.references)} if self.references else {})


def write_world(folder: Path, *, seed: int = 0, size: Size = "full") -> World:
    """Write the world to `folder`, which contains nothing else; a finished world is left unchanged.

    `<folder>.planted.json`, beside the folder, lists the defects: tests compare curation's decisions with this list.
    """
    world = World(folder, folder / "captions.jsonl", folder.with_name(f"{folder.name}.planted.json"), 0)
    identity = {"version": VERSION, "seed": seed, "size": size}
    if world.planted.exists() and world.captions.exists():
        listed = read_json(world.planted)
        if all(listed[k] == v for k, v in identity.items()) and listed["files"] == _count(folder):
            return replace(world, files=listed["files"])
    folder.mkdir(parents=True, exist_ok=True)
    good, planted = _pictures(seed, AMOUNTS[size])
    pictures = [*good, *(Picture(d.file, d.data, d.caption) for d in planted)]
    for picture in pictures:
        path = folder / picture.file
        if not path.exists() or path.read_bytes() != picture.data:
            path.write_bytes(picture.data)  # the next call repairs a torn file: the list below is written last
    rows = [json.dumps(p.row(), ensure_ascii=False) for p in pictures if p.caption is not None]
    write_bytes(world.captions, ("\n".join(rows) + "\n").encode())
    listing = [{k: v for k, v in asdict(d).items() if k not in ("data", "caption")} for d in planted]
    write_json(world.planted, identity | {"files": len(pictures), "defects": listing})
    return replace(world, files=len(pictures))


def _count(folder: Path) -> int:
    return sum(p.is_file() and p.name != "captions.jsonl" for p in folder.iterdir())


def _pictures(seed: int, amounts: Amounts) -> tuple[list[Picture], list[Defect]]:
    exclude = held_out_prompts(seed=seed)
    singles = _cards(single_cards(), amounts.singles + 2, seed, exclude)
    scenes = _cards(_scenes(), amounts.scenes, seed, frozenset())
    spare = [_card_picture("spare", i, card, draw_single, single_caption, seed) for i, card in enumerate(singles[-2:])]
    good: list[Picture] = []

    def add(name: str, cards: list[Any], draw: Draw, say: Say) -> list[Picture]:
        pictures = [_card_picture(name, i, card, draw, say, seed) for i, card in enumerate(cards)]
        good.extend(pictures)
        return pictures

    single_files = add("card", singles[:-2], draw_single, single_caption)
    add("group", _cards(group_cards(), amounts.groups, seed, exclude), draw_group, group_caption)
    add("word", _cards(word_cards(), amounts.words, seed, exclude), draw_word, word_caption)
    scene_files = add("mascot", scenes, draw_scene, scene_caption)

    cards, scene_cards, inks = list(zip(singles[:-2], single_files)), list(zip(scenes, scene_files)), tuple(INKS)
    kinds = (
        EditKind(
            name="recolour", count=amounts.recolours, sources=cards, recipe=recolour_edits(), key="color", values=inks,
            draw=draw_single, say=recolour_text,
        ),
        EditKind(
            name="move", count=amounts.moves, sources=cards, recipe=move_edits(), key="position", values=POSITIONS,
            draw=draw_single, say=move_text,
        ),
        EditKind(
            name="keep", count=amounts.keeps, sources=scene_cards, recipe=keep_edits(), key="color", values=inks,
            draw=draw_scene, say=keep_text,
        ),
    )  # fmt: skip
    for kind in kinds:
        good.extend(_edits(kind, seed, exclude))
    good.extend(_photographs(amounts, seed))
    first = single_files[0]
    planted = defects(seed, (first.file, first.data, first.caption or ""), [(p.data, p.caption or "") for p in spare])
    return good, list(planted)


def _cards(recipe: Recipe, count: int, seed: int, exclude: frozenset[str]) -> list[Any]:
    """`count` allowed variants, shuffled; none is repeated before all are used."""
    variants = shuffled(allowed(recipe, exclude), f"{seed}/{recipe.name}")
    return [variants[i % len(variants)] for i in range(count)]


def _scenes() -> Recipe:
    """The mascot scenes that edits start from. Their captions are not evaluation prompts."""
    edits = keep_edits()
    variants = list(dict.fromkeys(e.before for e in edits.variants))
    return replace(edits, name="scene", variants=variants, meanings=lambda _: ())


def _card_picture(name: str, i: int, card: Any, draw: Draw, say: Say, seed: int) -> Picture:
    caption = say(card, random.Random(f"{seed}/{name}/{i}/caption"))
    return Picture(f"{name}-{i:04d}.png", draw(card, _state(seed, name, i)), caption)


def _state(seed: int, name: str, i: int) -> random.Random:
    """The random state that a picture is drawn from; the target of an edit is drawn from that of its source."""
    return random.Random(f"{seed}/{name}/{i}")


@dataclass(frozen=True, kw_only=True)
class EditKind:
    """One kind of edit: `key` of a source card takes another of `values`; `sources` are cards with their files."""

    name: str
    count: int
    sources: Sequence[tuple[Any, Picture]]
    recipe: Recipe
    key: str
    values: tuple[str, ...]
    draw: Draw
    say: Say


def _edits(kind: EditKind, seed: int, exclude: frozenset[str]) -> Iterator[Picture]:
    """`count` targets of edits of existing pictures: sources in turn, the new value drawn from the allowed ones."""
    held_out = {m for p in exclude if (m := meaning(p)) is not None}
    rng = random.Random(f"{seed}/{kind.name}")
    known: set[tuple[str, Edit[Any]]] = set()
    order = rng.sample(kind.sources, len(kind.sources))
    for card, source in order * len(kind.values):
        if len(known) == kind.count:
            return
        edits = [Edit(card, replace(card, **{kind.key: v})) for v in kind.values if v != getattr(card, kind.key)]
        edits = [e for e in edits if (source.file, e) not in known and held_out.isdisjoint(kind.recipe.meanings(e))]
        if not edits:
            continue
        edit = rng.choice(edits)
        drawn_as, number = source.file.removesuffix(".png").rsplit("-", 1)
        data = kind.draw(edit.after, _state(seed, drawn_as, int(number)))
        yield Picture(f"{kind.name}-{len(known):04d}.png", data, kind.say(edit, rng), (source.file,))
        known.add((source.file, edit))
    if len(known) < kind.count:
        raise ValueError(f"{len(kind.sources)} pictures allow {len(known)} {kind.name} edits, not {kind.count}")


def _photographs(amounts: Amounts, seed: int) -> Iterator[Picture]:
    """Plain crops, then edits of more crops: half of them apply an operation, half undo it."""
    for i, (crop, caption) in enumerate(crops(amounts.photographs, seed=f"{seed}/photographs")):
        yield Picture(f"photo-{i:04d}.png", encode(crop), caption)
    rng = random.Random(f"{seed}/photo-edits")
    for i, (crop, caption) in enumerate(crops(amounts.photo_edits, seed=f"{seed}/photo-edits")):
        operation = OPERATIONS[i // 2 % len(OPERATIONS)]
        plain, edited = encode(crop), encode(operation.apply(crop))
        before, after = (plain, edited) if i % 2 == 0 else (edited, plain)
        described = caption if i % 2 == 0 else f"{caption}, {operation.result}"
        yield Picture(f"photo-edit-{i:04d}-before.png", before, described)
        instruction = rng.choice(operation.forward if i % 2 == 0 else operation.backward)
        yield Picture(f"photo-edit-{i:04d}-after.png", after, instruction, (f"photo-edit-{i:04d}-before.png",))
