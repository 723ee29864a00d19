"""The page of one case: its views as they hang, what was found in each, and how a reader decides on it."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from detector.export.files import file_stem, printable
from detector.export.pages.hanging import hang, turn_of
from detector.export.pages.pictures import fit
from detector.export.pages.render import Run, render_page
from detector.export.pictures import suspicion_words
from detector.export.pictures.legend import by_kind
from detector.export.pictures.scene import marked_spots, unmarked_spots
from detector.export.tables import cell
from detector.records import Kind, Reading
from detector.settings import Settings

PAGE_BYTES = 12_000_000
MOST_PICTURES = 24
_SCRIPTS = ("openseadragon.min.js", "decisions.js", "case.js")


@dataclass(frozen=True)
class View:
    """One image of a case.

    Attributes
    ----------
    reading : Reading
    picture : bytes
        As `draw_view` makes it; empty if there is none.
    excluded : str
        Why the image does not count; empty if it does.
    warnings : str
        What is doubtful about the file, joined by ``|``.
    """

    reading: Reading
    picture: bytes = b""
    excluded: str = ""
    warnings: str = ""


@dataclass(frozen=True)
class Case:
    """The images that belong together, and what they are called."""

    case_id: str
    views: Sequence[View]

    @property
    def stem(self) -> str:
        """Name of the page's file, without suffix."""
        return file_stem(self.case_id)


def render_case(case: Case, run: Run, stamp: str = "") -> str:
    """Return the page of a case as HTML, of at most 12 MB.

    Parameters
    ----------
    case : Case
        Of more than 24 pictures, those with findings come first, and the page says how many are left out.
    run : Run
    stamp : str
        Hash of what the page is made of, for the next run to see whether it still holds.
    """
    views = [_View(view) for view in case.views]
    shown = _shown(case.views)
    values: dict[str, Any] = {
        "case": {"case_id": printable(case.case_id), "stem": case.stem},
        "dates": sorted({v.reading.identity.study_date for v in case.views} - {""}),
        "stamp": stamp,
        "n_left_out": sum(bool(v.picture) for v in case.views) - len(shown),
        "data": {
            "case_id": printable(case.case_id),
            "stem": case.stem,
            "hang": hang([(v.reading.identity, not v.excluded) for v in case.views]),
            "views": [view.data() for view in views],
        },
    }
    empty = render_page("case.html", run, _SCRIPTS, pictures=[], **values)
    room = (PAGE_BYTES - len(empty.encode())) * 3 // 4 - 1000 * (1 + len(shown))
    packed = fit([case.views[i].picture for i in shown], max(0, room))
    pictures = [(i, base64.b64encode(p).decode()) for i, p in zip(shown, packed, strict=True)]
    return render_page("case.html", run, _SCRIPTS, pictures=pictures, **values)


def _shown(views: Sequence[View]) -> list[int]:
    there = [i for i, view in enumerate(views) if view.picture]
    there.sort(key=lambda i: (-views[i].reading.n_review, bool(views[i].excluded), -len(views[i].reading.clusters)))
    return sorted(there[:MOST_PICTURES])


