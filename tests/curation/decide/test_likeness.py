"""Which pictures resemble each other, on a pool that grows."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pyarrow.parquet as pq
import pytest

from curation.decide import compare, likeness
from curation.decide.judge import judge
from curation.policy.policy import Policy
from curation.run import configure, curate
from curation.sources.ingest import ingest
from flywheel.core.cluster import cluster
from flywheel.core.workspace import Workspace
from tests.curation.copied import COPIES, scene, slide
from tests.curation.corpus import encoded, texture, textures, write_folder, write_tiny_clip
from tests.curation.one_stage import policy, scored

BY_HASH = '\n[S1.filters.dedup]\ncheck = "duplicates"\nhamming = 4\ncolour = 16\n'


def ends(workspace: Workspace, snapshot: str) -> dict[str, tuple[str | None, str | None]]:
    """File → (filter that dropped it, file that survived it)."""
    rows = pq.read_table(workspace.path("snapshots", snapshot, "decisions.parquet")).to_pylist()
    return {Path(r["source_uri"]).name: (r["filter"], r["survivor_uri"] and Path(r["survivor_uri"]).name) for r in rows}


@pytest.fixture
def growing(tmp_path: Path, ray_session: None) -> Iterator[SimpleNamespace]:
    """Pictures, of which three come later: a copy of an old one, a new pair of twins, and an edit of an old one."""
    large = texture(3, 200, 200)
    first = textures(3) | {"large.png": encoded(large), "edited.png": encoded(texture(8))}
    captions: dict[str, object] = dict.fromkeys(first, "a picture")
    captions["edited.png"] = {"caption": "make it", "references": ["large.png"]}
    later = {
        "near.jpg": encoded(large.resize((150, 150)), "JPEG", quality=70),
        "twin-a.png": encoded(texture(9)),
        "twin-b.jpg": encoded(texture(9), "JPEG", quality=92),
        "edited-again.jpg": encoded(texture(8), "JPEG", quality=92),
    }
    more: dict[str, object] = dict.fromkeys(later, "a picture")
    more["edited-again.jpg"] = {"caption": "make it", "references": ["large.png"]}
    source, workspace = tmp_path / "src", Workspace(tmp_path / "w")
    ingest(workspace, write_folder(source, first, captions))

    def grow() -> None:
        ingest(workspace, write_folder(source, later, captions | more))

    yield SimpleNamespace(workspace=workspace, root=tmp_path, grow=grow)


def test_a_new_batch_is_compared_with_the_old_pool(growing: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    workspace, by_hash = growing.workspace, policy(growing.root, BY_HASH)
    curate(workspace, by_hash)
    growing.grow()
    asked: list[int] = []
    search = likeness.related

    def watched(*arguments: object, **options: int) -> object:
        asked.append(options["since"])
        return search(*arguments, **options)

    monkeypatch.setattr(likeness, "related", watched)
    result = curate(workspace, by_hash)
    assert asked == [4, 0]  # single pictures from the first new one on; pairs anew
    ended = ends(workspace, result.snapshot)
    assert ended["near.jpg"] == ("dedup", "large.png") and ended["edited-again.jpg"] == ("dedup", "edited.png")
    assert {ended["twin-a.png"], ended["twin-b.jpg"]} == {(None, None), ("dedup", "twin-a.png")}
    kept = set(workspace.path("tables").glob("alike-*.parquet"))
    grown = max(kept, key=lambda p: p.stat().st_mtime_ns)
    before = grown.read_bytes()
    for path in kept:
        path.unlink()
    workspace.path("snapshots", f"{result.snapshot}.json").unlink()
    assert curate(workspace, by_hash).snapshot == result.snapshot
    assert grown.read_bytes() == before, "computed at once, it is the same"


def test_pictures_that_show_the_same_by_their_embedding(growing: SimpleNamespace) -> None:
    """The network's weights are random: equal pictures are near in any. For the machinery, not for what it thinks."""
    clip = write_tiny_clip(growing.root)
    options = f'[scorers.clip]\nmodel = "local-dir:{clip}"\npretrained = "{clip}/open_clip_pytorch_model.bin"\n'
    check = '\n[S1.filters.same]\ncheck = "similar"\ncosine = 0.9999\n'
    workspace = growing.workspace
    absent = curate(workspace, policy(growing.root, check))
    (entry,) = [r for r in absent.funnel if r["filter"] == "same"]
    assert (entry["status"], entry["dropped"]) == ("not configured", 0) and "clip" in absent.not_configured[0]
    by_meaning = policy(growing.root, check + options)
    curate(scored(workspace, by_meaning), by_meaning)
    growing.grow()
    result = curate(scored(workspace, by_meaning), by_meaning)
    ended = ends(workspace, result.snapshot)
    assert ended["twin-b.jpg"] == ("same", "twin-a.png")
    assert ended["edited-again.jpg"] == ("same", "edited.png")
    rows = pq.read_table(workspace.path("snapshots", result.snapshot, "decisions.parquet")).to_pylist()
    (row,) = [r for r in rows if r["source_uri"].endswith("twin-b.jpg")]
    assert row["score"] >= row["threshold"] == 0.9999


