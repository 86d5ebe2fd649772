"""The normal form of prompts: what reads the same is the same, and nothing else is."""

import sys
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flywheel.core.text import blank, clean, faults, normalise, person, untold


@pytest.mark.parametrize(
    ("prompt", "normal"),
    [
        ("  A red,  CIRCLE! ", "a red circle"),
        ("ｆｕｌｌ　ｗｉｄｔｈ", "full width"),
        ("Straße und STRASSE", "strasse und strasse"),
        ("the word “Hi”…", 'the word "hi"'),
        ("snake_case, 3.5", "snake_case 3 5"),
        ("三只猫。", "三只猫"),
        ("🐱 ?!", ""),
        ("", ""),
    ],
)
def test_normal_forms(prompt: str, normal: str):
    assert normalise(prompt) == normal


def test_accents_and_quotation_marks_tell_prompts_apart():
    assert normalise("ein Café") != normalise("ein Cafe")
    assert normalise('the word "Hi"') != normalise("the word Hi")


def test_every_character_is_a_word_character_a_quotation_mark_or_a_separator():
    for code in range(sys.maxunicode + 1):
        if not 0xD800 <= code <= 0xDFFF:
            folded = unicodedata.normalize("NFKC", chr(code)).casefold()
            kept = [c for c in folded.replace("“", '"').replace("”", '"') if c.isalnum() or c in '_"']
            assert normalise(chr(code)).replace(" ", "") == "".join(kept)


@given(st.text())
def test_a_normal_form_has_single_spaces_and_no_order_of_its_own(text: str):
    normal = normalise(text)
    assert normal == " ".join(normal.split())
    assert normalise(f" {text}!") == normal


def test_a_person_has_one_name_however_it_is_spelled():
    assert {person(n) for n in ("ada", "Ada", " ADA\t", "ａｄａ", "a\u200bda", "ada\u3164", "a\x00d\ufe0fa")} == {"ada"}
    assert person("Ἀδάμαντίΐ".upper()) == person("Ἀδάμαντίΐ")
    assert person("Ada  de Vries") == "ada de vries" != person("Adade Vries")


@pytest.mark.parametrize(
    ("text", "meant", "wrong"),
    [
        ("Tom &amp; Jerry &quot;x&quot;", 'Tom & Jerry "x"', (3, 0)),
        ("twice &amp;lt;3 &#x4f60;&#22909;", "twice <3 你好", (3, 0)),
        ("R&D; AT&T &nosuch;", "R&D; AT&T &nosuch;", (0, 0)),
        ("a\x00b\u202ec\ufeff\r\nd\te", "abc\nd\te", (0, 3)),
        ("नमस्ते می\u200cخواهم 👨\u200d👩", "नमस्ते می\u200cخواهم 👨\u200d👩", (0, 0)),
    ],
)
def test_text_is_cleaned_of_entities_and_control_characters(text: str, meant: str, wrong: tuple[int, int]):
    assert (clean(text), faults(text)) == (meant, wrong)
    assert clean(meant) == meant


def test_a_caption_of_spaces_controls_and_their_entities_says_nothing():
    said = ["", " \n\t", "\u3000", "\xa0", "\u200b", "\x00", "&nbsp;", "&amp;nbsp; &#8203;", "&#160"]
    assert [untold(text) for text in said] == [True] * 8 + [False]
    assert not any(untold(text) for text in ("a", "&amp;", "-", "\u2764"))


def test_what_shows_nothing_is_no_name():
    assert all(map(blank, ("", " \t", "\u200b", "\u3164", "\u2800\u00a0"))) and not blank("a")
