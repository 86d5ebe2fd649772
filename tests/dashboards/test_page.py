"""Filters of the templates, and colours that can be read."""

import re

import pytest

from dashboards.page import STYLE, hours, marked, number, points, text


def test_numbers_read_well() -> None:
    assert [number(x) for x in (1234567, 0.123456, None, 3.0)] == ["1,234,567", "0.123", "–", "3"]
    assert points(-0.004) == "0\u202fpp"
    assert points(-0.5) == "−50\u202fpp"


def test_hours_and_code_in_a_sentence() -> None:
    assert [number(x) for x in (None, 12_345, -0.0, 0.25, 2.0)] == ["–", "12,345", "0", "0.25", "2"]
    assert [hours(x) for x in (None, 0, 6.1e-6, 0.0339, 12.5)] == ["–", "0", "< 0.001", "0.0339", "12.5"]
    assert marked("run `flywheel <x>` & wait") == "run <code>flywheel &lt;x&gt;</code> &amp; wait"


def test_evidence_is_spelled_out_and_cut() -> None:
    assert text({"pixels.entropy": [3.123456, 7.5], "colour_ok": True}) == "pixels.entropy 3.12, 7.5, colour ok yes"
    assert text("天" * 500) == "天" * 159 + "…"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_colours_are_readable(scheme: str) -> None:
    """WCAG 2.2 contrast of 4.5 : 1 on page and panel, in both schemes."""
    blocks = re.findall(r":root \{(.*?)\}", STYLE.read_text("utf-8"), re.S)
    colours = dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6})", blocks[scheme == "dark"]))
    tracks = ("rl", "pretraining", "prompt_enhancement", "human", "unrouted")
    text = ("ink", "muted", "accent", "good", "warn", "bad", "incumbent", "candidate", "control", *tracks)
    contrasts = {(a, b): contrast(colours[a], colours[b]) for a in text for b in ("bg", "panel")}
    contrasts |= {(a, "chip"): contrast(colours[a], mixed(colours[a], colours["panel"], 0.11)) for a in text}
    assert {k: v for k, v in contrasts.items() if v < 4.5} == {}


def mixed(a: str, b: str, share: float) -> str:
    parts = [round(share * int(a[i : i + 2], 16) + (1 - share) * int(b[i : i + 2], 16)) for i in (1, 3, 5)]
    return "#" + "".join(f"{x:02x}" for x in parts)


def contrast(a: str, b: str) -> float:
    light, dark = sorted((luminance(a), luminance(b)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def luminance(colour: str) -> float:
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [x / 12.92 if x <= 0.04045 else ((x + 0.055) / 1.055) ** 2.4 for x in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
