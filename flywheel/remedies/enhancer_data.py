"""Training data of the prompt enhancer by reverse engineering (report, section 4).

A full caption P_fine is classified, then sampled degradations remove what users leave out; the rest is P_short. The
inverse steps are the reasoning. Training examples are (P_short, reasoning, P_fine).
"""

from __future__ import annotations

import json
import random
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from flywheel.cases.events import Case
from flywheel.core.files import text_lines, write_bytes
from flywheel.remedies.held_out import HeldOut
from flywheel.signals.suite import Prompt, write_rows

CLASSES = ("General", "Portrait", "Text", "Complex Text")
COMPLEX = 24  # quoted characters above which a text is complex; several quotations always are

_QUOTED = re.compile(r'("[^"]*"|“[^”]*”|「[^」]*」)')
_PERSON = re.compile(
    r"\b(man|woman|boy|girl|child|baby|person|people|portrait|face|lady|guy|couple|bride|smil\w+)\b|[人男女孩]",
    re.IGNORECASE,
)
# Patterns of what a clause is about: general vocabulary, not that of a data set.
ASPECTS: dict[str, re.Pattern[str]] = {
    "light": re.compile(
        r"\b(light(ing|s)?|lit|sun(light|lit|set|rise)?|shadow\w*|glow\w*|dawn|dusk|backlit|shade|golden hour|neon"
        r"|bright|dim)\b",
        re.I,
    ),
    "texture": re.compile(
        r"\b(textur\w+|grain\w*|rough|smooth|glossy|matte|wooden|metal\w*|fabric|leather|stone|marble|fur|paper|skin)\b",
        re.I,
    ),
    "layout": re.compile(
        r"\b(left|right|top|bottom|centre|center|middle|upper|lower|corner|foreground|composition|framed|close-up|column"
        r"|row|beside|above|below|behind|next to|in front)\b",
        re.I,
    ),
    "background": re.compile(r"\b(background|backdrop|card|scenery|in the distance|sky|wall)\b", re.I),
    "style": re.compile(
        r"\b(style|photo(graph|realistic)?|cinematic|detailed|illustration|painting|watercolou?r|sketch|render\w*|poster"
        r"|vintage|minimal\w*|realistic|anime|lens|bokeh|4k|8k)\b",
        re.I,
    ),
}
_PHRASE = re.compile(r"\s*\b(?:on|against|with|in|at|of|to|from) (?:an? |the )?(?:[\w'-]+ ){0,3}?[\w'-]+$", re.I)
_NUMBERS = {"one": "1", "two": "2", "three": "3", "four": "4", "five": "5"}
_OPENINGS = ("please draw me ", "can you make me ", "i want ", "draw ", "give me ")


@dataclass(frozen=True)
class Example:
    """One training triple and the degradations that made it."""

    short: str
    reasoning: str
    fine: str
    kind: str  # of CLASSES
    degradations: tuple[str, ...]


def quotations(text: str) -> list[str]:
    """The texts that a prompt quotes, without their quotation marks."""
    return [q[1:-1] for q in _QUOTED.findall(text)]


def classify(prompt: str) -> str:
    """The class of a prompt: Text or Complex Text if it quotes text, Portrait if it shows a person, else General."""
    if quoted := quotations(prompt):
        return "Complex Text" if len(quoted) > 1 or len(quoted[0]) > COMPLEX else "Text"
    return "Portrait" if _PERSON.search(prompt) else "General"


def degrade(fine: str, rng: random.Random) -> Example | None:
    """Degrade a full caption into a training example; None if nothing can be removed. Quoted text never changes."""
    kinds = [*(k for k in ASPECTS if _drop(fine, k)), "colloquial"]
    chosen = set(rng.sample(kinds, rng.randint(1, min(3, len(kinds)))))
    short, steps = fine, []
    for kind in [k for k in kinds if k in chosen]:
        degraded = _speak(short, rng) if kind == "colloquial" else _drop(short, kind)
        if degraded:
            short, lost = degraded
            steps.append((kind, lost))
    if not steps or short.strip() == fine.strip():
        return None
    reasoning = [f"This is a {classify(fine)} prompt."]
    if quoted := _QUOTED.findall(fine):
        reasoning.append(f"The text {', '.join(quoted)} stays letter by letter.")
    for kind, lost in reversed(steps):
        if kind == "colloquial":
            reasoning.append("It is a spoken request: state it as a description, numbers written out.")
        else:
            reasoning.append(f"The {kind} is left open: add {lost}.")
    return Example(short, " ".join(reasoning), fine, classify(fine), tuple(k for k, _ in steps))


