"""The demo's suite: every capability, and no attribute held out altogether."""

from collections import Counter

from curation.synthesis import meaning
from flywheel.core.image import decode
from flywheel.demo.palette import INKS
from flywheel.demo.suite import questions, write_suite
from flywheel.demo.word_cards import WORDS
from flywheel.signals.suite import load_suite

CAPABILITIES = {"object", "color", "position", "count", "typography", "identity", "editing"}


def test_suite_has_every_capability_and_loads(tmp_path):
    full, quick = (load_suite(write_suite(tmp_path / s, size=s)) for s in ("full", "quick"))
    for suite, least in ((full, 24), (quick, 8)):
        counts = Counter(c["capability"] for p in suite for c in p.checks)
        assert counts.keys() == CAPABILITIES and min(counts.values()) >= least
    assert {p.text for p in quick} <= {p.text for p in full}
    assert all(bool(p.references) == (p.task == "ti2i") for p in full)
    assert all(decode(r).size[0] >= 128 for p in quick for r in p.reference_bytes())
    again = write_suite(tmp_path / "again", size="full")
    assert again.read_bytes() == (tmp_path / "full" / "suite.jsonl").read_bytes()


def test_no_attribute_is_held_out_altogether():
    """A held-out combination is new, its parts are not."""
    prompts = [meaning(q.prompt) for _, q in questions()]
    words = Counter(m.words for m in {m for m in prompts if m.words})
    assert words.keys() == {(w.lower(),) for w in WORDS} and max(words.values()) <= len(INKS) // 2
    pairs = Counter((m.shapes, m.colors) for m in prompts if m.positions)
    assert max(pairs.values()) <= 2
