"""What is written on a picture: the notice, the words, the scale bar and the plate that holds the legend."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from detector.export.files import counted
from detector.export.pictures import marks
from detector.export.pictures.lettering import Colour, Font, Picture, plain
from detector.records import Clusters, Identity, Kind, Reading, Spots
from detector.settings import AssessSettings, Settings

NOTICE = (
    "Not a diagnosis. Only calcifications were looked for; masses, asymmetries and distortions were not. "
    "For research; a radiologist decides."
)
"""What the program is not, in every picture and page."""

NOT_NORMAL = "This does not mean normal."
"""What is added wherever nothing was found or flagged."""

_BAR_MM = (1, 2, 5, 10, 20, 50, 100)
_UNEQUAL_SPACING = 1.01


def suspicion_words(clusters: Clusters, settings: AssessSettings) -> list[str]:
    """Return low, medium or high for each cluster, by the thresholds of `settings`."""
    bounds = (settings.review_suspicion, settings.high_suspicion)
    return [("low", "medium", "high")[i] for i in np.searchsorted(bounds, clusters.suspicion, side="right").tolist()]


@dataclass(frozen=True)
class Bar:
    """A scale bar: its length in px, which is 0 where sizes are unknown, and what is written beside it."""

    length_px: int
    words: str


def scale_bar(identity: Identity, longest_px: float, zoom: float | None = None) -> Bar:
    """Return the longest bar of a round length that fits, of 1 mm at least.

    Parameters
    ----------
    identity : Identity
    longest_px : float
    zoom : float, optional
        Pixels of the picture in a column of the image, if the picture shows true proportions.
    """
    if not identity.sizes_known or not min(identity.spacing_mm) > 0:
        return Bar(0, "size unknown")
    px_per_mm = (zoom or 1.0) / identity.spacing_mm[1]
    length_mm = max((mm for mm in _BAR_MM if mm * px_per_mm <= longest_px), default=_BAR_MM[0])
    unequal = max(identity.spacing_mm) > _UNEQUAL_SPACING * min(identity.spacing_mm)
    return Bar(round(length_mm * px_per_mm), f"{length_mm} mm" + (" across" if unequal and zoom is None else ""))


@dataclass(frozen=True)
class Pen:
    """Sizes of marks and text in a picture, all from one unit: a thousandth of the width, so a pixel at page width."""

    unit_px: float

    @property
    def line_px(self) -> int:
        """Width of a thin line."""
        return max(2, round(0.75 * self.unit_px))

    @property
    def bold_px(self) -> int:
        """Width of the line around a flagged cluster."""
        return max(3, round(2.4 * self.unit_px))

    @property
    def gap_px(self) -> float:
        """Distance from a spot to the middle of its mark's line."""
        return max(4.5, 2.6 * self.unit_px)

    def font(self, units: float, bold: bool = False) -> Font:
        """Return the font whose line is so many units high."""
        return Font(units * self.unit_px, bold)


def draw_hull(picture: Picture, hull: np.ndarray, review: bool, pen: Pen) -> None:
    """Draw the outline of a cluster: bold and closed if flagged, thin and dashed if not."""
    if review:
        marks.draw_lines(picture, [hull], marks.REVIEW, pen.bold_px, closed=True)
    else:
        marks.draw_lines(picture, marks.dashes(hull, max(8, 5 * pen.unit_px)), marks.OTHER, pen.line_px)


@dataclass(frozen=True)
class _Row:
    text: str
    font: Font
    colour: Colour = marks.TEXT
    symbol: str = ""


def draw_legend(reading: Reading, shown: Spots, left_out: Spots, pen: Pen, width_px: int) -> Picture:
    """Return the plate that says what the marks of an overlay are, and what counts and has none.

    Parameters
    ----------
    reading : Reading
    shown, left_out : Spots
        The spots that are marked, and those that count in the tables and are not.
    pen : Pen
    width_px : int
        Largest width.

    Returns
    -------
    ndarray of uint8, shape (rows, cols, 3)
    """
    return _plate(_rows(reading, shown, left_out, pen), reading.identity, pen, width_px)


def side_and_view(identity: Identity) -> str:
    """Return side, view and view modifiers, or words that say that they are unknown."""
    words = [identity.side or "side unknown", identity.view or "view unknown", *identity.view_modifiers]
    return plain(" ".join(words), 40)


