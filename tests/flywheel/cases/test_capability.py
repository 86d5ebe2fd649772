"""The taxonomy: the capability of a signal from its evidence."""

import json
from pathlib import Path

import pytest

from flywheel.cases.capability import load_taxonomy
from flywheel.core.errors import UsageError

EXPECTED = {"text": {"expected": "OPEN"}}


def test_capability_from_evidence():
    capabilities = {
        ("text", "a sign that says OPEN", ""): "typography",
        ("text", "a sign that says 营业中", ""): "typography",  # Latin or not is told from what was expected
        ("written", "a slide titled “Plan”", ""): "slides",
        ("user", "a dog on a sofa", "the fingers look odd"): "portrait",
        ("user", "a dog", "Misspelled words"): "typography",
        ("question", "a red dog", "Is the dog red?"): "color",
        ("user", 'the word "你好"', ""): "multilingual_text",
        ("alignment", "three cats", ""): "count",
        ("alignment", "a cat", ""): "instruction_following",
    }
    rows = [
        {"verifier": v, "task": "t2i", "prompt": p, "evidence": json.dumps({"reason": r} | EXPECTED.get(v, {}))}
        for v, p, r in capabilities
    ]
    answers = load_taxonomy().tell(rows)
    assert [c for c, _ in answers] == list(capabilities.values())
    assert answers[0][1] and not answers[-1][1]
    edit = {"verifier": "user", "task": "ti2i", "prompt": "add a hat", "evidence": '{"reason": "not the same person"}'}
    other = edit | {"verifier": "text", "evidence": '{"expected": "营业中"}', "task": "t2i"}
    assert [c for c, _ in load_taxonomy().tell([edit, other])] == ["identity", "multilingual_text"]


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("[capabilities]\na = 'x'\n[[rule]]\ncapability = 'b'", "not under"),
        ("[capabilities]\na = 'x'\n[[rule]]\ncapability = 'a'\nprompt = '('\n[[rule]]\ncapability = 'a'", "regular"),
        ("[capabilities]\na = 'x'\n[[rule]]\ncapability = 'a'\nprompt = 'x'", "last rule"),
        ("[[rule]]\nwhat = 1", "unknown key"),
    ],
)
def test_a_faulty_taxonomy_is_the_users_to_fix(tmp_path: Path, text: str, fault: str):
    path = tmp_path / "t.toml"
    path.write_text(text)
    with pytest.raises(UsageError, match=fault):
        load_taxonomy(path)


def test_the_taxonomy_covers_what_synthesis_and_suites_name():
    from curation.synthesis import capabilities
    from flywheel.signals.importers import DPG_CAPABILITY, GENEVAL_CAPABILITY

    named = {*capabilities(), *DPG_CAPABILITY.values(), *GENEVAL_CAPABILITY.values()}
    assert named <= load_taxonomy().capabilities.keys()
