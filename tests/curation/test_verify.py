"""Verifiers and the scorers behind them, on pictures drawn for the case."""

import io
import random

import cv2
import numpy as np
import pytest
from PIL import Image, ImageDraw

from curation.scorers import load
from curation.scorers.similarity import identity, unchanged
from curation.verify.checks import passed, verifiers, verify
from flywheel.core.errors import UsageError
from flywheel.core.image import decode_working
from flywheel.core.scorer import Item
from flywheel.demo.cards import ShapeGroup, Single, draw_group, draw_single
from flywheel.demo.mascot import Scene, draw_scene
from flywheel.demo.meaning import POSITIONS, SHAPES
from flywheel.demo.objects import Component, color_name, detect, to_lab
from flywheel.demo.palette import BACKGROUNDS, INKS
from flywheel.demo.verifiers import nearest_anchor
from flywheel.demo.word_cards import Word, draw_word


def png(pixels):
    out = io.BytesIO()
    Image.fromarray(np.asarray(pixels, dtype=np.uint8)).save(out, "PNG")
    return out.getvalue()


def one(image, *checks, references=(), scorers=None):
    return verify([Item(image=image, references=references)], [checks], scorers=scorers)[0]


def singles(count, seed=0):
    rng = random.Random(seed)
    for i in range(count):
        card = Single(SHAPES[i % 4], rng.choice(list(INKS)), rng.choice(POSITIONS), rng.choice(list(BACKGROUNDS)))
        yield card, draw_single(card, random.Random(i))


def blurred(image, side=64, sigma=1.0, noise=0.0, seed=0):
    """A small, soft, noisy copy: what a tiny model would make of the card."""
    small = np.asarray(Image.open(io.BytesIO(image)).convert("RGB").resize((side, side), Image.Resampling.BOX))
    soft = cv2.GaussianBlur(small.astype(np.float32), (0, 0), sigma)
    return np.clip(soft + np.random.default_rng(seed).normal(0, noise, soft.shape), 0, 255).astype(np.uint8)


def test_detector_reads_shape_colour_place_and_background_of_clean_cards():
    for card, image in singles(60):
        background, found = detect(decode_working(image))
        assert background == card.background
        seen = [(f.shape, f.color, nearest_anchor(f.x, f.y)) for f in found]
        assert seen == [(card.shape, card.color, card.position)]


def test_detector_survives_blur_and_noise():
    hits = 0
    for i, (card, image) in enumerate(singles(80, seed=1)):
        _, found = detect(blurred(image, sigma=1.2, noise=8, seed=i))
        hits += [(f.shape, f.color) for f in found] == [(card.shape, card.color)]
    assert hits >= 76


@pytest.mark.parametrize("number", [2, 3])
@pytest.mark.parametrize("shape", SHAPES)
def test_detector_counts_copies(shape, number):
    image = draw_group(ShapeGroup(shape, "green", number, "pink"), random.Random(0))
    _, found = detect(blurred(image, sigma=0.8))
    assert [f.shape for f in found] == [shape] * number


def test_detector_sees_the_position_and_area_it_was_given():
    canvas = Image.new("RGB", (200, 100), "white")
    ImageDraw.Draw(canvas).rectangle((20, 30, 59, 69), fill=(32, 92, 200))
    _, found = detect(np.asarray(canvas))
    assert len(found) == 1 and isinstance(found[0], Component)
    assert (found[0].shape, found[0].color) == ("square", "blue")
    assert found[0].x == pytest.approx(0.2, abs=0.01) and found[0].y == pytest.approx(0.5, abs=0.02)
    assert found[0].area == pytest.approx(0.08, rel=0.1)


def test_detector_finds_nothing_in_noise_blank_and_photograph():
    rng = np.random.default_rng(0)
    assert detect(rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)) == (None, [])
    assert detect(np.full((64, 64, 3), 200, np.uint8))[1] == []
    ramp = np.linspace(0, 255, 128)[None, :, None] + rng.normal(0, 12, (128, 128, 3))
    assert not [f for f in detect(np.clip(ramp, 0, 255).astype(np.uint8))[1] if f.shape != "other"]


