"""Epsilon by turn as one SVG file: no script, no font and no address in it."""

from typing import TYPE_CHECKING
from xml.sax.saxutils import escape

if TYPE_CHECKING:
    from guilder_shared.privacy.planning import Outlook

WIDTH, HEIGHT = 640, 360
LEFT, RIGHT, TOP, BOTTOM = 60, 20, 50, 50  # margins


def draw(found: "Outlook", name: str, unit: str) -> str:
    """The curve of `found.by_turn`, readable in black and white.

    Args:
        found: Of the study.
        name: Of the study.
        unit: Whose presence it hides.

    Returns:
        The file's text; the same outlook gives the same text.
    """
    last_turn, whole = found.by_turn[-1]
    points = [(0, 0.0), *found.by_turn]
    places = [(_x(turn, last_turn), _y(epsilon, whole)) for turn, epsilon in points]
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
    title = f"{escape(name)}: epsilon {whole:.3g} at delta {found.delta:g}, each {unit}"
    marks = [
        f'<text x="{_x(turn, last_turn):.1f}" y="{HEIGHT - BOTTOM + 18}" '
        f'text-anchor="middle">{turn}</text>'
        for turn in sorted({0, last_turn // 2, last_turn})
    ]
    marks += [
        f'<text x="{LEFT - 8}" y="{_y(whole * part, whole) + 4:.1f}" '
        f'text-anchor="end">{whole * part:.2g}</text>'
        for part in (0.0, 0.5, 1.0)
    ]
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
            f'role="img" font-family="sans-serif" font-size="13" fill="#111">',
            f"<title>{title}</title>",
            f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/>',
            f'<text x="{LEFT}" y="28" font-size="16">{title}</text>',
            f'<path d="M{LEFT},{TOP} V{HEIGHT - BOTTOM} H{WIDTH - RIGHT}" fill="none" '
            f'stroke="#111"/>',
            *marks,
            f'<text x="{WIDTH - RIGHT}" y="{HEIGHT - 12}" text-anchor="end">'
            "turns, spare ones included</text>",
            f'<polyline points="{path}" fill="none" stroke="#111" stroke-width="2.5"/>',
            "</svg>\n",
        ]
    )


def _x(turn: int, last: int) -> float:
    return LEFT + (WIDTH - LEFT - RIGHT) * turn / last


def _y(epsilon: float, whole: float) -> float:
    return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * epsilon / whole
