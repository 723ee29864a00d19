"""How Mammograms and Readings show themselves at the end of a notebook's cell: a picture and a small table, as HTML.

Text from headers is escaped; nothing here needs matplotlib or pandas.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from html import escape

import cv2
import numpy as np
from numpy.typing import NDArray

from detector.export.pictures import NOT_NORMAL, NOTICE, marks, suspicion_words
from detector.export.pictures.legend import by_kind, side_and_view
from detector.export.pictures.scene import marked_spots, unmarked_spots
from detector.export.pictures.window import choose_window, shade
from detector.records import Identity, Kind, Mammogram, Reading
from detector.settings import Settings

_PICTURE_PX = 420
_JPEG_QUALITY = 85
_MOST_VERTICES = 120
_MOST_CLUSTERS = 12
_BOX, _WORDS = "display:flex;gap:16px;align-items:flex-start", "flex:1;min-width:0"


def mammogram_html(mammogram: Mammogram) -> str:
    """Return the mammogram as it would be shown, made smaller, and what is known of it.

    Parameters
    ----------
    mammogram : Mammogram

    Returns
    -------
    str
        HTML with the picture within.
    """
    identity = mammogram.identity
    source = base64.b64encode(_jpeg(mammogram)).decode("ascii")
    picture = f'<img src="data:image/jpeg;base64,{source}" alt="{escape(side_and_view(identity))}">'
    return _beside(picture, _rows(_image_facts(identity)))


def reading_html(reading: Reading) -> str:
    """Return what was found as a drawing of the breast, in numbers, and as a table of the clusters.

    Parameters
    ----------
    reading : Reading

    Returns
    -------
    str
        HTML with the drawing within; it says what was not looked for.
    """
    settings = Settings.from_mapping(reading.settings)
    counts = reading.spots.confidence >= settings.cluster.min_confidence
    n_micro, n_macro = (int(np.count_nonzero(counts & (reading.spots.kind == k))) for k in (Kind.MICRO, Kind.MACRO))
    facts = [
        ("image", side_and_view(reading.identity)),
        ("breast", f"{reading.breast_area_cm2:.0f} cm²"),
        ("operating point", settings.cluster.operating_point),
        ("spots that count", f"{n_micro} micro, {n_macro} macro{_left_out(reading)}"),
        ("candidates kept", str(len(reading.spots))),
        ("clusters", f"{len(reading.clusters)}, of which to review: {reading.n_review}"),
    ]
    if reading.quality not in ("", "good"):
        facts.append(("limits", reading.quality.replace("|", ", ")))
    words = f"{'' if reading.n_review else NOT_NORMAL + ' '}{NOTICE}"
    table = _cluster_table(reading, suspicion_words(reading.clusters, settings.assess))
    return _beside(_drawing(reading), f"{_rows(facts)}{table}<p><small>{escape(words)}</small></p>")


def _left_out(reading: Reading) -> str:
    left_out = unmarked_spots(reading)
    return f"; not drawn: {by_kind(left_out)}, single and doubtful" if len(left_out) else ""


def _image_facts(identity: Identity) -> list[tuple[str, str]]:
    known = identity.sizes_known and min(identity.spacing_mm) > 0
    row_mm, col_mm = identity.spacing_mm
    pixel = f"{row_mm:g} mm" if row_mm == col_mm else f"{row_mm:g} x {col_mm:g} mm"
    facts = [
        ("image", side_and_view(identity)),
        ("pixels", f"{identity.rows} x {identity.cols}"),
        ("pixel size", f"{pixel}, {identity.spacing_source}" if known else "unknown"),
        ("for", identity.presentation_intent),
        ("device", f"{identity.manufacturer} {identity.model}".strip()),
        ("warnings", "; ".join(identity.warnings)),
    ]
    return [(name, value) for name, value in facts if value]


def _jpeg(mammogram: Mammogram) -> bytes:
    """Return the picture, made smaller before it is shaded, which costs the least."""
    rows, cols = mammogram.pixels.shape
    share = min(1.0, _PICTURE_PX / max(rows, cols))
    size = max(1, round(cols * share)), max(1, round(rows * share))
    small = np.asarray(cv2.resize(mammogram.pixels, size, interpolation=cv2.INTER_AREA), np.float32)
    padding = None
    if mammogram.padding is not None:
        padding = cv2.resize(mammogram.padding.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST) > 0
    grey = shade(small, choose_window(mammogram), padding)
    return bytes(cv2.imencode(".jpg", grey, [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])[1])


# --------------------------------------------------------------------------------------------------------------
# the drawing of a Reading, which holds no pixels


def _drawing(reading: Reading) -> str:
    rows, cols = max(reading.identity.rows, 1), max(reading.identity.cols, 1)
    share = _PICTURE_PX / max(rows, cols)
    radius, line = 0.008 * max(rows, cols), 0.003 * max(rows, cols)
    parts = [_polygon(reading.breast_outline, 'fill="#555"'), _polygon(reading.pectoral_outline, 'fill="#777"')]
    spots = reading.spots
    for i in marked_spots(reading).tolist():
        parts.append(_spot(float(spots.row_px[i]), float(spots.col_px[i]), Kind(int(spots.kind[i])), radius))
    for i, outline in enumerate(reading.cluster_outlines):
        review = bool(reading.clusters.review[i])
        colour = _hex(marks.REVIEW if review else marks.OTHER)
        stroke = f'fill="none" stroke="{colour}" stroke-width="{line * (2 if review else 1):.1f}"'
        hull = marks.surround(np.asarray(outline, np.float64)[:, ::-1], 2 * radius)[:, ::-1]
        parts.append(_polygon(hull, stroke))
        row, col = hull[:, 0].min() - radius, hull[:, 1].mean()
        number = reading.clusters.cluster_id[i]
        parts.append(f'<text x="{col:.0f}" y="{row:.0f}" fill="{colour}" font-size="{4 * radius:.0f}">{number}</text>')
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" role="img" aria-label="where spots and clusters lie" '
        f'width="{cols * share:.0f}" height="{rows * share:.0f}" viewBox="0 0 {cols} {rows}" '
        f'style="background:#101010">{"".join(parts)}</svg>'
    )


def _polygon(outline: NDArray[np.floating], style: str) -> str:
    step = -(-len(outline) // _MOST_VERTICES) or 1
    points = " ".join(f"{col:.0f},{row:.0f}" for row, col in outline[::step].tolist())
    return f'<polygon points="{points}" {style}/>' if points else ""


def _spot(row: float, col: float, kind: Kind, radius: float) -> str:
    if kind == Kind.MICRO:
        return f'<circle cx="{col:.0f}" cy="{row:.0f}" r="{radius / 2:.1f}" fill="{_hex(marks.MICRO)}"/>'
    colour, side = _hex(marks.MACRO if kind == Kind.MACRO else marks.UNKNOWN), 1.6 * radius
    place = f'x="{col - side / 2:.0f}" y="{row - side / 2:.0f}" width="{side:.1f}" height="{side:.1f}"'
    return f'<rect {place} fill="none" stroke="{colour}" stroke-width="{radius / 3:.1f}"/>'


def _hex(colour: Sequence[int]) -> str:
    return "#" + "".join(f"{value:02x}" for value in colour)


# --------------------------------------------------------------------------------------------------------------
# tables


def _cluster_table(reading: Reading, levels: Sequence[str]) -> str:
    clusters = reading.clusters
    if not len(clusters):
        return ""
    order = np.argsort(-clusters.suspicion, kind="stable")[:_MOST_CLUSTERS].tolist()
    rows = [
        (
            str(clusters.cluster_id[i]),
            str(clusters.n_spots[i]),
            f"{clusters.extent_mm[i]:.1f}" if np.isfinite(clusters.extent_mm[i]) else "",
            levels[i],
            "review" if clusters.review[i] else "",
            str(clusters.reasons[i]).replace("|", "; "),
        )
        for i in order
    ]
    head = "".join(_cell("th", name) for name in ("cluster", "spots", "extent in mm", "rank", "", "why"))
    table = _table([head, *("".join(_cell("td", value) for value in row) for row in rows)])
    left_out = len(clusters) - len(order)
    return table + (f"<p><small>{left_out} more, ranked lower</small></p>" if left_out else "")


def _rows(facts: Iterable[tuple[str, str]]) -> str:
    return _table([_cell("th", name) + _cell("td", value) for name, value in facts])


def _table(lines: Iterable[str]) -> str:
    return f"<table>{''.join(f'<tr>{line}</tr>' for line in lines)}</table>"


def _cell(tag: str, text: str) -> str:
    return f'<{tag} style="text-align:left">{escape(text)}</{tag}>'


def _beside(picture: str, words: str) -> str:
    return f'<div style="{_BOX}"><div>{picture}</div><div style="{_WORDS}">{words}</div></div>'