def test_letters_are_no_shapes():
    _, found = detect(decode_working(draw_word(Word("FISH", "red", "white"), random.Random(0))))
    assert found and {f.shape for f in found} == {"other"}


@pytest.mark.parametrize("name", INKS)
def test_colour_names_cover_lighter_and_darker_tones(name):
    for gain in (0.9, 1.0, 1.08):
        rgb = np.clip(np.array(INKS[name]) * gain, 0, 255)
        assert color_name(to_lab(rgb[None, None])[0, 0]) == name


def test_identity_tells_the_mascot_from_its_absence():
    scene = Scene("star", "red", "left", "yellow")
    reference = decode_working(draw_scene(scene, random.Random(0)))
    recoloured = draw_scene(Scene("star", "blue", "left", "yellow"), random.Random(0))
    gone = draw_single(Single("star", "blue", "right", "yellow"), random.Random(0))
    disc = Image.new("RGB", (64, 64), BACKGROUNDS["yellow"])
    ImageDraw.Draw(disc).ellipse((5, 20, 29, 44), fill=(150, 92, 48))
    assert identity(reference, decode_working(recoloured)) > 0.97
    assert identity(reference, blurred(recoloured, sigma=1.2)) > 0.85
    assert identity(reference, decode_working(gone)) < 0.6
    assert identity(reference, np.asarray(disc)) < 0.7


def test_unchanged_ignores_the_edit_and_sees_the_rest():
    card = Single("circle", "red", "left", "white")
    reference = decode_working(draw_single(card, random.Random(3)))
    edited = decode_working(draw_single(Single("circle", "blue", "left", "white"), random.Random(3)))
    similar, area = unchanged(reference, edited)
    assert similar > 0.95 and 0.05 < area < 0.3
    noise = np.random.default_rng(0).integers(0, 256, reference.shape, dtype=np.uint8)
    assert unchanged(reference, noise)[1] > 0.8


def test_checks_on_a_card_pass_and_fail_with_evidence():
    image = draw_single(Single("star", "green", "top", "white"), random.Random(0))
    outcomes = one(
        image,
        {"verifier": "object", "capability": "object", "shape": "star"},
        {"verifier": "object", "capability": "object", "shape": "circle"},
        {"verifier": "color", "capability": "color", "shape": "star", "color": "green"},
        {"verifier": "color", "capability": "color", "color": "red"},
        {"verifier": "position", "capability": "position", "position": "top"},
        {"verifier": "position", "capability": "position", "position": "left"},
        {"verifier": "count", "capability": "count", "shape": "star", "count": 1},
        {"verifier": "count", "capability": "count", "shape": "star", "count": 3},
    )
    assert [o.passed for o in outcomes] == [True, False] * 4
    assert outcomes[3].evidence == {"expected": "red", "seen": "green"}
    assert outcomes[7].evidence["seen"] == 1 and outcomes[7].score == pytest.approx(1 / 3)
    assert all(o.threshold == 1.0 for o in outcomes)


def test_a_wrong_shape_still_gets_a_verdict_on_its_colour_and_place():
    image = draw_single(Single("circle", "green", "top", "white"), random.Random(0))
    outcomes = one(
        image,
        {"verifier": "color", "capability": "color", "shape": "star", "color": "green"},
        {"verifier": "position", "capability": "position", "shape": "star", "position": "top"},
    )
    assert [o.passed for o in outcomes] == [True, True]


def test_nothing_to_see_fails_every_shape_check():
    outcomes = one(
        png(np.full((64, 64, 3), 250)),
        {"verifier": "object", "capability": "object", "shape": "star"},
        {"verifier": "color", "capability": "color", "color": "red"},
        {"verifier": "position", "capability": "position", "position": "top"},
        {"verifier": "count", "capability": "count", "count": 2},
    )
    assert [o.passed for o in outcomes] == [False] * 4 and outcomes[3].score == 0.0