def examples(
    captions: Sequence[str], held_out: HeldOut, *, count: int, seed: int, kinds: Mapping[str, int]
) -> list[Example]:
    """Up to `count` examples, none near an evaluation prompt; kinds: {class: cases}, classes with most cases first."""
    rng = random.Random(f"enhancer/{seed}")
    order = sorted(set(captions))
    rng.shuffle(order)
    order.sort(key=lambda c: -kinds.get(classify(c), 0))  # stable: still shuffled within a class
    out: list[Example] = []
    for fine in order:
        if len(out) == count:
            break
        example = degrade(fine, rng)
        if example and not held_out.near(example.fine) and not held_out.near(example.short):
            out.append(example)
    return out


def write(
    folder: Path,
    cases: Sequence[Case],
    captions: Sequence[str],
    suite: Sequence[Prompt],
    rewritten: Mapping[str, str],
    *,
    count: int,
    seed: int,
) -> None:
    """Write the enhancer's next training set (`train.jsonl`) and regression set (`regression.jsonl`).

    rewritten: {case id: wording with which the case passed}. All cases enter the regression set; cases from outside of
    the suite (feedback) are also trained on, with that wording as P_fine. Finished work is left as it is.
    """
    if (folder / "regression.jsonl").exists():
        return
    held_out = HeldOut(p.text for p in suite)
    trained = examples(captions, held_out, count=count, seed=seed, kinds=Counter(classify(c.prompt) for c in cases))
    for c in cases:
        fine = rewritten.get(c.case_id)
        if fine and not held_out.near(c.prompt) and not held_out.near(fine):
            trained.append(Example(c.prompt, f"This is a {classify(fine)} prompt.", fine, classify(fine), ("case",)))
    lines = [json.dumps(asdict(e), ensure_ascii=False) for e in trained]
    write_bytes(folder / "train.jsonl", "".join(line + "\n" for line in lines).encode())
    known = {p.prompt_id: p for p in suite}
    rows: list[dict[str, Any]] = []
    for c in cases:
        prompt = known.get(c.prompt_id)
        row = {"prompt_id": c.prompt_id, "prompt": c.prompt, "case_id": c.case_id, "capability": c.capability}
        checks = [k for k in (prompt.checks if prompt else ()) if k["capability"] == c.capability]
        rows.append(row | {"task": prompt.task if prompt else "t2i", "checks": checks})
    write_rows(folder / "regression.jsonl", rows)


def load_examples(path: Path) -> list[Example]:
    """Read the examples of a training set."""
    rows = map(json.loads, text_lines(path))
    return [Example(**{**r, "degradations": tuple(r["degradations"])}) for r in rows]


def _drop(text: str, aspect: str) -> tuple[str, str] | None:
    """(text without its words about the aspect, those words), or None; the subject is never dropped."""
    clauses = _clauses(text)
    gone = [c for c in clauses[1:] if ASPECTS[aspect].search(_outside(c))]
    if gone:
        return ", ".join(c for c in clauses if c not in gone), " and ".join(gone)
    end = _PHRASE.search(clauses[0]) if '"' not in clauses[0][-1:] else None
    if end and end.start() > 0 and ASPECTS[aspect].search(end[0]):
        kept = clauses[0][: end.start()]
        return ", ".join([kept, *clauses[1:]]), end[0].strip()
    return None


def _speak(text: str, rng: random.Random) -> tuple[str, str]:
    """(the text as a spoken request, empty): lower case, numbers as digits, an opening such as "draw"."""
    parts = _QUOTED.split(text)
    parts[::2] = [re.sub(r"\b[a-z]+\b", lambda m: _NUMBERS.get(m[0], m[0]), p.lower()) for p in parts[::2]]
    return rng.choice(_OPENINGS) + "".join(parts).strip().rstrip("."), ""


def _clauses(text: str) -> list[str]:
    """Split at commas, semicolons and full stops outside quotations."""
    pieces: list[str] = [""]
    for part in _QUOTED.split(text):
        if _QUOTED.fullmatch(part):
            pieces[-1] += part
            continue
        first, *rest = re.split(r"[,;.](?:\s+|$)", part)
        pieces[-1] += first
        pieces += rest
    return [p.strip() for p in pieces if p.strip()] or [text]


def _outside(text: str) -> str:
    """The text without its quotations."""
    return "".join(_QUOTED.split(text)[::2])