class _View:
    """What the page's script is told of a view; places are (row, col) in the stored image."""

    def __init__(self, view: View) -> None:
        self._view, self._reading = view, view.reading
        self._identity, self._settings = view.reading.identity, Settings.from_mapping(view.reading.settings)

    def data(self) -> dict[str, Any]:
        identity, reading, turn = self._identity, self._reading, turn_of(self._reading)
        known = identity.sizes_known and min(identity.spacing_mm) > 0
        counted = reading.spots.kind[reading.spots.confidence >= self._settings.cluster.min_confidence]
        return {
            "image_id": printable(identity.image_id),
            "side": printable(identity.side),
            "view": printable(identity.view),
            "modifiers": [printable(word) for word in identity.view_modifiers],
            "path": printable(identity.path),
            "device": printable(f"{identity.manufacturer} {identity.model}".strip()),
            "rows": identity.rows,
            "cols": identity.cols,
            "turn": [turn.rows, turn.cols],
            "breast": _box(reading.breast_outline),
            "spacing_mm": list(identity.spacing_mm) if known else None,
            "limits": [printable(w) for w in reading.quality.split("|") if w not in ("", "good")],
            "warnings": [printable(w) for w in self._view.warnings.split("|") if w],
            "excluded": printable(self._view.excluded),
            "n_micro": int(np.count_nonzero(counted == Kind.MICRO)),
            "n_macro": int(np.count_nonzero(counted == Kind.MACRO)),
            "n_unknown": int(np.count_nonzero(counted == Kind.UNKNOWN)),
            "not_drawn": by_kind(unmarked_spots(reading)),
            "spots": self._spots(),
            "clusters": self._clusters(),
        }

    def _spots(self) -> list[dict[str, Any]]:
        rows = marked_spots(self._reading)
        spots, outlines = self._reading.spots[rows], self._reading.spot_outlines[rows]
        sure = spots.confidence >= self._settings.cluster.core_confidence
        words = {name: spots.words(name) for name in ("kind", "shape", "morphology", "flags")}
        return [
            {
                "id": int(spots.spot_id[i]),
                "row": round(float(spots.row_px[i]), 2),
                "col": round(float(spots.col_px[i]), 2),
                "reach": _reach(outlines[i], float(spots.row_px[i]), float(spots.col_px[i])),
                "cluster": int(spots.cluster_id[i]),
                "sure": bool(sure[i]),
                "kind": words["kind"][i],
                "shape": words["shape"][i],
                "form": words["morphology"][i],
                "flags": [word for word in words["flags"][i].split("|") if word],
                "diameter_mm": _number(spots.diameter_mm[i]),
                "length_mm": _number(spots.length_mm[i]),
                "width_mm": _number(spots.width_mm[i]),
            }
            for i in range(len(spots))
        ]

    def _clusters(self) -> list[dict[str, Any]]:
        clusters = self._reading.clusters
        levels = suspicion_words(clusters, self._settings.assess)
        words = {name: clusters.words(name) for name in ("distribution", "morphology", "suggestion")}
        order = np.lexsort((clusters.cluster_id, -clusters.suspicion, ~clusters.review)).tolist()
        return [
            {
                "id": int(clusters.cluster_id[i]),
                "row": float(clusters.row_px[i]),
                "col": float(clusters.col_px[i]),
                # as in clusters.csv, by which a decision is told to be of this cluster
                "place": [cell(float(clusters.row_px[i])), cell(float(clusters.col_px[i]))],
                "outline": np.round(self._reading.cluster_outlines[i].astype(float), 1).tolist(),
                "review": bool(clusters.review[i]),
                "level": levels[i],
                "n_spots": int(clusters.n_spots[i]),
                "n_irregular": int(clusters.n_irregular[i]),
                "n_macro": int(clusters.n_macro[i]),
                "extent_mm": _number(clusters.extent_mm[i]),
                "area_mm2": _number(clusters.area_mm2[i]),
                "density_per_cm2": _number(clusters.density_per_cm2[i]),
                "nearest_mm": _number(clusters.nearest_mm[i]),
                "distribution": words["distribution"][i],
                "morphology": words["morphology"][i],
                "suggestion": words["suggestion"][i],
                "reasons": [printable(reason) for reason in str(clusters.reasons[i]).split("|") if reason],
            }
            for i in order
        ]


def _box(outline: NDArray[np.float32]) -> list[list[float]] | None:
    """Return the (row, col) of the corners, lowest and highest, of the box around an outline; None without one."""
    return np.round([outline.min(0), outline.max(0)]).astype(float).tolist() if len(outline) else None


def _reach(outline: NDArray[np.float32], row: float, col: float) -> float:
    """Return how far a spot's outline reaches from its place, in px."""
    if not len(outline):
        return 1.0
    return round(float(np.hypot(outline[:, 0] - row, outline[:, 1] - col).max()), 2)


def _number(value: Any) -> float | None:
    return round(float(value), 3) if np.isfinite(value) else None