def test_text_is_read_from_the_picture_and_one_wrong_letter_fails():
    image = draw_word(Word("MILK", "blue", "yellow"), random.Random(0))
    right, wrong = one(
        image,
        {"verifier": "text", "capability": "typography", "text": "milk"},
        {"verifier": "text", "capability": "typography", "text": "SILK"},
    )
    assert right.passed and right.evidence["seen"].upper() == "MILK"
    assert not wrong.passed and wrong.score == pytest.approx(0.75)


def test_identity_and_unchanged_judge_edits_and_do_not_apply_without_references():
    before, after = (draw_scene(Scene("star", c, "left", "pink"), random.Random(0)) for c in ("red", "blue"))
    checks = ({"verifier": "identity", "capability": "identity"}, {"verifier": "unchanged", "capability": "editing"})
    assert [o.passed for o in one(after, *checks, references=(before,))] == [True, True]
    outcomes = one(after, *checks)
    assert [o.passed for o in outcomes] == [None, None] and "not_applied" in outcomes[0].evidence
    assert not passed(outcomes)


def test_photo_judges_pixel_statistics_inside_ranges():
    image = draw_single(Single("star", "green", "top", "white"), random.Random(0))
    entropy = load("pixels").score([Item(image=image)])[0]["entropy"]
    check = {"verifier": "photo", "capability": "photorealism"}
    inside, outside = one(
        image,
        check | {"ranges": {"entropy": [entropy - 0.1, entropy + 0.1]}},
        check | {"ranges": {"entropy": [entropy + 0.1, 8.0]}},
    )
    assert inside.passed and not outside.passed and outside.evidence["seen"]["entropy"] == entropy
    with pytest.raises(UsageError, match="beauty"):
        one(image, check | {"ranges": {"beauty": [0, 1]}})


def test_alignment_without_a_model_is_not_applied_and_never_passes():
    (outcome,) = one(png(np.zeros((32, 32, 3))), {"verifier": "alignment", "capability": "alignment"})
    assert outcome.passed is None and "not configured" in outcome.evidence["not_applied"]


class Counting:
    """A scorer that counts what it is asked for."""

    def __init__(self, inner):
        self.inner, self.name, self.version, self.fields, self.calls = inner, inner.name, "1", inner.fields, []

    def score(self, items):
        self.calls.append(len(items))
        return self.inner.score(items)


def test_each_scorer_runs_once_on_the_items_that_need_it():
    card = draw_single(Single("star", "green", "top", "white"), random.Random(0))
    items = [Item(image=card), Item(image=card), Item(image=card)]
    shape = {"verifier": "object", "capability": "object", "shape": "star"}
    count = {"verifier": "count", "capability": "count", "count": 1}
    counting = Counting(load("objects"))
    outcomes = verify(items, [[shape, count], [], [shape]], scorers={"objects": counting})
    assert counting.calls == [2]
    assert [[o.passed for o in group] for group in outcomes] == [[True, True], [], [True]]


def test_a_broken_image_fails_its_own_checks_only():
    card = draw_single(Single("star", "green", "top", "white"), random.Random(0))
    check = {"verifier": "object", "capability": "object", "shape": "star"}
    broken, good = verify([Item(image=b"no image"), Item(image=card)], [[check], [check]])
    assert broken[0].passed is False and "not an image" in broken[0].evidence["error"]
    assert good[0].passed is True


@pytest.mark.parametrize(
    ("check", "message"),
    [
        ({"verifier": "beauty", "capability": "x"}, "unknown verifier 'beauty'"),
        ({"verifier": "text", "capability": "x"}, "needs text"),
        ({"verifier": "object", "shape": "star"}, "needs capability"),
        ({"verifier": "position", "capability": "x", "position": "north"}, "unknown position 'north'"),
    ],
)
def test_wrong_checks_are_usage_errors(check, message):
    with pytest.raises(UsageError, match=message):
        one(png(np.zeros((32, 32, 3))), check)


def test_every_verifier_reads_a_registered_scorer():
    from curation.scorers import SCORERS

    own = {"detector"}  # named by the preset: none ships with the package
    assert {v.scorer for v in verifiers().values()} <= SCORERS.keys() | own
