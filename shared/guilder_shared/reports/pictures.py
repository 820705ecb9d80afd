"""Pictures as inline SVG, readable in black and white: a gauge, and sums over time.

No script, font, address or colour that carries meaning alone; the same figures stand
beside them as text.
"""

from collections.abc import Sequence
from html import escape
from typing import Any

WIDTH, BAR, HEIGHT = 640, 28, 220
INK, PALE = "#1b1b1b", "#e9e9e9"
LEFT, RIGHT, TOP, BOTTOM = 60, 20, 16, 34  # margins of the history


def gauge(spent: float, reserved: float, limit: float, title: str) -> str:
    """Spent (solid) and reserved (striped) of a limit."""
    first, second = (WIDTH * min(x / limit, 1) for x in (spent, spent + reserved))
    return (
        f'<svg role="img" viewBox="0 0 {WIDTH} {BAR}" width="100%" '
        f'aria-label="{escape(title)}"><title>{escape(title)}</title>'
        f'<rect width="{WIDTH}" height="{BAR}" fill="{PALE}"/>'
        f'<path d="M0,{BAR / 2:g} H{second:.1f}" stroke="{INK}" stroke-width="{BAR}" '
        f'stroke-dasharray="3 4"/>'
        f'<rect width="{first:.1f}" height="{BAR}" fill="{INK}"/>'
        f'<rect x="1" y="1" width="{WIDTH - 2}" height="{BAR - 2}" fill="none" '
        f'stroke="{INK}" stroke-width="2"/></svg>'
    )


def steps(points: Sequence[dict[str, Any]], limit: float, title: str) -> str:
    """The sum of epsilons (solid), their composition (dashed), the limit (dotted)."""
    most = max([limit, *(point["sum"] for point in points)])
    lines = [_line([point["sum"] for point in points], most, "")]
    composed = [point["composed"] for point in points if point["composed"] is not None]
    if len(composed) == len(points):
        lines.append(_line(composed, most, "7 4"))
    height = _y(limit, most)
    marks = [
        f'<text x="{LEFT - 6}" y="{_y(value, most) + 4:.1f}" text-anchor="end">'
        f"{value:.3g}</text>"
        for value in dict.fromkeys((0.0, limit, most))
    ]
    marks += [
        f'<text x="{_x(at + 0.5, len(points)):.1f}" y="{HEIGHT - 12}" '
        f'text-anchor="middle">{at + 1}</text>'
        for at in range(len(points))
    ]
    return (
        f'<svg role="img" viewBox="0 0 {WIDTH} {HEIGHT}" width="100%" '
        f'font-size="12" fill="{INK}" aria-label="{escape(title)}">'
        f"<title>{escape(title)}</title>"
        f'<path d="M{LEFT},{TOP} V{HEIGHT - BOTTOM} H{WIDTH - RIGHT}" fill="none" '
        f'stroke="{INK}"/>'
        f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{height:.1f}" y2="{height:.1f}" '
        f'stroke="{INK}" stroke-dasharray="2 3"/>'
        + "".join([*lines, *marks])
        + "</svg>"
    )


def _line(values: Sequence[float], most: float, dashes: str) -> str:
    path = f"M{LEFT},{_y(0, most):.1f}"
    for at, value in enumerate(values):
        path += f" V{_y(value, most):.1f} H{_x(at + 1, len(values)):.1f}"
    dashed = f' stroke-dasharray="{dashes}"' if dashes else ""
    return f'<path d="{path}" fill="none" stroke="{INK}" stroke-width="2"{dashed}/>'


def _x(at: float, num: int) -> float:
    return LEFT + (WIDTH - LEFT - RIGHT) * at / num


def _y(value: float, most: float) -> float:
    return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * value / most
