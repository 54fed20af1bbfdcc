"""Shorten what matplotlib writes as SVG, to less than half, with nothing that a screen shows left out."""

from __future__ import annotations

import base64
import io
import re

from PIL import Image

# Between elements; figures write glyphs as paths and hold no text.
_SPACE, _COMMENT = re.compile(r">\s+<"), re.compile(r"<!--.*?-->", re.DOTALL)
_PATH, _POSITION = re.compile(r' d="([^"]*)"'), re.compile(r' ([xy])="(-?\d+\.\d\d)\d+"')
_IMAGE = re.compile(r'"data:image/png;base64,\s*([^"]*)"')
_POINT, _CURVE = re.compile(r"([MLz])(?: (\S+) (\S+))?"), re.compile("[A-KN-Ya-y]")
_DECIMALS = re.compile(r"(\.\d\d)\d+")
_ID, _LINK = re.compile(r' id="([^"]*)"'), re.compile(r'(?:href="#|url\(#)([^")]*)')
# An image of one figure has few hues; its transparency makes most of its colours.
COLOURS = 256


def compact(svg: str) -> str:
    """Return an SVG of matplotlib in fewer bytes.

    Straight lines are in tenths of a point, relative to the point before; curves and positions in hundredths;
    images have a palette. Space and comments between elements go, and ids that nothing refers to.

    >>> compact('<g> <!-- a line -->\\n<path d="M 1 2 L 3.04 2 \\nL 3.04 0.52 \\n"/> </g>')
    '<g><path d="m1 2 2 0 0-1.5"/></g>'
    """
    svg = _SPACE.sub("><", _COMMENT.sub("", svg))
    known = set(_LINK.findall(svg))
    svg = _ID.sub(lambda name: name[0] if name[1] in known else "", svg)
    svg = _IMAGE.sub(_with_palette, _POSITION.sub(r' \1="\2"', svg))
    return _PATH.sub(lambda path: f' d="{_path(path[1])}"', svg)


def _path(text: str) -> str:
    if _CURVE.search(text):
        return _DECIMALS.sub(r"\1", text)
    return _relative(_POINT.findall(text))


def _relative(points: list[tuple[str, str, str]]) -> str:
    """Write straight lines with differences of rounded points, so that no error adds up."""
    parts, last = [], ""
    x = y = start_x = start_y = 0
    for command, to_x, to_y in points:
        if command == "z":
            parts.append("z")
            x, y, last = start_x, start_y, "z"
            continue
        new_x, new_y = round(float(to_x) * 10), round(float(to_y) * 10)
        across, down = _tenths(new_x - x), _tenths(new_y - y)
        # Points that follow a move are joined by lines.
        name = "m" if command == "M" else "l" if last == "z" else ""
        parts.append(f"{name or _apart(across)}{across}{_apart(down)}{down}")
        x, y, last = new_x, new_y, command
        if command == "M":
            start_x, start_y = x, y
    return "".join(parts)


def _tenths(count: int) -> str:
    whole, tenths = divmod(abs(count), 10)
    sign = "-" if count < 0 else ""
    return f"{sign}{whole or ''}.{tenths}" if tenths else f"{sign}{whole}"


def _apart(number: str) -> str:
    return "" if number[0] == "-" else " "


def _with_palette(image: re.Match[str]) -> str:
    """Return an image with at most `COLOURS` colours, transparency among them, which is a quarter of its bytes."""
    file = io.BytesIO()
    with Image.open(io.BytesIO(base64.b64decode(image[1]))) as drawn:
        palette = drawn.quantize(COLOURS, method=Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE)
    palette.save(file, "png", optimize=True)
    return f'"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"'