def judged(workspace: Workspace, by_copy: Policy) -> dict[str, tuple[str | None, str | None]]:
    """As `ends`, of a judgement that writes nothing."""
    rows = judge(workspace, by_copy, configure(by_copy)[0]).read("decisions").to_pylist()
    return {Path(r["source_uri"]).name: (r["filter"], r["survivor_uri"] and Path(r["survivor_uri"]).name) for r in rows}


BY_COPY = (
    '\n[S1.filters.dedup]\ncheck = "duplicates"\nhamming = 8\ncolour = 48\nagreement = 0.6\n'
    '\n[S1.filters.copies]\ncheck = "copies"\nagreement = 0.6\n'
)


def test_copies_are_found_and_slides_of_one_template_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = [("Revenue grew by ten percent", "in the north"), ("Costs were lower", "as travel was cut"),
             ("Four people were hired", "for the platform"), ("The office moves", "to the river")]  # fmt: skip
    files = {f"slide-{n}.png": encoded(slide(pair)) for n, pair in enumerate(lines)}
    captions = {f"slide-{n}.png": f'a slide that says "{a} {b}"' for n, (a, b) in enumerate(lines)}
    files |= {f"{n}.png": encoded(scene(n)) for n in range(len(COPIES))}
    files |= {f"{n}-{kind}.jpg": encoded(change(scene(n)), "JPEG", quality=85)
              for n, (kind, change) in enumerate(COPIES.items())}  # fmt: skip
    captions |= {name: "coloured shapes" for name in files if not name.startswith("slide")}
    workspace, by_copy = Workspace(tmp_path / "w"), policy(tmp_path, BY_COPY)
    ingest(workspace, write_folder(tmp_path / "src", files, captions))
    ended = judged(scored(workspace, by_copy), by_copy)
    assert all(ended[f"slide-{n}.png"] == (None, None) for n in range(len(lines)))
    for n, kind in enumerate(COPIES):
        stayed = [name for name in (f"{n}.png", f"{n}-{kind}.jpg") if ended[name] == (None, None)]
        assert len(stayed) == 1, kind
    by = {filter_ for filter_, _ in ended.values()}
    assert by == {None, "dedup", "copies"}
    for derived in workspace.path("tables").glob("alike-*"):
        derived.unlink()
    monkeypatch.setattr(compare, "_FEW", 0)
    monkeypatch.setattr(compare, "_PAIRS", 3)
    with cluster(1, few=True):  # several parts, in another process
        assert judged(workspace, by_copy) == ended


@pytest.mark.parametrize("nights", [("first", "again", "copies"), ("copies", "again", "first"), ("",)])
def test_pictures_that_are_there_many_times_hide_no_copies(tmp_path: Path, nights: tuple[str, ...]) -> None:
    """The same files in many folders, whatever order they come in: of each picture and its copy, one stays."""
    scenes = {n: scene(n) for n in range(4)}
    originals = {f"{n}.png": encoded(image) for n, image in scenes.items()}
    mirrored = {f"{n}-copy.jpg": encoded(COPIES["turned"](image), "JPEG", quality=60) for n, image in scenes.items()}
    folders = {"first": originals} | {f"again/{k}": originals | mirrored for k in range(9)} | {"copies": mirrored}
    for folder, files in folders.items():
        write_folder(tmp_path / "src" / folder, files)
    workspace, by_copy = Workspace(tmp_path / "w"), policy(tmp_path, BY_COPY)
    for night in nights:
        ingest(workspace, tmp_path / "src" / night)
        ended = judge(scored(workspace, by_copy), by_copy, configure(by_copy)[0]).read("decisions").to_pylist()
    stayed = sorted(Path(r["source_uri"]).name for r in ended if r["filter"] is None)
    assert [name[0] for name in stayed] == ["0", "1", "2", "3"]
    assert len(ended) == sum(map(len, folders.values()))


def test_slides_that_are_read_alike_are_one(tmp_path: Path) -> None:
    """Without quotes in captions, pixels decide; the same slide saved again is a duplicate."""
    first, other = slide(["Next review is on Monday"]), slide(["Next review is on Friday"])
    files = {"a.png": encoded(first), "b.jpg": encoded(first, "JPEG", quality=60), "c.png": encoded(other)}
    workspace, by_copy = Workspace(tmp_path / "w"), policy(tmp_path, BY_COPY)
    ingest(workspace, write_folder(tmp_path / "src", files, dict.fromkeys(files, "a slide")))
    ended = judged(scored(workspace, by_copy), by_copy)
    assert ended["c.png"] == (None, None) and {ended["a.png"][0], ended["b.jpg"][0]} == {None, "dedup"}
