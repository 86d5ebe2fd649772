"""Classify a caption: language, script, kind, and whether it is invalid (refusal, boilerplate, URL, loop)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import groupby
from typing import Any

import pyarrow as pa

from curation.scorers.language import language, main_script, present, scripts
from curation.scorers.quotes import quoted_text, unquoted
from curation.scorers.text import tokens
from flywheel.core.schema import column
from flywheel.core.scorer import Item, per_item
from flywheel.core.text import clean, faults

_SENTENCE = re.compile(r"[.!?。！？;；\n|•]+\s*|[:：]\s+")
_PIECE = re.compile(r"[.!?。！？;；\n|•,，:：]+\s+|[。！？，；|•\n]")
# What a captioning model says in place of a caption: sentences that begin so.
_REFUSAL = re.compile(
    r"(?:(?:unfortunately|sorry|apologies|however|but)\W+)*(?:"
    r"(?:i'?m|i am|we are|we're) (?:very |so |really )?(?:sorry|afraid)\b.*"
    r"\b(?:can'?t|cannot|unable|not able|won'?t)\b"
    r"|(?:i|we) (?:apologi[sz]e|regret)\b"
    r"|(?:i|we)(?:'m| am|'re| are)? (?:cannot|can'?t|could not|couldn'?t|unable to|not able to|won'?t|will not)"
    r" (?:help|assist|describe|provide|see|view|identify|process|comply|fulfil|generate|create|access|analy[sz]e)\b"
    r"|(?:i|we) (?:do not|don'?t) have (?:access|the ability|enough|any)\b"
    r"|as an? (?:ai|artificial intelligence|large language|language|vision)(?: language)?"
    r"(?: (?:model|assistant|system))?,? (?:i|my|we|it is not|it's not)\b"
    r"|unable to (?:view|see|process|describe|load|access|provide)\b"
    r"|please (?:upload|provide|send) (?:the|an|a) (?:image|picture|photo)"
    r"|(?:there is |there's |i see )?no (?:image|picture|photo) (?:was |is |has been )?(?:attached|provided|uploaded)\b"
    r"|(?:es tut mir leid|leider|entschuldigung)\b.*\bkann\b.*\bnicht\b"
    r"|ich kann\b.*\bnicht (?:beschreiben|sehen|helfen)"
    r"|(?:(?:je suis )?d[ée]sol[ée]e?)\b.*\bpeux pas\b|je ne peux pas (?:d[ée]crire|voir|vous aider)"
    r"|lo siento\b.*\bno puedo\b|no puedo (?:describir|ver|ayudar)"
    r"|(?:this|the|your) (?:request|image|picture|content|prompt) (?:violates|goes against|is against)\b"
    r"|(?:the|this) (?:image|picture|photo) (?:cannot|can'?t|could not|couldn'?t) be"
    r" (?:displayed|shown|loaded|described)"
    r"|(?:很|非常)?抱歉.{0,12}(?:无法|不能)|(?:我|系统)(?:无法|不能)(?:查看|描述|提供|识别|协助)"
    r"|作为(?:一个|一名)?(?:人工智能|语言模型|AI)(?:助手|模型)?[，,])",
    re.IGNORECASE,
)
# Text of a web site: pieces of a caption that begin so, or are nothing else.
_BOILERPLATE = re.compile(
    r"(?:all rights reserved|(?:copyright|©) ?(?:\(c\)|©)? ?\d{4}|click (?:here (?:to|for|and)|here$|to)"
    r"|follow us (?:on|at)"
    r"|subscribe (?:to|now)|sign up (?:for|to|now|today|here|free)|sign up$"
    r"|log ?in to|add to cart|buy now$|free shipping"
    r"|image (?:may contain|results? for)"
    r"|(?:(?:the|this) )?(?:image|picture|photo) (?:is )?(?:not available|unavailable)"
    r"|no (?:description|caption|alt text)|photo (?:by|courtesy(?: of)?)(?! the\b| an?\b)"
    r"|stock (?:photo|image|illustration|vector)s?(?! of\b| with\b)"
    r"|royalty[- ]free(?: (?:stock|photo|image|vector|illustration|picture|music)s?)*$"
    r"|lorem ipsum dolor|untitled(?: document)?$|cookie policy|terms of (?:use|service)"
    r"|visit (?:us|our|https?:|www\.))\b",
    re.IGNORECASE,
)
_FILE_NAME = re.compile(
    r"(img|dsc|dscn|image|photo|picture|screenshot|untitled)[ _-]?\d*(\.\w{3,4})?|\S+\.(jpe?g|png|gif|webp|bmp|tiff?)",
    re.IGNORECASE,
)
_NOTHING = re.compile(r"null|none|nan|nil|n/a|undefined", re.IGNORECASE)  # what programs write for no text
_ADDRESS = re.compile(r"https?://\S+|\bwww\.\S+", re.IGNORECASE)
_DOMAIN = re.compile(r"\b[\w-]+(?:\.[\w-]+)*\.(?:com|org|net|io|cn|de|co\.uk)\b(?:/\S*)?", re.IGNORECASE)
_MARKUP = re.compile(r"<\s*/?\s*(?:a|b|br|div|img|p|span|table|td|tr|script|li|ul)\b[^>]*>", re.IGNORECASE)
_LINE_BREAK = re.compile(r"<\s*br\b|=", re.IGNORECASE)  # in a tag that is no word of a description, though alone
_WORD = re.compile(r"[^\W_]+")

_STRUCTURED = re.compile(
    r"\b(diagram|flow ?chart|bar chart|pie chart|line chart|scatter plot|org(anisation|anization) chart|mind map|uml"
    r"|schematic|timeline|venn|gantt|circuit|x-axis|y-axis|connected by arrows?)\b|流程图|示意图|柱状图|饼图|结构图",
    re.IGNORECASE,
)
_TEXT = re.compile(
    r"\b(slides?|posters?|comics?|infographics?|banners?|book cover|headline|caption reads|text reads|titled|lettering"
    r"|worksheet|menu|sign (says|reads)|that (says|reads))\b|海报|幻灯片|漫画|标题|写着",
    re.IGNORECASE,
)
_KNOWLEDGE = re.compile(
    r"\b(1[0-9]|20)\d\d\b|\b\d{1,2}(st|nd|rd|th) century\b|\b(founded|born|built|painted|invented|designed|established)"
    r" (in|by)\b|\b(native|endemic) to\b|\bspecies of\b|\bcapital of\b|\bknown (for|as)\b|\blocated in\b"
    r"|世纪|年(建|生|创)|位于|原产",
    re.IGNORECASE,
)

REPEATED = 0.5  # share of repeated three-word sequences, or of stuck words, from which a caption counts as a loop
MOST = 0.5  # share of its words in refusals, site text or addresses from which a caption is nothing else
_LONG = 12  # words: repetition is measured from this length on
_RUN = 4  # equal words in a row that are stuck


class Caption:
    """Refusals, boilerplate, URLs, repetition, language, script and kind; edit instructions are treated the same."""

    name = "caption"
    version = "4"
    fields = (
        column("entities", pa.int32(), "HTML entities in the text as it was given; they are decoded"),
        column("controls", pa.int32(), "control characters in the text as it was given; they are removed"),
        column("refusal", pa.bool_(), "a captioning model declines to describe: half of the words or more"),
        column("boilerplate", pa.bool_(), "site text, file name or markup in place of a description"),
        column("urls", pa.int32(), "web addresses in it"),
        column(
            "repeated", pa.float64(), "share of three-word sequences that occurred before, or of stuck words, 0 to 1"
        ),
        column("invalid", pa.bool_(), "one of: refusal, boilerplate, a URL, no letter, a loop; false for an empty one"),
        column("script", pa.string(), "script of most letters: LATIN, CJK, CYRILLIC, …; null without a letter"),
        column("scripts", pa.int32(), "scripts with at least a tenth of the letters"),
        column("language", pa.string(), "ISO 639-1 code, quoted text apart; null where no language is likely enough"),
        column("kind", pa.string(), "general | text | knowledge | structured, by rule; null for an empty caption"),
    )

    def score(self, items: Sequence[Item]) -> list[dict[str, Any] | Exception]:
        """One row per item."""
        return per_item(items, lambda item: describe(item.given or item.caption))


def describe(given: str) -> dict[str, Any]:
    """Every column of one caption as it was given."""
    text = " ".join(clean(given).split())
    plain = unquoted(text)  # quoted text stands in the picture and may be anything
    refusal = _share(_SENTENCE.split(plain), _REFUSAL) >= MOST
    site = _share(_PIECE.split(plain), _BOILERPLATE) >= MOST
    boilerplate = site or _marked_up(plain) or bool(_FILE_NAME.fullmatch(plain) or _NOTHING.fullmatch(plain))
    addresses, domains = list(_ADDRESS.finditer(plain)), _DOMAIN.findall(_ADDRESS.sub("", plain))
    repeats, letters = repeated(text), scripts(text)
    wordless = bool(text) and not letters
    found = len(addresses) + len(domains)
    elsewhere = found >= MOST * max(1, len(plain.split())) and found > 0 or any(_at_an_end(a, plain) for a in addresses)
    entities, controls = faults(given)
    return {
        "entities": entities,
        "controls": controls,
        "refusal": refusal,
        "boilerplate": boilerplate,
        "urls": found,
        "repeated": repeats,
        "invalid": refusal or boilerplate or elsewhere or wordless or repeats > REPEATED,
        "script": main_script(letters),
        "scripts": present(letters),
        "language": language(plain),
        "kind": kind(text) if text else None,
    }


def _at_an_end(address: re.Match[str], text: str) -> bool:
    """Whether an address begins or ends a text: inside a sentence it stands in the picture."""
    return not text[: address.start()].strip() or not _WORD.search(text[address.end() :])


def _marked_up(text: str) -> bool:
    """Whether a text holds markup: more than one bare tag, which a picture may show."""
    tags = _MARKUP.findall(text)
    return len(tags) > 1 or any(_LINE_BREAK.search(tag) for tag in tags)


def _share(parts: Sequence[str], pattern: re.Pattern[str]) -> float:
    """Share of the words that are in parts which begin with the pattern."""
    words = [(len(tokens(part)), bool(pattern.match(part.strip()))) for part in parts]
    return sum(n for n, begins in words if begins) / max(1, sum(n for n, _ in words))


def repeated(text: str) -> float:
    """The larger share, 0 to 1, of three-word sequences that occurred before and of words that repeat the last."""
    words = [w.lower() for w in _WORD.findall(text)]
    runs = [len(list(run)) for _, run in groupby(words)]
    stuck = sum(n - 1 for n in runs if n >= _RUN) / max(1, len(words))
    if len(words) < _LONG:
        return stuck
    sequences = list(zip(words, words[1:], words[2:]))
    return max(stuck, 1.0 - len(set(sequences)) / len(sequences))


def kind(text: str) -> str:
    """One of the report's four kinds, by rule: structured, text (words in the picture), knowledge, else general."""
    if _STRUCTURED.search(text):
        return "structured"
    if quoted_text(text) or _TEXT.search(text):
        return "text"
    return "knowledge" if _KNOWLEDGE.search(text) else "general"
