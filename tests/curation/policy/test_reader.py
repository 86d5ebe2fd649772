"""Policies from TOML: the built-in ones follow the report; wrong ones are refused with file and line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from curation.policy import reader
from curation.policy.policy import Policy
from curation.policy.reader import load_policy
from flywheel.core.errors import UsageError
from tests.broken import broken

GOOD = """\
[S1]
resolutions = [256]
enters = ["t2i"]

[S1.filters.resolution]
score = "header.short_edge"
min = 256
"""


def test_the_six_stages_in_the_order_of_the_report() -> None:
    policy = load_policy("qwen-image-2")
    assert [(s.name, s.resolutions) for s in policy.stages] == [
        ("S1", (256,)),
        ("S2", (256,)),
        ("S3", (512,)),
        ("S4", (512, 1024)),
        ("S5", (512, 1024, 2048)),
        ("S6", (512, 1024, 2048)),
    ]
    assert [s.enters for s in policy.stages] == [("t2i",), ("ti2i",), ("synthetic",), (), (), ()]
    stated = ["broken_files", "resolution", "deduplication", "nsfw", "rotation", "entropy", "image_text"]
    stated.append("token_length")
    assert [f.name for f in policy.stages[0].filters if f.name in stated] == stated
    fourth = policy.stages[3].filters
    assert [(f.name, f.bucket) for f in fourth] == [
        ("resolution", 1024),
        ("enlarged", 1024),
        ("image_quality", 1024),
        ("aesthetic", 1024),
        ("compression", 1024),
        ("worn", 1024),
    ]
    entropy = next(f for f in policy.stages[0].filters if f.name == "entropy")
    assert entropy.min is not None and entropy.max is not None
    earlier = {f.name: f for s in policy.stages[:5] for f in s.filters}
    for stricter in policy.stages[5].filters[:-1]:  # S6: the earlier operators, stricter, then balance
        assert stricter.score == earlier[stricter.name].score
        least, most = (getattr(earlier[stricter.name], bound) for bound in ("min", "max"))
        assert stricter.min > least if stricter.min is not None else stricter.max < most
    assert policy.stages[5].filters[-1].check == "balance"
    assert 0.65 < policy.number("S6.nsfw.max") < policy.number("S1.nsfw.max"), "sound photographs reach 0.65"


def test_edit_pairs_meet_the_filters_of_pictures_and_captions() -> None:
    first, second = ({f.name: f for f in s.filters} for s in load_policy("qwen-image-2").stages[:2])
    for name in ("nsfw", "entropy", "spatial_entropy", "noise", "black", "burnt", "invalid_caption"):
        mine, theirs = second[name], first[name]
        assert (mine.score, mine.min, mine.max, mine.streams) == (theirs.score, theirs.min, theirs.max, ("ti2i",))
    assert 7 < second["blank"].min < first["blank"].min, "an edit may blur on purpose"
    assert {name for name, f in second.items() if f.references} == {"nsfw", "blank", "noise"}


def test_the_demo_is_the_full_policy_with_other_numbers() -> None:
    # The demo's captions are all valid, its cards upright and without detail, and it has no time for a network.
    left_out = {"invalid_caption", "enlarged", "turned", "same_content", "nsfw"}
    left_out |= {"blank", "noise", "black", "burnt", "copies", "worn"}  # cards are flat and small

    def shape(policy: Policy) -> list:
        sides = [256, 512, 1024, 2048] if policy.name != "demo" else [64, 96, 128, 192]
        return [
            (s.name, [sides.index(r) for r in s.resolutions], s.enters)
            + tuple(
                (f.name, f.score, f.check, f.streams, f.bucket and sides.index(f.bucket))
                for f in s.filters
                if f.name not in left_out
            )
            for s in policy.stages
        ]

    assert shape(load_policy("demo")) == shape(load_policy("qwen-image-2"))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("[S1]", "[S9]", "line 1: unknown stage 'S9'"),
        ("min = 256", "min = = 256", "cannot read .*line 7"),
        ("min = 256", "min = 256\nmax = 10", "line 7: min 256 is over max 10"),
        ("min = 256", "", "line 5: filter resolution has neither min nor max"),
        ("min = 256", 'min = "big"', "line 7: min is not a number"),
        ("min = 256", 'min = 256\nreferences = "all"', "line 8: references is neither true nor false"),
        ("min = 256", "minimum = 256", "line 7: unknown key 'minimum'"),
        ("header.short_edge", "taste.score", "line 6: unknown scorer in 'taste.score'"),
        ("header.short_edge", "header.size", "line 6: header has no number 'size'"),
        ("header.short_edge", "header.format", "line 6: header has no number 'format'"),
        ('score = "header.short_edge"', 'check = "luck"', "line 6: unknown check 'luck'"),
        ("min = 256", "min = 256\nbucket = 999", "line 8: bucket 999"),
        ("min = 256", 'min = 256\nstreams = ["video"]', "line 8: streams is not"),
        ("resolutions = [256]", "resolutions = [512, 256]", "line 2: resolutions"),
        ("resolutions = [256]", "resolutions = [256, 10240]", "line 2: resolutions .* from 16 to 8192"),
        ('enters = ["t2i"]', 'enters = ["raw"]', "line 3: enters"),
        ('enters = ["t2i"]', 'enters = "t2i"\nspeed = 1', "line 4: unknown key 'speed'"),
        ("[S1]", "[scorers.taste]\nx = 1\n[S1]", "line 1: unknown scorer 'taste'"),
        ("[S1]", "[scorers.ocr]\nspeed = 1\n[S1]", "line 2: unknown key 'speed': choose from only_quoted, turns"),
        ("[S1]", "[scorers.face]\nspeed = 1\n[S1]", "line 2: unknown key 'speed': it has none"),
        ("min = 256", "min = nan", "line 7: min is not a number"),
        (
            "min = 256\n",
            'min = 256\n[S1.filters.cap]\ncheck = "balance"\nper = "source"\ncap = 3\n'
            '[S1.filters.late]\nscore = "header.aspect"\nmin = 1\n',
            "balance counts what is left",
        ),
    ],
)
def test_wrong_policies_name_file_and_line(tmp_path: Path, old: str, new: str, message: str) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(GOOD)
    assert load_policy(path).stages[0].filters[0].min == 256
    path.write_text(GOOD.replace(old, new))
    with pytest.raises(UsageError, match=message) as error:
        load_policy(path)
    assert "mine.toml" in str(error.value)


COMPARING = """
[S1.filters.dedup]
check = "duplicates"
hamming = 4
colour = 9

