"""Figures for notebooks, with matplotlib: a Reading over its mammogram, its clusters magnified, FROC curves.

Each function draws into axes that are given, or into new ones, and returns them. Axes of images are in pixels of the
stored image: x is the column, y the row, pixel centres at integers.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from detector.errors import ExportError, extra_missing
from detector.export.files import counted
from detector.export.pictures import NOT_NORMAL, NOTICE, marks
from detector.export.pictures.legend import Pen, by_kind, scale_bar, side_and_view
from detector.export.pictures.lettering import Colour
from detector.export.pictures.scene import Plane, Scene, set_scene, unmarked_spots
from detector.export.pictures.window import choose_window, shade
from detector.records import Box, Kind, Mammogram, Reading, Spots

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from detector.evaluate.froc import Curve, Per

_LEAST_FIELD_MM = 10.0
_MARGIN_MM = 2.0
_LEAST_FIELD_PX = 64
_COLUMNS = 3
_PANEL_IN = 3.6
_WRAP = 52


def reading(
    found: Reading, mammogram: Mammogram | None = None, axes: Axes | None = None, *, box: Box | None = None
) -> Axes:
    """Draw what was found over the mammogram.

    Micro, macro and unknown spots have a ring, a square and a diamond; clusters an outline with number and low, medium
    or high, bold orange if they are flagged for review. As in the overlay, single spots are marked where they are sure.

    Parameters
    ----------
    found : Reading
    mammogram : Mammogram, optional
        The image that was read; without it the outline of the breast stands in its place.
    axes : matplotlib Axes, optional
        Drawn into; new ones by default.
    box : Box, optional
        The part of the image that is shown; all by default.

    Returns
    -------
    matplotlib Axes

    Raises
    ------
    ExportError
        If new axes are wanted and matplotlib is not installed.
    """
    axes = axes if axes is not None else _new_axes(1, (5.6, 6.4))[0]
    box = box or Box(0, found.identity.rows, 0, found.identity.cols)
    scene = _draw(axes, found, mammogram, box)
    _draw_legend(axes, scene, unmarked_spots(found))
    axes.set_title(f"{side_and_view(found.identity)}: {_summary(found)}", fontsize=10)
    axes.set_xlabel(textwrap.fill(NOTICE, 90), fontsize=7)
    return axes


def clusters(found: Reading, mammogram: Mammogram, axes: NDArray[Any] | None = None) -> NDArray[Any]:
    """Draw each cluster magnified, with its reasons.

    Parameters
    ----------
    found : Reading
    mammogram : Mammogram
    axes : ndarray of matplotlib Axes, optional
        One a cluster at least, any shape, drawn into in order; new ones by default.

    Returns
    -------
    ndarray of matplotlib Axes, shape (n,)
        Those drawn into; one with a sentence if there is no cluster.

    Raises
    ------
    ExportError
        If new axes are wanted and matplotlib is not installed.
    ValueError
        If fewer axes are given than there are clusters.
    """
    n = len(found.clusters)
    panels = _new_axes(max(n, 1)) if axes is None else np.asarray(axes, object).reshape(-1)[: max(n, 1)]
    if len(panels) < max(n, 1):
        raise ValueError(f"{counted(n, 'cluster')} need as many axes, not {len(panels)}")
    if n == 0:
        panels[0].set_axis_off()
        panels[0].text(0.5, 0.5, f"No cluster found. {NOT_NORMAL}", ha="center", transform=panels[0].transAxes)
    for i, panel in enumerate(panels if n else ()):
        scene = _draw(panel, found, mammogram, _field(found, i))
        level = scene.levels[scene.clusters.cluster_id.tolist().index(int(found.clusters.cluster_id[i]))]
        review = "REVIEW, " if found.clusters.review[i] else ""
        panel.set_title(f"cluster {found.clusters.cluster_id[i]}: {review}{level}", fontsize=10)
        panel.set_xlabel(textwrap.fill(str(found.clusters.reasons[i]).replace("|", "; "), _WRAP), fontsize=8)
    if axes is None:
        panels[0].figure.supxlabel(textwrap.fill(NOTICE, 70 * min(len(panels), _COLUMNS)), fontsize=7)
    return panels


def froc(
    curves: Curve | Mapping[str, Curve], per: Per = "image", axes: Axes | None = None, *, limit: float | None = None
) -> Axes:
    """Draw sensitivity over false positives as staircases: nothing is interpolated.

    Parameters
    ----------
    curves : Curve, or mapping of str to Curve
        By name, for the legend.
    per : str
        ``image``, or ``cm2`` of breast.
    axes : matplotlib Axes, optional
    limit : float, optional
        Most false positives shown; one and a half times the highest rate that is reported by default.

    Returns
    -------
    matplotlib Axes

    Raises
    ------
    ExportError
        If new axes are wanted and matplotlib is not installed.
    ReadError
        If a breast's area is unknown and the curve is wanted per cm2.
    """
    from detector.evaluate.froc import RATES

    axes = axes if axes is not None else _new_axes(1, (5.6, 4.0))[0]
    named = curves if isinstance(curves, Mapping) else {"": curves}
    end = 1.5 * max(RATES[per]) if limit is None else limit
    for name, curve in named.items():
        rate = curve.false_rate(per)
        shown = np.append(rate[rate <= end], end)
        axes.step(shown, curve.sensitivity_at(shown, per), where="post", label=name or None)
    axes.set(xlim=(0, end), ylim=(0, 1.02), ylabel="sensitivity")
    axes.set_xlabel("false positives per image" if per == "image" else "false positives per cm² of breast")
    axes.grid(alpha=0.3)
    if any(named):
        axes.legend(loc="lower right")
    return axes


def _new_axes(n: int, size_in: tuple[float, float] | None = None) -> NDArray[Any]:
    try:
        import matplotlib.pyplot as plt
    except ImportError as error:
        raise ExportError(extra_missing("a figure", "matplotlib", "notebook")) from error
    cols = min(n, _COLUMNS)
    rows = -(-n // cols)
    size_in = size_in or (_PANEL_IN * cols + 0.4, (_PANEL_IN + 0.7) * rows)
    figure, grid = plt.subplots(rows, cols, figsize=size_in, layout="constrained", squeeze=False)
    for unused in grid.reshape(-1)[n:]:
        figure.delaxes(unused)
    panels: NDArray[Any] = grid.reshape(-1)[:n]
    return panels


def _draw(axes: Axes, found: Reading, mammogram: Mammogram | None, box: Box) -> Scene:
    """Draw the image, or the breast's outline, and the marks of a part of it."""
    rows, cols = box.shape
    extent = (box.col_start - 0.5, box.col_stop - 0.5, box.row_stop - 0.5, box.row_start - 0.5)
    axes.set_facecolor("black")
    if mammogram is not None:
        padding = None if mammogram.padding is None else mammogram.padding[box.slices]
        grey = shade(mammogram.pixels[box.slices], choose_window(mammogram, found.grey_range), padding)
        axes.imshow(grey, cmap="gray", vmin=0, vmax=255, extent=extent)
    elif len(found.breast_outline):
        axes.fill(found.breast_outline[:, 1], found.breast_outline[:, 0], "0.3")
    pen = Pen(max(cols, 0.6 * rows) / 1000)
    scene = set_scene(found, Plane(), pen, (found.identity.rows, found.identity.cols))
    _draw_spots(axes, scene, pen)
    _draw_clusters(axes, scene)
    _draw_bar(axes, found, box)
    height, width = found.identity.spacing_mm
    axes.set(xlim=extent[:2], ylim=extent[2:], xticks=[], yticks=[])
    axes.set_aspect(height / width if min(height, width) > 0 else 1.0)
    return scene


