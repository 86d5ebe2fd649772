"""Scoring rules of public benchmarks for one picture; their averages are in `tests/flywheel/signals/`."""

from __future__ import annotations

from collections import Counter

import pytest

from curation.verify.benchmark_rules import MAX_OBJECTS, geneval, longtext_units, relations, words, written


def thing(name: str, x: float = 0, y: float = 0, score: float = 0.95, color: str | None = None) -> dict:
    return {"class": name, "score": score, "box": [x, y, x + 10, y + 10], "color": color}


def judged(include: list[dict], *things: dict, **more: object) -> list[str]:
    """What fails."""
    judgement = geneval({"include": include, **more}, {"detections": things})
    assert judgement is not None and judgement[0] == float(not judgement[2]["failed"])
    return judgement[2]["failed"]


def test_relations_need_distance() -> None:
    box = [0, 0, 10, 10]
    assert relations([40, 0, 50, 10], box) == {"right of"} and relations(box, [40, 0, 50, 10]) == {"left of"}
    assert relations([0, 40, 10, 50], box) == {"below"} and relations([40, 40, 50, 50], box) == {"right of", "below"}
    assert relations([1, 0, 11, 10], box) == relations(box, box) == frozenset()


def test_geneval_names_what_fails() -> None:
    two, red = {"class": "cat", "count": 2}, {"class": "cat", "count": 1, "color": "red"}
    beside = [{"class": "dog", "count": 1}, {"class": "cat", "count": 1, "position": ["left of", 0]}]
    assert judged([two], thing("cat"), thing("cat", 20)) == [] and judged([two], thing("cat")) == ["count"]
    assert judged([red], thing("cat", color="blue")) == ["color"] and judged([red]) == ["object"]
    assert judged(beside, thing("cat"), thing("dog", 50)) == [] and judged(beside, thing("cat")) == ["object", "object"]
    assert judged(beside, thing("cat", 50), thing("dog")) == ["position"]
    assert judged([two], thing("cat"), thing("cat", 20), exclude=[{"class": "cat", "count": 2}]) == ["exclude"]


def test_geneval_drops_doubtful_detections_and_more_so_when_it_counts() -> None:
    one = [{"class": "cat", "count": 1}]
    assert judged(one, thing("cat", score=0.31)) == [] and judged(one, thing("cat", score=0.3)) == ["object"]
    assert judged(one, thing("cat", score=0.9), tag="counting") == ["object"]
    many = [thing("cat", 20 * n) for n in range(MAX_OBJECTS + 4)]
    assert judged([{"class": "cat", "count": MAX_OBJECTS + 1}], *many) == ["count"]


def test_longtext_counts_words_or_characters() -> None:
    assert longtext_units("Tea, TEA! 茶", "en") == Counter({"tea": 2, "茶": 1})
    assert longtext_units("每日 新鲜", "zh") == Counter("每日新鲜")
    score, threshold, seen = written({"texts": ["a b", "b c"], "language": "en"}, {"text": "b b a x"})
    assert (score, threshold, seen["matched"], seen["wanted"], seen["missing"]) == (3 / 4, 0.9, 3, 4, ["c"])
    assert written({"texts": ["Привет"], "language": "en"}, {"text": ""}) is None


def test_cvtg_counts_words_and_measures_the_edit_distance() -> None:
    score, threshold, seen = words({"texts": ["OPEN now", "Exit"], "min": 0.5}, {"text": "open, now exif"})
    assert (score, threshold) == (2 / 3, 0.5) and seen["ned"] == pytest.approx(1 - 1 / 13)
    assert words({"texts": ["!!!"]}, {"text": "a"}) is None