[S1.filters.same]
check = "similar"
cosine = 0.9

[S1.filters.balance]
check = "balance"
per = "category.name"
cap = 10
caps = { animal = 5 }
quotas = { animal = 0.5, food = 0.25 }
tail = 0.5
most = 4
"""


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("hamming = 4", "hamming = 65", "line 11: hamming is not a whole number from 0 to 64"),
        ("colour = 9", "", "line 9: colour is not a whole number from 0 to 255"),
        ("cosine = 0.9", "cosine = 2", "line 16: cosine is not a number from 0 to 1"),
        ('check = "similar"', 'check = ["similar"]', "line 15: unknown check"),
        ("category.name", "category.closeness", "line 20: per is not one of source, task, stream, .*category.name"),
        ("cap = 10", "cap = inf", "line 21: cap is not a whole number of 0 or more"),
        ("cap = 10", "cap = true", "line 21: cap is not a whole number of 0 or more"),
        ("animal = 5", "animal = 0.5", "line 22: caps.animal is not a whole number"),
        ("caps = { animal = 5 }", "caps = 5", "line 22: caps is not a table of numbers by group"),
        ("food = 0.25", "food = 0.75", "line 23: quotas are shares of all draws: their sum is over 1"),
        ("tail = 0.5", "tail = 3", "line 24: tail is not a number from 0 to 1"),
        ("most = 4", "most = 0.5", "line 25: most is not a number of 1 or more"),
        ("most = 4", "most = 4\ntop = 1", "line 26: unknown key 'top'"),
        ("most = 4", "most = 4\n[evaluation]\nprompt_similarity = 2", "line 27: prompt_similarity is not a number"),
        ("most = 4", "most = 4\n[evaluation]\nprompts = 2", "line 27: unknown key 'prompts'"),
    ],
)
def test_wrong_options_name_file_and_line(tmp_path: Path, old: str, new: str, message: str) -> None:
    path = tmp_path / "mine.toml"
    text = GOOD + COMPARING
    path.write_text(text)
    policy = load_policy(path)
    balance = policy.stages[0].filters[-1]
    assert (balance.caps, balance.quotas) == ((("animal", 5),), (("animal", 0.5), ("food", 0.25)))
    assert policy.scorer_names() == ("header", "pixels", "clip", "category")
    assert Policy.from_record(json.loads(json.dumps(policy.record()))) == policy
    assert policy.replace("S1.same.cosine", 0.95).number("S1.same.cosine") == 0.95
    path.write_text(text.replace(old, new))
    with pytest.raises(UsageError, match=message):
        load_policy(path)


def test_unknown_policy() -> None:
    with pytest.raises(UsageError, match=r"neither a file nor a built-in policy \(demo, qwen-image-2\)"):
        load_policy("strict")
    with pytest.raises(UsageError, match="neither a file"):
        load_policy("/nowhere/mine.toml")


@pytest.mark.parametrize(
    ("options", "line", "fault"),
    [
        ('deny = ["x"]', 9, "of is not one of license, source_url, consent"),
        ('of = "license"', 9, "a rights check needs allow, deny or unknown"),
        ('of = "license"\nallow = "CC0"', 12, "allow is not a list of texts"),
        ('of = "license"\ndeny = []', 12, "deny is not a list of texts"),
        ('of = "license"\nunknown = "maybe"', 12, "unknown is not one of keep, drop"),
    ],
)
def test_half_a_rights_check_is_refused_with_its_line(tmp_path: Path, options: str, line: int, fault: str) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(f'{GOOD}\n[S1.filters.licence]\ncheck = "rights"\n{options}\n')
    with pytest.raises(UsageError, match=fault) as error:
        load_policy(path)
    assert f"line {line}" in str(error.value)


def test_a_policy_says_only_what_differs_from_its_base(tmp_path: Path) -> None:
    base = load_policy("qwen-image-2")
    path = tmp_path / "mine.toml"
    path.write_text('base = "qwen-image-2"\n')
    assert load_policy(path).sha256 == base.sha256 and load_policy(path).name == "mine"
    path.write_text('base = "qwen-image-2"\n[S4.filters.aesthetic]\nmin = 5.5\n')
    assert load_policy(path).sha256 == base.replace("S4.aesthetic.min", 5.5).sha256
    path.write_text(
        'base = "qwen-image-2"\n[S6.filters.licence]\ncheck = "rights"\nof = "license"\nallow = ["CC0-1.0"]\n'
    )
    last = load_policy(path).stages[-1].filters
    assert [f.name for f in last[-2:]] == ["licence", "balance"] and len(last) == len(base.stages[-1].filters) + 1
    (tmp_path / "team.toml").write_text('base = "demo"\n[S1.filters.resolution]\nmin = 20\n')
    path.write_text('base = "team.toml"\n[S1.filters.entropy]\nmin = 1.0\n')
    changed = load_policy("demo").replace("S1.resolution.min", 20).replace("S1.entropy.min", 1.0)
    assert load_policy(path).sha256 == changed.sha256


@pytest.mark.parametrize("base", ['"huge"', '"mine.toml"', '"gone.toml"', "3", '["demo"]'])
def test_a_base_that_is_no_other_policy_is_told_with_its_line(tmp_path: Path, base: str) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(f"# mine\nbase = {base}\n")
    with pytest.raises(UsageError, match="mine.toml, line 2: base"):
        load_policy(path)


def test_a_half_written_policy_is_a_sentence(tmp_path: Path) -> None:
    path, refused = tmp_path / "mine.toml", 0
    for text in broken((Path(reader.__file__).parent / "demo.toml").read_text(), step=3):
        path.write_text(text)
        try:
            load_policy(path)
        except UsageError as error:
            assert "mine.toml" in str(error) and "\n" not in str(error)
            refused += 1
    assert refused > 300
