"""Public suites: imported with their verifiers, and a result that is the benchmark's own on given outputs."""

import json
from pathlib import Path

import pytest

from curation.verify.benchmark_rules import relations
from flywheel.core.errors import UsageError
from flywheel.core.ledger import Ledger
from flywheel.core.workspace import Workspace
from flywheel.signals.benchmarks import judge_outputs, record, result
from flywheel.signals.importers import import_suite
from flywheel.signals.suite import Prompt, copy_suite, load_suite


def suite_of(tmp_path: Path, kind: str, rows: list[dict] | str, name: str = "in.jsonl") -> list[Prompt]:
    text = rows if isinstance(rows, str) else "".join(json.dumps(r, ensure_ascii=False) + "\n" for r in rows)
    (tmp_path / name).write_text(text, "utf-8")
    import_suite(kind, tmp_path / name, tmp_path / "suite.jsonl")
    return load_suite(tmp_path / "suite.jsonl")


def thing(name: str, x: float = 0, y: float = 0, score: float = 0.95, color: str | None = None) -> dict:
    return {"class": name, "score": score, "box": [x, y, x + 10, y + 10], "color": color}


GENEVAL = [
    {"tag": "single_object", "include": [{"class": "cat", "count": 1}], "prompt": "a photo of a cat"},
    {
        "tag": "counting",
        "include": [{"class": "cat", "count": 2}],
        "exclude": [{"class": "cat", "count": 3}],
        "prompt": "a photo of two cats",
    },
    {"tag": "colors", "include": [{"class": "cat", "count": 1, "color": "red"}], "prompt": "a photo of a red cat"},
    {
        "tag": "position",
        "include": [{"class": "dog", "count": 1}, {"class": "cat", "count": 1, "position": ["left of", 0]}],
        "prompt": "a photo of a cat left of a dog",
    },
]


def test_geneval_is_binary_per_picture_and_the_mean_of_its_tasks(tmp_path: Path):
    suite = suite_of(tmp_path, "geneval", GENEVAL)
    single, two, red, left = (p.prompt_id for p in suite)
    outputs = [
        (single, [thing("cat", score=0.31)], True),
        (single, [thing("cat", score=0.3)], False),  # not above the threshold
        (single, [thing("cat"), thing("dog")], True),
        (two, [thing("cat", score=0.91), thing("cat", 20, score=0.91)], True),
        (two, [thing("cat", score=0.91), thing("cat", 20, score=0.9)], False),  # counting has a higher threshold
        (two, [thing("cat"), thing("cat", 20), thing("cat", 40)], False),  # one too many
        (red, [thing("cat", color="red")], True),
        (red, [thing("cat", color="red", score=0.5), thing("cat", color="blue")], False),  # the surest decides
        (left, [thing("cat", 0), thing("dog", 50)], True),
        (left, [thing("cat", 50), thing("dog", 0)], False),
        (left, [thing("cat", 0)], False),  # no target
        (left, [thing("cat", 0), thing("dog", 1)], False),  # they overlap
    ]
    judged = judge_outputs(suite, [{"prompt_id": i, "detections": d} for i, d, _ in outputs])
    assert [o[0].passed for _, o in judged] == [ok for *_, ok in outputs]
    assert [o[0].evidence["failed"] for _, o in judged][4:6] == [["count"], ["exclude"]]
    figures = result(suite, judged)
    assert figures.groups == {"colors": 1 / 2, "counting": 1 / 3, "position": 1 / 4, "single_object": 2 / 3}
    assert figures.score == pytest.approx((1 / 2 + 1 / 3 + 1 / 4 + 2 / 3) / 4)


def test_relative_positions():
    box = [0, 0, 10, 10]
    assert relations([40, 0, 50, 10], box) == {"right of"} and relations([0, -40, 10, -30], box) == {"above"}
    assert relations([40, 40, 50, 50], box) == {"right of", "below"} and relations(box, box) == frozenset()


def test_longtext_sums_matched_words_or_characters(tmp_path: Path):
    rows = [
        {"prompt": "a sign", "text": ["FRESH BREWS, every day", "every day"], "category": "sign", "prompt_id": 0},
        {"prompt": "a label", "text": ["Tea"], "category": "label", "prompt_id": 1},
    ]
    suite = suite_of(tmp_path, "longtext", rows)
    outputs = [
        {"prompt_id": "longtext-en-0", "text": "fresh every DAY!\nbrew every"},  # fresh, every twice, day once: 4 of 6
        {"prompt_id": "longtext-en-1", "text": "coffee tea"},
    ]
    figures = result(suite, judge_outputs(suite, outputs))
    assert figures.score == 5 / 7 and figures.groups == {"en / label": 1.0, "en / sign": 4 / 6}
    (tmp_path / "suite.jsonl").unlink()
    chinese = suite_of(
        tmp_path, "longtext", [{"prompt": "一块牌子", "text": ["每日 新鲜，烘焙"], "category": "sign", "prompt_id": 0}]
    )
    judged = judge_outputs(chinese, [{"prompt_id": "longtext-zh-0", "text": "每日新新焙"}])
    assert result(chinese, judged).score == 4 / 6  # 每 日 新 焙; the second 新 was not asked for
    assert judged[0][1][0].evidence["missing"] == ["烘", "鲜"]
    assert chinese[0].checks[0]["capability"] == "multilingual_text"