def _rows(reading: Reading, shown: Spots, left_out: Spots, pen: Pen) -> list[_Row]:
    body, small = pen.font(17), pen.font(14.5)
    rows = [_Row(side_and_view(reading.identity), pen.font(30, bold=True))]
    n_review, n_clusters = reading.n_review, len(reading.clusters)
    if n_review:
        rows.append(_Row(f"REVIEW: {counted(n_review, 'cluster')}", pen.font(22, True), marks.REVIEW, "review"))
    elif len(shown) or len(left_out):
        rows.append(_Row(f"No cluster flagged. {NOT_NORMAL}", pen.font(17, True)))
    else:
        rows.append(_Row(f"No calcification found at this setting. {NOT_NORMAL}", pen.font(17, True)))
    if n_clusters > n_review:
        rows.append(_Row(f"{counted(n_clusters - n_review, 'cluster')} not flagged", body, symbol="other"))
    for kind, name in ((Kind.MICRO, "microcalcification"), (Kind.MACRO, "macrocalcification"), (Kind.UNKNOWN, "spot")):
        if n_kind := int(np.count_nonzero(shown.kind == kind)):
            size = " of unknown size" if kind == Kind.UNKNOWN else ""
            rows.append(_Row(counted(n_kind, name) + size, body, symbol=kind.name.lower()))
    if len(left_out):
        sure = Settings.from_mapping(reading.settings).cluster.core_confidence
        words = f"Counted, not drawn: {by_kind(left_out)}, single and doubtful (confidence under {sure:g})"
        rows.append(_Row(words, small))
    if n_clusters:
        rows.append(_Row("low, medium, high: rank of the pattern, not a probability", small))
    if reading.quality not in ("", "good"):
        rows.append(_Row(plain(f"Limits: {reading.quality.replace('|', ', ')}", 120), small))
    return [*rows, _Row("", body, symbol="bar"), _Row(NOTICE, small)]


def by_kind(spots: Spots) -> str:
    """Return how many spots there are of each kind, in words; kinds without any are left out."""
    numbers = {kind: int(np.count_nonzero(spots.kind == kind)) for kind in (Kind.MICRO, Kind.MACRO, Kind.UNKNOWN)}
    names = {Kind.UNKNOWN: "of unknown size"}
    return ", ".join(f"{n} {names.get(kind, kind.name.lower())}" for kind, n in numbers.items() if n)


def _plate(rows: Sequence[_Row], identity: Identity, pen: Pen, width_px: int) -> Picture:
    pad, indent = round(8 * pen.unit_px), round(30 * pen.unit_px)
    lefts = [pad + indent if row.symbol not in ("", "bar") else pad for row in rows]
    wrapped = [row.font.wrap(row.text, width_px - pad - left) for row, left in zip(rows, lefts, strict=True)]
    height = sum(row.font.line_px * len(lines) + pad // 2 for row, lines in zip(rows, wrapped, strict=True))
    plate = marks.plate(height + 2 * pad, width_px)
    middle = float(pad)
    for row, lines, left in zip(rows, wrapped, lefts, strict=True):
        middle += row.font.line_px / 2
        if row.symbol == "bar":
            draw_bar(plate, (pad, middle), scale_bar(identity, width_px / 2), row.font)
        elif row.symbol:
            _draw_symbol(plate, row.symbol, (pad + indent * 0.4, middle), pen)
        for line in lines:
            row.font.write(plate, (left, middle), line, row.colour)
            middle += row.font.line_px
        middle += pad // 2 - row.font.line_px / 2
    return plate


def draw_bar(picture: Picture, place: tuple[float, float], bar: Bar, font: Font) -> int:
    """Draw a horizontal scale bar and its words.

    Parameters
    ----------
    picture : ndarray of uint8, shape (rows, cols, 3)
        Changed.
    place : tuple of float
        x of the left end, y of the middle.
    bar : Bar
    font : Font

    Returns
    -------
    int
        Width taken, with the words.
    """
    left, middle = round(place[0]), round(place[1])
    thick, tick = max(1, font.line_px // 10), font.line_px // 3
    picture[middle - thick : middle + thick, left : left + bar.length_px] = marks.WHITE
    for end in (left, left + bar.length_px - thick) if bar.length_px else ():
        picture[middle - tick : middle + tick, max(0, end) : end + thick] = marks.WHITE
    text_left = left + bar.length_px + (font.line_px // 2 if bar.length_px else 0)
    font.write(picture, (text_left, middle), bar.words, marks.TEXT)
    return text_left + font.width(bar.words) - left


def _draw_symbol(plate: Picture, symbol: str, centre: tuple[float, float], pen: Pen) -> None:
    radius = 7 * pen.unit_px
    if symbol in ("review", "other"):
        draw_hull(plate, marks.surround(np.array([centre]), radius), symbol == "review", pen)
        return
    frames = marks.Frames(np.array([centre]), np.full((1, 2), radius - pen.gap_px), np.zeros(1))
    marks.draw_spots(plate, frames, np.array([Kind[symbol.upper()]]), pen.line_px, pen.gap_px)
