"""The Jinja environment of the report and the dashboard: same templates, same style, escaping always on."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from dashboards import charts
from flywheel.cases.answers import ANSWERS
from flywheel.core.progress import duration
from flywheel.core.schema import TRACKS

_HERE = Path(__file__).parent
STYLE = _HERE / "static" / "style.css"

Image = Callable[..., str | None]  # (workspace path, side in pixels) → address for `src`, or None
Link = Callable[..., str]  # (kind: "case" | "round" | …, value) → address for `href`


def environment(*, image: Image, link: Link, absent: str) -> Environment:
    """Templates with the filters they use. `image` and `link` give the addresses of images and pages.

    absent: what stands in place of an image that has a path, but no address.
    """
    env = Environment(
        loader=FileSystemLoader(_HERE / "templates"),
        autoescape=True,  # prompts, captions, file names and OCR text are hostile input
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    env.globals |= {"image": image, "link": link, "absent": absent, "charts": charts, "answers": ANSWERS}
    env.filters |= {
        "n": number,
        "pct": percent,
        "points": points,
        "money": money,
        "share": share,
        "hours": hours,
        "marked": marked,
        "place": lambda value, facet: facet.place(value),
        "day": day,
        "duration": duration,
        "text": text,
        "seen": observed,
        "difference": difference,
        "track": track,
        "words": words,
        "listed": listed,
        "cell": cell,
        "amount": amount,
    }
    return env


def number(value: float | None, digits: int = 3) -> str:
    """Counts with thousands separators, measures with a few digits, a dash for None."""
    if value is None:
        return "–"
    if isinstance(value, int):
        return f"{value:,}"
    value = float(value) + 0.0  # no −0
    return f"{value:,.0f}" if value.is_integer() else f"{value:,.{digits}g}"


def percent(share: float | None) -> str:
    """A share in [0, 1] as a whole percentage; the narrow space does not break."""
    return "–" if share is None else f"{100 * share:.0f}\u202f%"


def hours(value: float | None) -> str:
    """Hours with a few digits, none smaller than a thousandth; a dash for None."""
    return "< 0.001" if value is not None and 0 < value < 0.001 else number(value)


def marked(value: str) -> Markup:
    """A sentence in which backquotes mark code, with that as code."""
    parts = value.split("`")
    return Markup("").join(Markup("<code>{}</code>").format(p) if n % 2 else escape(p) for n, p in enumerate(parts))


def share(value: float | None) -> str:
    """A share in [0, 1] as a percentage with one digit, so that small ones can be told; the narrow space stays."""
    return "–" if value is None else f"{100 * value:.1f}\u202f%"


def money(amount: float | None) -> str:
    """An amount in whole hundredths, small ones with three digits; a dash for None."""
    return "–" if amount is None else f"{amount:,.2f}" if amount >= 1 or not amount else f"{amount:.3g}"


def points(share: float) -> str:
    """A difference of shares as signed percentage points."""
    change = round(100 * share)
    return f"{change:+d}\u202fpp".replace("-", "−") if change else "0\u202fpp"


def day(at: datetime | None) -> str:
    """A time in UTC, to the minute; a dash for None."""
    return "–" if at is None else f"{at:%Y-%m-%d %H:%M} UTC"


def text(value: Any, limit: int = 160) -> str:
    """Any evidence value as short text, including objects and lists."""
    out = _spelled(value)
    return out if len(out) <= limit else out[: limit - 1] + "…"


def observed(value: Any) -> str:
    """What a check saw; `nothing` for an empty value."""
    return "nothing" if value is None or value in ("", []) else text(value)


def difference(value: str, reference: str, name: str, limit: int = 160) -> Markup:
    """`value`, with the characters that are missing or different in `reference` in marks of class `name`."""
    from rapidfuzz.distance import Levenshtein

    value, reference = text(value, limit), text(reference, limit)
    parts = []
    for change in Levenshtein.opcodes(value, reference):
        part = escape(value[change.src_start : change.src_end])
        wrong = part and change.tag != "equal"
        parts.append(Markup('<mark class="{}">{}</mark>').format(name, part) if wrong else part)
    return Markup("").join(parts)


def track(name: str | None) -> str:
    """CSS class of a remedy track. The palette is fixed, so that a track looks the same in every report."""
    return f"track-{name}" if name in TRACKS else "track-unrouted"


def amount(value: Any) -> bool:
    """Whether a value of a query result is a number, which stands at the right of its column."""
    return isinstance(value, int | float | Decimal) and not isinstance(value, bool)


def words(name: str | None) -> str:
    """An identifier as words; `unrouted` for None."""
    return (name or "unrouted").replace("_", " ")


def cell(value: Any) -> str:
    """Any value of a query result as text."""
    return value.hex() if isinstance(value, bytes) else text(value, 400)


def _spelled(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{words(str(k))} {_spelled(v)}" for k, v in value.items())
    if isinstance(value, list):
        return ", ".join(map(_spelled, value))
    if value is None or isinstance(value, bool):
        return {None: "–", True: "yes", False: "no"}[value]
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def listed(names: list[str]) -> str:
    """`a, b and c`."""
    return " and ".join(filter(None, [", ".join(names[:-1]), *names[-1:]]))