def test_cvtg_word_accuracy_and_edit_similarity(tmp_path: Path):
    suite = suite_of(tmp_path, "cvtg", [{"index": 3, "prompt": "two signs", "sentence_list": ["OPEN now", "Exit"]}])
    figures = result(suite, judge_outputs(suite, [{"prompt_id": "cvtg-3", "text": "open, now exif"}]))
    assert figures.score == 2 / 3 and figures.groups["NED"] == pytest.approx(1 - 1 / len("open now exit"))


DPG_COLUMNS = "item_id,text,keywords,proposition_id,dependency,category_broad,category_detailed,tuple,"

DPG = f"""{DPG_COLUMNS}question_natural_language
7,a red cat on a mat,,1,0,entity,whole,entity - whole (cat),Is there a cat?
7,a red cat on a mat,,2,1,attribute,color,"attribute - color (cat, red)",Is the cat red?
7,a red cat on a mat,,4,"1,3",relation,spatial,"relation - spatial (cat, mat, on)",Is the cat on the mat?
7,a red cat on a mat,,3,0,entity,whole,entity - whole (mat),Is there a mat?
7,a red cat on a mat,,5,2,attribute,other,"attribute - other (red, bright)",Is the red bright?
8,two dogs,,1,0,other,count,"other - count (dogs, ==2)",Are there two dogs?
"""


def test_dpg_counts_an_answer_only_where_its_parents_hold(tmp_path: Path):
    suite = suite_of(tmp_path, "dpg", DPG, "dpg.csv")
    assert [c["id"] for c in suite[0].checks] == [1, 2, 3, 4, 5]
    assert [c["capability"] for c in suite[0].checks] == [
        "object",
        "color",
        "object",
        "position",
        "instruction_following",
    ]
    outputs = [
        {"prompt_id": "dpg-7", "answers": dict(zip("12345", ("yes", "no", "no", "yes", "no")))},  # on no mat: 1 of 5
        {"prompt_id": "dpg-7", "answers": dict(zip("12345", ("no", "yes", "yes", "yes", "yes")))},  # no cat, so no red
        {"prompt_id": "dpg-7", "answers": dict.fromkeys("12345", "yes")},
        {"prompt_id": "dpg-8", "answers": {"1": "no"}},
    ]
    judged = judge_outputs(suite, outputs)
    figures = result(suite, judged)
    assert figures.score == pytest.approx(((1 / 5 + 1 / 5 + 1) / 3 + 0) / 2)
    assert figures.groups["relation"] == 1.0  # groups count the answers as given, as the benchmark does
    on_mat = judged[0][1][3]
    assert on_mat.score == 0 and on_mat.passed is None  # what fails is the mat, not the place


def test_edits_are_the_geometric_mean_of_semantics_and_quality_per_group(tmp_path: Path):
    (tmp_path / "a.png").write_bytes(b"picture")
    rows = [{"id": n, "instruction": "make it red", "image": "a.png", "category": g} for n, g in enumerate("xxy")]
    suite = suite_of(tmp_path, "edit", rows)
    assert suite[0].task == "ti2i" and suite[0].reference_bytes() == (b"picture",)
    ratings = [(9, 4, 9, 10), (8, 10, 2, 9), (10, 10, 10, 10)]
    keys = ("success", "no_overediting", "natural", "no_artifacts")
    outputs = [{"prompt_id": f"edit-{n}", "ratings": dict(zip(keys, r))} for n, r in enumerate(ratings)]
    copied = load_suite(copy_suite(tmp_path / "suite.jsonl", tmp_path / "round" / "suite.jsonl"))
    assert copied[0].reference_bytes() == (b"picture",) and copied[0].references[0].parts[-3] == "round"
    judged = judge_outputs(copied, outputs)
    assert result(suite, judged).score == pytest.approx(((0.6 + 0.4) / 2 + 1) / 2)
    assert judged[0][1][0].evidence["failed"] == ["no_overediting"]


def test_missing_outputs_and_verdicts_are_counted(tmp_path: Path):
    suite = suite_of(tmp_path, "geneval", GENEVAL)
    figures = result(suite, judge_outputs(suite, [{"prompt_id": suite[0].prompt_id, "text": "no detections"}]))
    assert (figures.score, figures.images, figures.not_judged, figures.prompts_without_output) == (None, 1, 1, 3)
    with pytest.raises(UsageError, match="not in the suite"):
        judge_outputs(suite, [{"prompt_id": "geneval-99999"}])


def test_outputs_become_signals_once(tmp_path: Path):
    suite, workspace = suite_of(tmp_path, "geneval", GENEVAL), Workspace(tmp_path / "w")
    judged = judge_outputs(suite, [{"prompt_id": p.prompt_id, "detections": []} for p in suite])
    record(workspace, judged[:3], "ours")
    record(workspace, judged, "ours")
    record(workspace, judged, "ours")
    rows = Ledger(workspace, "signals").rows()
    assert len(rows) == 4 and all(r["passed"] is False and r["round"] is None for r in rows)
