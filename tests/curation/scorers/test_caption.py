"""Captions that describe nothing, and kind, script and language of those that do."""

from __future__ import annotations

import pytest

from curation.scorers import load
from flywheel.core.scorer import Item
from tests.curation.scorers.examples import row_of


@pytest.mark.parametrize(
    ("caption", "why"),
    [
        ("I'm sorry, but I can't help with that.", "refusal"),
        ("As an AI language model, I have no access to images.", "refusal"),
        ("I cannot describe the people in this image", "refusal"),
        ("抱歉，我无法描述这张图片", "refusal"),
        ("Image may contain: outdoor, tree", "boilerplate"),
        ("DSC_0042.JPG", "boilerplate"),
        ("IMG 1234", "boilerplate"),
        ("a red chair <br> buy it", "boilerplate"),
        ("red chair, add to cart, free shipping", "boilerplate"),
        ("see more at https://example.org/x?y=1", "urls"),
        ("lovely chairs on www.chairs.example", "urls"),
        ("cat cat cat cat", "repeated"),
        ("a man in a hat and " * 8, "repeated"),
        ("A picture. Sorry, I can't help with that request, as it shows a person.", "refusal"),
        ("Sign up for our newsletter", "boilerplate"),
        ("amazon.com", "urls"),
        ("https://example.org/a.jpg a chair in the sun", "urls"),
        ("There is no image attached to your message.", "refusal"),
        ("Es tut mir leid, aber ich kann das Bild nicht beschreiben.", "refusal"),
        ("Je suis désolé, mais je ne peux pas décrire cette image.", "refusal"),
        ("Copyright 2023 All rights reserved", "boilerplate"),
        ("The image is not available.", "boilerplate"),
        ("N/A", "boilerplate"),
        ("<div class='x'>gallery", "boilerplate"),
        ("!!! 1234 ---", "script"),
    ],
)
def test_captions_that_describe_nothing(caption: str, why: str) -> None:
    row = row_of("caption", Item(b"", caption))
    assert row["invalid"]
    assert (row[why] is None) if why == "script" else row[why]


@pytest.mark.parametrize(
    ("caption", "kind", "script"),
    [
        ("a photo of a tench", "general", "LATIN"),
        ("a dog that cannot help itself, sorry to say, chasing a cat", "general", "LATIN"),
        ("a sign that says 'do not sign up'", "text", "LATIN"),
        ('a poster with the words "BIG SALE"', "text", "LATIN"),
        ("a flowchart of the login process, boxes connected by arrows", "structured", "LATIN"),
        ("the Eiffel Tower, built in 1889, at night", "knowledge", "LATIN"),
        ("一只猫坐在椅子上", "general", "CJK"),
        ("写着「你好」的牌子", "text", "CJK"),
        ("красный круг на столе", "general", "CYRILLIC"),
        ("make the red square blue", "general", "LATIN"),
        ("the city imagined as a vision of tomorrow, in glass and light", "general", "LATIN"),
        ("a humanoid robot dressed as an artificial intelligence from old films", "general", "LATIN"),
        ("a wooden sign up on the hill above the village", "general", "LATIN"),
        ("a delivery van of amazon.com parked in the rain", "general", "LATIN"),
        ("a very very very very tall tower in the evening sun", "general", "LATIN"),
        ("a teddy bear holding a heart that reads I am sorry", "text", "LATIN"),
        ("we don't see the face of the woman in the door", "general", "LATIN"),
        ("Tom &amp; Jerry on a sofa", "general", "LATIN"),
        ("a mug printed with www.example.com on a wooden desk", "general", "LATIN"),
        ("a really really really really big truck", "general", "LATIN"),
        ("buffalo buffalo buffalo buffalo on the prairie", "general", "LATIN"),
        ("click here button in blue on a white web page mock-up", "general", "LATIN"),
        ("royalty-free music logo on a black cover", "general", "LATIN"),
        ("the tag <div> printed on a sticker", "general", "LATIN"),
        ("this image cannot be displayed: an error icon in a grey frame", "general", "LATIN"),
        ("as a language model, the doll alphabet teaches children letters", "general", "LATIN"),
    ],
)
def test_kind_and_script_of_sound_captions(caption: str, kind: str, script: str) -> None:
    row = row_of("caption", Item(b"", caption))
    assert (row["kind"], row["script"]) == (kind, script)
    assert not row["invalid"]


def test_an_empty_caption_is_not_invalid_but_empty() -> None:
    row = row_of("caption", Item(b"", "  "))
    assert (row["invalid"], row["kind"], row["script"], row["scripts"]) == (False, None, None, 0)
    assert row_of("caption", Item(b"", "кот и cat"))["scripts"] == 2


def test_language_of_a_caption_is_not_that_of_the_words_in_the_picture() -> None:
    (row,) = load("caption").score(
        [Item(b"", 'a sign in front of the house that says "Willkommen zu Hause, liebe Gäste"')]
    )
    assert row["language"] == "en"


def test_entities_and_control_characters_are_counted_and_do_not_decide() -> None:
    row = row_of("caption", Item(b"", 'a sign "Fish & Chips"', given="a\x00 sign &quot;Fish &amp;amp; Chips&quot;"))
    assert (row["entities"], row["controls"], row["kind"], row["invalid"]) == (3, 1, "text", False)
    assert row_of("caption", Item(b"", "R&D; at AT&T"))["entities"] == 0
