"""Small charts as inline SVG.

Colours are CSS classes, so that one drawing serves light and dark; x is in per cent of the width, so that one drawing
serves phones and desktops. The same numbers are next to every chart as text; screen readers skip the drawings.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

from dashboards.rounds import ARMS, CapabilityRates
from dashboards.training import Curve, Points

_ROW = 15  # pixels per arm
_HIGH = 30  # pixels of a histogram
_DIAMOND = "M0-6 6 0 0 6-6 0z"


@dataclass(frozen=True)
class LossPlot:
    """A drawing of loss curves and the ends of its axes: loss at the top and bottom, last step."""

    svg: Markup
    top: float
    bottom: float
    last_step: int


def rate_strip(capability: CapabilityRates) -> Markup:
    """Failure rates of the arms on [0, 1] with 95 % intervals. Arms differ in shape as well as colour."""
    arms = [arm for arm in ARMS if arm in capability.rates]
    height = _ROW * len(arms) + 4
    parts = [_grid(height)]
    for i, arm in enumerate(arms):
        rate, y = capability.rates[arm], _ROW * i + _ROW / 2 + 2
        tip = (
            f"{arm}: {rate.value:.0%} of {capability.prompts} prompts, 95 % interval {rate.low:.0%} to {rate.high:.0%}"
        )
        ends = f'x1="{_x(rate.low)}" x2="{_x(rate.high)}" y1="{y}" y2="{y}"'
        parts.append(
            f'<g class="{arm}"><title>{tip}</title><line class="interval" {ends}/>{_marker(arm, rate.value, y)}</g>'
        )
    return _svg(parts, height, "strip")


def change_strip(low: float, high: float, change: float, outcome: str) -> Markup:
    """Change of a failure rate on [-1, 1] with its interval; left of the centre is better."""
    y = 9
    return _svg(
        [
            '<line class="zero" x1="50%" x2="50%" y1="0" y2="18"/>',
            f'<g class="{escape(outcome)}"><title>{change:+.0%}, 95 % interval {low:+.0%} to {high:+.0%}</title>'
            f'<line class="interval" x1="{_x((low + 1) / 2)}" x2="{_x((high + 1) / 2)}" y1="{y}" y2="{y}"/>'
            f'<circle cx="{_x((change + 1) / 2)}" cy="{y}" r="5"/></g>',
        ],
        18,
        "strip",
    )


def interval_strip(low: float, high: float, value: float) -> Markup:
    """A value with its interval, each as a share of the width."""
    ends = f'x1="{_x(low)}" x2="{_x(high)}" y1="9" y2="9"'
    mark = f'<g class="candidate"><line class="interval" {ends}/><circle cx="{_x(value)}" cy="9" r="5"/></g>'
    return _svg([mark], 18, "strip")


def stacked_bar(parts: Sequence[tuple[str, float]]) -> Markup:
    """Parts (CSS class, amount) side by side; together they fill the width."""
    total = sum(amount for _, amount in parts) or 1
    out, x = [], 0.0
    for name, amount in parts:
        width = 100 * amount / total
        out.append(f'<rect class="{escape(name)}" x="{x:.3f}%" width="{width:.3f}%" height="100%"/>')
        x += width
    return _svg(out, None, "bar")


def share_bar(share: float, name: str = "kept") -> Markup:
    """A bar that fills `share` of the width."""
    width = 100 * min(1.0, max(0.0, share))
    return _svg([f'<rect class="{escape(name)}" width="{width:.3f}%" height="100%"/>'], None, "bar")


def histogram(bins: Sequence[int], lines: Mapping[str, float], marks: Sequence[float] = ()) -> Markup:
    """Bars of equal width, the square root of the largest as high as the drawing, with lines at shares of the width.

    lines: by id, for sliders to move; marks: dashed ones, left out where they are outside.
    """
    top, width = max([*bins, 1]) ** 0.5, 100 / max(1, len(bins))
    heights = [_HIGH * n**0.5 / top for n in bins]
    parts = [
        f"<g><title>{n:,} rows</title>"
        f'<rect x="{i * width:.2f}%" y="{_HIGH - h:.1f}" width="{width * 0.86:.2f}%" height="{h:.1f}"/></g>'
        for i, (n, h) in enumerate(zip(bins, heights))
        if n
    ]
    named = [(f' id="{escape(name)}"', at) for name, at in lines.items()]
    for label, at in [*((' class="mark"', at) for at in marks if 0 <= at <= 1), *named]:
        place = _x(min(1.0, max(0.0, at)))
        parts.append(f'<line{label} x1="{place}" x2="{place}" y1="0" y2="{_HIGH}"/>')
    return _svg(parts, _HIGH, "histogram")


def loss_plot(curves: Sequence[Curve]) -> LossPlot:
    """Loss over steps, one line per arm, held-out loss dashed.

    The top 2 % of values are cut off, so that the first steps do not flatten the rest.
    """
    losses = sorted(y for c in curves for _, y in [*c.loss, *c.held_out])
    top = losses[min(len(losses) - 1, int(0.98 * len(losses)))]
    bottom = losses[0]
    span = (top - bottom) or 1.0
    first = min(c.loss[0][0] for c in curves)
    last = max(points[-1][0] for c in curves for points in (c.loss, c.held_out) if points)
    steps = (last - first) or 1.0

    def path(points: Points) -> str:
        at = [((x - first) / steps * 1000, 300 - 300 * (min(y, top) - bottom) / span) for x, y in points]
        return " ".join(f"{x:.1f},{y:.1f}" for x, y in at)

    parts = [f'<line class="grid" x1="0" x2="1000" y1="{y}" y2="{y}"/>' for y in (0, 75, 150, 225, 300)]
    for curve in curves:
        parts.append(f'<polyline class="{curve.arm}" points="{path(curve.loss)}"/>')
        if len(curve.held_out) > 1:
            parts.append(f'<polyline class="{curve.arm} held-out" points="{path(curve.held_out)}"/>')
    frame = '<svg class="plot" viewBox="0 0 1000 300" preserveAspectRatio="none" aria-hidden="true">'
    return LossPlot(Markup(frame + "".join(parts) + "</svg>"), top, bottom, int(last))


def _svg(parts: Sequence[str], height: float | None, name: str) -> Markup:
    size = f' height="{height}"' if height else ""
    return Markup(f'<svg class="{name}" width="100%"{size} aria-hidden="true">' + "".join(parts) + "</svg>")


def _grid(height: float) -> str:
    return "".join(f'<line class="grid" x1="{x}%" x2="{x}%" y1="0" y2="{height}"/>' for x in (0, 25, 50, 75, 100))


def _marker(arm: str, value: float, y: float) -> str:
    if arm == "control":
        return f'<svg x="{_x(value)}" y="{y}" overflow="visible"><path d="{_DIAMOND}"/></svg>'
    return f'<circle cx="{_x(value)}" cy="{y}" r="5"/>'


def _x(share: float) -> str:
    return f"{100 * share:.2f}%"
