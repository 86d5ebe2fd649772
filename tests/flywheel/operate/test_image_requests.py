"""Requests of the image API: what is understood, and what is refused with one sentence that names the field."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from flywheel.operate.image_requests import MAX_SEED, Refused, error_body, read_order


def png(mode: str = "RGB", size: tuple[int, int] = (24, 16), color: object = "red") -> bytes:
    buffer = io.BytesIO()
    Image.new(mode, size, color).save(buffer, "PNG")
    return buffer.getvalue()


def test_a_request_is_understood_also_as_a_form() -> None:
    order = read_order({"prompt": "a cat", "n": 3, "size": "64x32", "seed": 5, "num_inference_steps": 4,
                        "guidance_scale": 2.5, "negative_prompt": "blur", "quality": "high", "user": "u",
                        "response_format": "b64_json", "model": "flywheel", "style": None})  # fmt: skip
    assert (order.prompt, order.count, order.seed, order.size) == ("a cat", 3, 5, (32, 64))
    assert (order.steps, order.guidance, order.negative, order.model) == (4, 2.5, "blur", "flywheel")
    texts = {"prompt": "a cat", "n": "3", "size": "64x32", "seed": "5", "num_inference_steps": "4"}
    texts |= {"guidance_scale": "2.5", "negative_prompt": "blur", "model": "flywheel", "stream": "false"}
    assert read_order(texts) == order
    bare = read_order({"prompt": "a cat"})
    assert (bare.count, bare.size, bare.steps, bare.guidance, bare.negative, bare.mask) == (1, *[None] * 5)
    assert read_order({"prompt": "a cat", "size": "auto"}).size is None
    seeds = {read_order({"prompt": "a cat"}).seed for _ in range(4)}
    assert len(seeds) == 4 and all(0 <= s < MAX_SEED for s in seeds)  # without a seed, another picture each time


def test_pictures_and_masks_of_an_edit() -> None:
    mask = np.full((16, 24, 4), 255, np.uint8)
    mask[:, 12:, 3] = 0
    buffer = io.BytesIO()
    Image.fromarray(mask).save(buffer, "PNG")
    order = read_order({"prompt": "x"}, images=[png(), png(color="blue", size=(8, 8))], mask=buffer.getvalue())
    assert [r.shape for r in order.references] == [(16, 24, 3), (8, 8, 3)]
    assert order.mask.dtype == np.uint8 and (order.mask[:, :12] == 0).all() and (order.mask[:, 12:] == 255).all()


@pytest.mark.parametrize(
    ("values", "param", "sentence"),
    [
        ([], None, "not a JSON object"),
        ({}, "prompt", "give a text"),
        ({"prompt": "  "}, "prompt", "give a text"),
        ({"prompt": 5}, "prompt", "give a text"),
        ({"prompt": "x" * 40_000}, "prompt", "32,000"),
        ({"n": 0}, "n", "from 1 to 10"),
        ({"n": 11}, "n", "from 1 to 10"),
        ({"n": True}, "n", "from 1 to 10"),
        ({"n": 1.0}, "n", "whole number"),
        ({"seed": -1}, "seed", "from 0"),
        ({"seed": "9" * 400}, "seed", "from 0"),
        ({"seed": "٣"}, "seed", "from 0"),
        ({"num_inference_steps": 10**9}, "num_inference_steps", "to 200"),
        ({"guidance_scale": "nan"}, "guidance_scale", "from 0 to 100"),
        ({"guidance_scale": 10**400}, "guidance_scale", "from 0 to 100"),
        ({"guidance_scale": -0.5}, "guidance_scale", "from 0 to 100"),
        ({"guidance_scale": [1]}, "guidance_scale", "from 0 to 100"),
        ({"size": "5"}, "size", "such as 64x64"),
        ({"size": 64}, "size", "such as 64x64"),
        ({"size": "99999x99999"}, "size", "pixels"),
        ({"response_format": "url"}, "response_format", "use 'b64_json'"),
        ({"stream": True}, "stream", "use False"),
        ({"colour": "x"}, "colour", "unknown field"),
        ({"negative_prompt": {}}, "negative_prompt", "give a text"),
    ],
    ids=str,
)  # fmt: skip
def test_what_is_wrong_is_named(values: object, param: str | None, sentence: str) -> None:
    whole = values if not isinstance(values, dict) or "prompt" in values or not values else {"prompt": "x"} | values
    with pytest.raises(Refused) as raised:
        read_order(whole)
    assert (raised.value.param, raised.value.status) == (param, 400) and sentence in raised.value.message


@pytest.mark.parametrize(
    ("images", "mask", "param", "sentence"),
    [
        ([], None, "image", "1 to 16"),
        ([png()] * 17, None, "image", "1 to 16"),
        ([b"text"], None, "image", "not an image"),
        ([png()[:50]], None, "image", "truncated"),
        ([png()], png(), "mask", "no transparent part"),
        ([png()], b"text", "mask", "cannot be read"),
        ([png()], png("RGBA", (8, 8), (0, 0, 0, 0)), "mask", "8x8 pixels, the first picture 24x16"),
    ],
)
def test_what_is_wrong_with_pictures_is_named(images: list[bytes], mask: bytes | None, param: str, sentence: str):
    with pytest.raises(Refused) as raised:
        read_order({"prompt": "x"}, images=images, mask=mask)
    assert raised.value.param == param and sentence in raised.value.message


def test_errors_have_openais_shape() -> None:
    kinds = {400: "invalid_request_error", 401: "authentication_error", 429: "rate_limit_error", 503: "server_error"}
    for status, kind in kinds.items():
        error = error_body(status, "why", "n")["error"]
        assert error == {"message": "why", "type": kind, "param": "n", "code": None}
