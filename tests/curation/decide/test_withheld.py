"""What shows a held-out picture, or one that looks like it, is held out too: as a picture and as a reference."""

from __future__ import annotations

from pathlib import Path

from curation.decide.judge import judge
from curation.decide.judging import HeldOut, Look
from curation.policy.policy import Policy
from curation.run import configure
from curation.scorers import load
from curation.sources.ingest import ingest
from flywheel.core.scorer import Item
from flywheel.core.workspace import Workspace
from tests.curation.corpus import encoded, texture, write_folder
from tests.curation.one_stage import policy, scored


def stopped(workspace: Workspace, rules: Policy, held: HeldOut) -> set[str]:
    """Files that the evaluation keeps from training."""
    decisions = judge(workspace, rules, configure(rules)[0], held).read("decisions").to_pylist()
    return {Path(r["source_uri"]).name for r in decisions if r["filter"] == "held_out"}


def test_look_alikes_and_pairs_are_held_out(tmp_path: Path):
    large = texture(3, 200, 200)
    files = {
        "large.png": encoded(large),
        "near.jpg": encoded(large.resize((150, 150)), "JPEG", quality=70),
        "other.png": encoded(texture(5, 200, 200)),
        "pair.png": encoded(texture(6, 200, 200)),
        "free.png": encoded(texture(7, 200, 200)),
    }
    captions: dict[str, object] = {n: f"picture {n}" for n in files}
    captions["pair.png"] = {"caption": "change it", "references": ["near.jpg"]}
    captions["free.png"] = {"caption": "change it", "references": ["other.png"]}
    workspace, rules = Workspace(tmp_path / "w"), policy(tmp_path, "")  # without any check of duplicates
    ingest(workspace, write_folder(tmp_path / "source", files, captions))
    scored(workspace, rules)
    (row,) = load("pixels").score([Item(files["large.png"])])
    assert isinstance(row, dict)
    by_look = HeldOut(looks=frozenset({Look(row["phash"], row["thumbnail"])}))
    assert stopped(workspace, rules, by_look) == {"large.png", "near.jpg", "pair.png"}
    decisions = judge(workspace, rules, configure(rules)[0]).read("decisions").to_pylist()
    held = next(r["sample_id"] for r in decisions if r["source_uri"].endswith("near.jpg"))
    assert stopped(workspace, rules, HeldOut(frozenset({held}))) == {"large.png", "near.jpg", "pair.png"}
    assert stopped(workspace, rules, HeldOut()) == set()
    assert HeldOut.from_record(by_look.record()) == by_look