def _draw_spots(axes: Axes, scene: Scene, pen: Pen) -> None:
    from matplotlib.collections import PolyCollection

    for kind, (shape, colour, _) in _MARKS.items():
        chosen = scene.frames[scene.spots.kind == kind]
        polygons = list(chosen.place(shape, pen.gap_px))
        axes.add_collection(PolyCollection(polygons, facecolors="none", edgecolors=[_rgb(colour)], linewidths=1.0))


def _draw_clusters(axes: Axes, scene: Scene) -> None:
    from matplotlib.patheffects import withStroke

    for i, hull in enumerate(scene.hulls):
        review = bool(scene.clusters.review[i])
        colour = _rgb(marks.REVIEW if review else marks.OTHER)
        closed = np.concatenate([hull, hull[:1]])
        axes.plot(closed[:, 0], closed[:, 1], color=colour, lw=2.2 if review else 1.0, ls="-" if review else "--")
        top = hull[np.argmin(hull[:, 1])]
        axes.annotate(
            f"{scene.clusters.cluster_id[i]} {scene.levels[i]}",
            top,
            xytext=(0, 4),
            textcoords="offset points",
            color=colour,
            fontsize=9,
            ha="center",
            annotation_clip=True,
            path_effects=[withStroke(linewidth=2, foreground="black")],
        )


