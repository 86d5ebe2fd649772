"""Rewards by name on the shared scorers."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image, ImageFilter, ImageOps
from skimage import data

from flywheel.core.errors import UsageError
from flywheel.core.scorer import Item
from flywheel.remedies.rewards import REWARDS, Local, for_recipe, unavailable
from tests.flywheel.remedies.samples import request, samples
from training.rewards import Request
from training.rl.recipe import rl_recipe


def test_rewards_are_the_scorers_judgement(requests, local):
    right, wrong, broken, edit = local.score(requests)
    assert right["instruction"] == 1.0 and wrong["instruction"] < 0.7
    assert right["consistency"] is None and edit["consistency"] > 0.85 and edit["instruction"] == 1.0
    assert right["portrait"] == 0.0  # a card has no face
    assert broken["consistency"] is None and broken["portrait"] is None and broken["instruction"] is None
    with pytest.raises(UsageError, match="unknown reward 'beauty'"):
        Local(("beauty",))


def test_a_reward_without_its_weights_is_named_with_what_to_do():
    nothing = {"clip": {"model": "ViT-B-32", "pretrained": "/no/such/file"}}
    missing = unavailable(nothing)
    assert missing.keys() == {"alignment", "aesthetic"} and all(
        w.startswith("not available: ") for w in missing.values()
    )
    with pytest.raises(UsageError, match="reward alignment is not available: .*no/such/file"):
        Local(("alignment", "portrait"), nothing)
    recipe = rl_recipe("rl-tiny", weights={"*": {"portrait": 1.0, "instruction": 1.0}})
    assert for_recipe(recipe, nothing).names == ("instruction", "portrait", "natural")
    assert {"aesthetic", "alignment", "portrait", "instruction", "consistency"} <= set(REWARDS)  # the report's five


def test_natural_falls_for_noise_and_blur():
    photo = Image.fromarray(data.astronaut())
    pixels, rng = np.asarray(photo), np.random.default_rng(0)
    noisy = Image.fromarray(np.clip(pixels + rng.normal(0, 60, pixels.shape), 0, 255).astype(np.uint8))
    pictures = [photo, noisy, photo.filter(ImageFilter.GaussianBlur(2)), Image.new("RGB", (64, 64), "red")]
    whole, *others, flat = [row["natural"] for row in Local(("natural",)).score([*map(shown, pictures)])]
    assert whole > 0.9 and max(others) < 0.6 and flat is None


def test_a_tint_of_the_whole_picture_is_not_consistent():
    (edit,) = samples("identity", 1)
    pixels = np.asarray(Image.open(io.BytesIO(edit.image)).convert("RGB"))
    tinted = io.BytesIO()
    Image.fromarray(np.clip(pixels * (1.0, 1.3, 1.3), 0, 255).astype(np.uint8)).save(tinted, "PNG")
    kept, shifted = (
        r["consistency"] for r in Local(("consistency",)).score([request(edit), request(edit, tinted.getvalue())])
    )
    assert kept > 0.95 and shifted < 0.8  # 0.97 without a look at colour


def test_the_ocr_reward_is_one_minus_edits_over_the_reference_length():
    word = samples("typography", 1)[0]
    longer = word.caption.replace('"', '"X', 1)  # one letter more was asked for
    rewards = Local(("ocr",))
    scores = rewards.score([request(word), Request(Item(word.image, longer)), Request(Item(word.image, "a card"))])
    length = len(word.checks[0]["text"]) + 1
    assert [row["ocr"] for row in scores] == [1.0, pytest.approx(1 - 1 / length), None]


def shown(picture: object) -> Request:
    out = io.BytesIO()
    Image.fromarray(np.asarray(picture).astype(np.uint8)).save(out, "PNG")
    return Request(Item(out.getvalue(), "a portrait"))


def test_a_damaged_face_is_worth_less_than_the_photograph():
    photo = Image.fromarray(data.astronaut())
    pixels, rng = np.asarray(photo), np.random.default_rng(0)
    jpeg = io.BytesIO()
    photo.save(jpeg, "JPEG", quality=10)
    damaged = {
        **{f"posterised to {bits} bits": ImageOps.posterize(photo, bits) for bits in (2, 3, 4)},
        **{f"noise of {n}": np.clip(pixels + rng.normal(0, n, pixels.shape), 0, 255) for n in (5, 10, 25)},
        **{f"blur of {r}": photo.filter(ImageFilter.GaussianBlur(r)) for r in (1, 2, 4)},
        "JPEG quality 10": Image.open(jpeg).convert("RGB"),
    }

    whole, *others = [row["portrait"] for row in Local(("portrait",)).score([*map(shown, [photo, *damaged.values()])])]
    assert whole > 0.6
    assert {name: x for name, x in zip(damaged, others, strict=True) if x > 0.95 * whole} == {}
