"""Classify a caption: language, script, kind, and whether it is invalid (refusal, boilerplate, URL, loop)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from curation.scorers.language import language, main_script, present, scripts
from curation.scorers.ocr import quoted_text
from flywheel.core.schema import column
from flywheel.core.scorer import Item, per_item

_REFUSAL = re.compile(
    r"\b(i'?m|i am) (sorry|unable|not able)\b|\b(i|we) (cannot|can'?t|could not|couldn'?t|am unable to|won'?t)"
    r" (help|assist|describe|provide|see|view|identify|process|comply|fulfil|generate|create)"
    r"|\bas an? (ai|artificial intelligence|language|large language|vision)\b"
    r"|\b(against|violates?) (my|our|the) \w* ?polic"
    r"|\bunable to (view|see|process|describe|load|access|provide)\b"
    r"|\bplease (upload|provide) (the|an|a) (image|picture)"
    r"|抱歉.{0,12}(无法|不能)|(我|系统)(无法|不能)(查看|描述|提供|识别|协助)|作为(一个)?(人工智能|语言模型|AI)",
    re.IGNORECASE,
)
_BOILERPLATE = re.compile(
    r"\b(all rights reserved|click (here|to)|subscribe (to|now)|sign up|log ?in to|add to cart|buy now|free shipping"
    r"|image (may contain|not available|result for)|no (description|caption|alt text)|photo (by|courtesy)\b.{0,40}$"
    r"|stock (photo|image|illustration|vector)|royalty[- ]free|lorem ipsum|untitled( document)?$|cookie policy"
    r"|terms of (use|service))\b|^(img|dsc|dscn|image|photo|picture|screenshot|untitled)[ _-]?\d*(\.\w{3,4})?$"
    r"|^\S+\.(jpe?g|png|gif|webp|bmp|tiff?)$",
    re.IGNORECASE,
)
_URL = re.compile(r"https?://\S+|\bwww\.\S+|\b[\w-]+\.(com|org|net|io|cn|de|co\.uk)(/\S*)?\b", re.IGNORECASE)
_MARKUP = re.compile(r"<\s*/?\s*(a|b|br|div|img|p|span|table|td|tr|script|li|ul)\b[^>]*>|&(amp|nbsp|quot|#\d+);", re.I)
_QUOTED = re.compile(r"\"[^\"]*\"|“[^”]*”|「[^」]*」|『[^』]*』|(?<!\w)'[^']*'(?!\w)|(?<!\w)‘[^’]*’(?!\w)")
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

REPEATED = 0.5  # share of repeated three-word sequences from which a caption counts as a loop
_LONG = 12  # words: repetition is measured from this length on
_RUN = 4  # equal words in a row that make a loop in captions of any length


class Caption:
    """Refusals, boilerplate, URLs, repetition, language, script and kind; edit instructions are treated the same."""

    name = "caption"
    version = "2"
    fields = (
        column("refusal", pa.bool_(), "a captioning model declines to describe"),
        column("boilerplate", pa.bool_(), "site text, file name or markup in place of a description"),
        column("urls", pa.int32(), "web addresses in it"),
        column("repeated", pa.float64(), "share of three-word sequences that occurred before, 0 to 1; 1: a stuck word"),
        column("invalid", pa.bool_(), "one of: refusal, boilerplate, a URL, no letter, a loop; false for an empty one"),
        column("script", pa.string(), "script of most letters: LATIN, CJK, CYRILLIC, …; null without a letter"),
        column("scripts", pa.int32(), "scripts with at least a tenth of the letters"),
        column("language", pa.string(), "ISO 639-1 code, quoted text apart; null where no language is likely enough"),
        column("kind", pa.string(), "general | text | knowledge | structured, by rule; null for an empty caption"),
    )

    def score(self, items: Sequence[Item]) -> list[dict[str, Any] | Exception]:
        """One row per item."""
        return per_item(items, lambda item: describe(item.caption))


def describe(caption: str) -> dict[str, Any]:
    """Every column of one caption."""
    text = " ".join(caption.split())
    unquoted = _QUOTED.sub('""', text)  # quoted text stands in the picture and may be anything
    refusal = bool(_REFUSAL.search(unquoted))
    boilerplate = bool(_BOILERPLATE.search(unquoted) or _MARKUP.search(unquoted))
    urls, repeats, letters = len(_URL.findall(unquoted)), repeated(text), scripts(text)
    wordless = bool(text) and not letters
    return {
        "refusal": refusal,
        "boilerplate": boilerplate,
        "urls": urls,
        "repeated": repeats,
        "invalid": refusal or boilerplate or urls > 0 or wordless or repeats > REPEATED,
        "script": main_script(letters),
        "scripts": present(letters),
        "language": language(unquoted),
        "kind": kind(text) if text else None,
    }


def repeated(text: str) -> float:
    """Share of three-word sequences that occurred before, 0 to 1; 1 if a word occurs four times in a row."""
    words = [w.lower() for w in _WORD.findall(text)]
    run = 1
    for before, word in zip(words, words[1:]):
        run = run + 1 if word == before else 1
        if run >= _RUN:
            return 1.0
    if len(words) < _LONG:
        return 0.0
    sequences = list(zip(words, words[1:], words[2:]))
    return 1.0 - len(set(sequences)) / len(sequences)


def kind(text: str) -> str:
    """One of the report's four kinds, by rule: structured, text (words in the picture), knowledge, else general."""
    if _STRUCTURED.search(text):
        return "structured"
    if quoted_text(text) or _TEXT.search(text):
        return "text"
    return "knowledge" if _KNOWLEDGE.search(text) else "general"