def _draw_bar(axes: Axes, found: Reading, box: Box) -> None:
    rows, cols = box.shape
    bar = scale_bar(found.identity, cols / 4)
    left, low = box.col_start + 0.04 * cols, box.row_stop - 0.04 * rows
    if bar.length_px:
        axes.plot([left, left + bar.length_px], [low, low], color="white", lw=2.5, solid_capstyle="butt")
    axes.text(left, low - 0.015 * rows, bar.words, color="white", fontsize=8, va="bottom")


def _draw_legend(axes: Axes, scene: Scene, left_out: Spots) -> None:
    from matplotlib.lines import Line2D

    handles = []
    for kind, (_, colour, marker) in _MARKS.items():
        if n := int(np.count_nonzero(scene.spots.kind == kind)):
            label = counted(n, f"{kind.name.lower()}calcification" if kind else "spot of unknown kind")
            style: Mapping[str, Any] = {"ls": "", "marker": marker, "mfc": "none", "mec": _rgb(colour)}
            handles.append(Line2D([], [], label=label, **style))
    if len(left_out):
        handles.append(Line2D([], [], label=f"not drawn: {by_kind(left_out)},\nsingle and doubtful", ls=""))
    if handles:
        axes.legend(handles=handles, loc="upper right", fontsize=8, labelcolor="white", facecolor="0.1", framealpha=0.7)


def _field(found: Reading, i: int) -> Box:
    """Return the part of the image around a cluster: all of it with a margin, and no less than `_LEAST_FIELD_MM`."""
    members = found.spots[found.spots.cluster_id == found.clusters.cluster_id[i]]
    own = np.array([[found.clusters.row_px[i], found.clusters.col_px[i]]])
    points = np.concatenate([own, np.stack([members.row_px, members.col_px], 1), found.cluster_outlines[i]])
    low, high = points.min(0), points.max(0)
    known = found.identity.sizes_known and min(found.identity.spacing_mm) > 0
    spacing = np.array(found.identity.spacing_mm if known else (0.1, 0.1))
    least = np.maximum(_LEAST_FIELD_MM / spacing, _LEAST_FIELD_PX)
    half = np.maximum(high - low + 2 * _MARGIN_MM / spacing, least) / 2
    middle, shape = (low + high) / 2, (found.identity.rows, found.identity.cols)
    start = np.clip(np.floor(middle - half), 0, shape).astype(int).tolist()
    stop = np.clip(np.ceil(middle + half), 0, shape).astype(int).tolist()
    return Box(start[0], stop[0], start[1], stop[1])


def _summary(found: Reading) -> str:
    if found.n_review:
        return f"{counted(found.n_review, 'cluster')} to review"
    return f"no cluster flagged. {NOT_NORMAL}"


def _rgb(colour: tuple[int, ...]) -> tuple[float, ...]:
    return tuple(value / 255 for value in colour)


_SQUARE = np.array([[-1.0, -1.0], [1.0, -1.0], [1.0, 1.0], [-1.0, 1.0]])
_MARKS: Mapping[Kind, tuple[NDArray[np.float64], Colour, str]] = {
    Kind.MICRO: (marks.CIRCLE, marks.MICRO, "o"),
    Kind.MACRO: (_SQUARE, marks.MACRO, "s"),
    Kind.UNKNOWN: (np.array([[1.4, 0], [0, 1.4], [-1.4, 0], [0, -1.4]]), marks.UNKNOWN, "D"),
}
