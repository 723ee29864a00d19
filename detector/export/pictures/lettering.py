"""Text on pictures: wrapped, in the font that Pillow brings along, on any picture and of any words."""

from __future__ import annotations

import functools

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

Picture = NDArray[np.uint8]
Colour = tuple[int, int, int]


def plain(text: str, longest: int = 200) -> str:
    """Return a text that can be drawn: printable characters only, cut to `longest`."""
    shown = "".join(c if c.isprintable() else " " for c in text).strip()
    return shown if len(shown) <= longest else shown[: longest - 1].rstrip() + "\u2026"


@functools.lru_cache(maxsize=64)
def _bundled(line_px: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size=line_px / 1.3)


@functools.lru_cache(maxsize=4096)
def _length(line_px: int, text: str) -> int:
    """Return the width of a text; pictures of a run say much the same, and each line is measured word by word."""
    return int(np.ceil(_bundled(line_px).getlength(text)))


class Font:
    """A size of the bundled font.

    Parameters
    ----------
    height_px : float
        Height of a line of text; the letters take about two thirds of it.
    bold : bool
        Drawn with a stroke, since the bundled font has one weight.
    """

    def __init__(self, height_px: float, bold: bool = False) -> None:
        self.line_px = max(8, round(height_px))
        self.stroke_px = round(self.line_px / 70) if bold else 0
        self._font = _bundled(self.line_px)

    def width(self, text: str) -> int:
        """Return the width in px that a line of text takes."""
        return _length(self.line_px, text) + 2 * self.stroke_px

    def wrap(self, text: str, width_px: float) -> list[str]:
        """Return the lines of a text broken between words; a word that is too long by itself is kept whole."""
        lines = [""]
        for word in text.split():
            longer = f"{lines[-1]} {word}".strip()
            if lines[-1] and self.width(longer) > width_px:
                lines.append(word)
            else:
                lines[-1] = longer
        return lines

    def write(self, picture: Picture, place: tuple[float, float], text: str, colour: Colour) -> None:
        """Draw one line of text in place.

        Parameters
        ----------
        picture : ndarray of uint8, shape (rows, cols, 3)
            Changed; what lies outside of it is not drawn.
        place : tuple of float
            x of the left edge and y of the middle of the line, in px.
        text : str
        colour : tuple of int
        """
        left, top = round(place[0]), round(place[1] - self.line_px / 2)
        margin = self.line_px  # letters reach over the line by less than this
        rows = slice(max(0, top - margin), max(0, top + 2 * margin))
        cols = slice(max(0, left - margin), max(0, left + self.width(text) + margin))
        patch = picture[rows, cols]
        if patch.size == 0:
            return
        image = Image.fromarray(np.ascontiguousarray(patch))
        pen = ImageDraw.Draw(image)
        where = (left - cols.start + self.stroke_px, top + self.line_px / 2 - rows.start)
        pen.text(where, text, colour, self._font, anchor="lm", stroke_width=self.stroke_px, stroke_fill=colour)
        patch[...] = np.asarray(image)
