"""Figures for notebooks: axes go in and come back, marks lie where the spots are, nothing covers what it marks."""

import builtins
import dataclasses
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pytest

from detector import plot
from detector.errors import ExportError
from detector.evaluate.froc import Curve
from detector.export.pictures import NOT_NORMAL, NOTICE
from detector.records import Box, Kind, Mammogram, Reading

mpl.use("Agg")
import matplotlib.pyplot as plt

ROOT = Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def closed() -> Iterator[None]:
    yield
    plt.close("all")


def test_it_is_reached_through_the_package() -> None:
    code = "import detector, sys; print('cv2' in sys.modules, detector.plot.froc.__name__)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True)
    assert done.stdout.split() == ["False", "froc"]


def centres(axes: Any) -> Any:
    """Return (row, col) of the middle of every mark that is drawn."""
    polygons = [path.vertices for group in axes.collections for path in group.get_paths()]
    return np.array([(p.min(0) + p.max(0))[::-1] / 2 for p in polygons])


def test_a_reading_is_drawn_into_given_axes_and_they_come_back(mammogram: Mammogram, reading: Reading) -> None:
    axes: Any = plt.subplots()[1]
    returned: Any = plot.reading(reading, mammogram, axes)
    assert returned is axes
    assert axes.get_xlim() == (-0.5, 1439.5)
    assert axes.get_ylim() == (1919.5, -0.5)  # rows run downwards, pixel centres are at integers
    assert NOTICE in axes.get_xlabel().replace("\n", " ")
    assert axes.images[0].get_array().shape == (1920, 1440)


def test_marks_lie_at_the_spots_of_the_clusters(mammogram: Mammogram, reading: Reading) -> None:
    axes: Any = plot.reading(reading, mammogram)
    spots = reading.spots[reading.spots.cluster_id > 0]
    marked = centres(axes)
    away = np.hypot(*(marked[:, None] - np.stack([spots.row_px, spots.col_px], 1)).transpose(2, 0, 1)).min(0)
    assert away.max() < 4
    n_marks = {kind: len(group.get_paths()) for kind, group in zip(Kind, _by_kind(axes), strict=True)}
    assert n_marks[Kind.MICRO] >= np.count_nonzero(spots.kind == Kind.MICRO) > 0
    assert len(axes.texts) == len(reading.clusters) + 1  # and the words of the scale bar


def _by_kind(axes: Any) -> list[Any]:
    micro, macro, unknown = axes.collections
    return [unknown, micro, macro]


def test_a_box_shows_a_part_at_its_place(mammogram: Mammogram, reading: Reading) -> None:
    box = Box(640, 960, 256, 512)
    axes: Any = plot.reading(reading, mammogram, box=box)
    assert axes.images[0].get_array().shape == (320, 256)
    assert axes.images[0].get_extent() == [255.5, 511.5, 959.5, 639.5]
    assert axes.get_xlim() == (255.5, 511.5)
    whole: Any = plot.reading(reading, mammogram)
    np.testing.assert_array_equal(axes.images[0].get_array(), whole.images[0].get_array()[box.slices])


def test_a_reading_without_its_mammogram_shows_the_breast(reading: Reading) -> None:
    outline = np.array([[0, 0], [0, 800], [1900, 800], [1900, 0]], np.float32)
    axes: Any = plot.reading(dataclasses.replace(reading, breast_outline=outline))
    assert not axes.images
    assert axes.patches[0].get_xy()[:4].tolist() == outline[:, ::-1].tolist()


def test_each_cluster_is_magnified_with_all_its_spots(mammogram: Mammogram, reading: Reading) -> None:
    panels = plot.clusters(reading, mammogram)
    assert len(panels) == len(reading.clusters)
    for panel, cluster_id in zip(panels, reading.clusters.cluster_id.tolist(), strict=True):
        spots = reading.spots[reading.spots.cluster_id == cluster_id]
        (left, right), (low, high) = panel.get_xlim(), panel.get_ylim()
        assert ((spots.col_px > left) & (spots.col_px < right)).all()
        assert ((spots.row_px > high) & (spots.row_px < low)).all()
        assert panel.get_title().startswith(f"cluster {cluster_id}: ")
    assert NOTICE in panels[0].figure.get_supxlabel().replace("\n", " ")
    flagged = [("REVIEW" in panel.get_title()) for panel in panels]
    assert flagged == reading.clusters.review.tolist()


def test_given_panels_are_taken_in_order_and_too_few_are_refused(mammogram: Mammogram, reading: Reading) -> None:
    _, grid = plt.subplots(2, 3)
    panels = plot.clusters(reading, mammogram, grid)
    assert panels.tolist() == grid.reshape(-1)[:4].tolist()
    with pytest.raises(ValueError, match="4 clusters need as many axes, not 2"):
        plot.clusters(reading, mammogram, grid[0, :2])


def test_no_cluster_is_said_not_to_mean_normal(mammogram: Mammogram, reading: Reading) -> None:
    none = dataclasses.replace(
        reading,
        spots=reading.spots.replace(cluster_id=np.zeros(len(reading.spots), int)),
        clusters=reading.clusters[:0],
        cluster_outlines=reading.cluster_outlines[np.zeros(0, int)],
    )
    (panel,) = plot.clusters(none, mammogram)
    assert NOT_NORMAL in panel.texts[0].get_text()
    assert NOT_NORMAL in plot.reading(none, mammogram).get_title()


def test_unknown_sizes_draw_no_bar(mammogram: Mammogram, reading: Reading) -> None:
    identity = dataclasses.replace(reading.identity, sizes_known=False, spacing_mm=(0.0, 0.0))
    axes: Any = plot.reading(dataclasses.replace(reading, identity=identity), mammogram)
    assert "size unknown" in [text.get_text() for text in axes.texts]
    assert axes.get_aspect() == 1.0
    assert len(plot.clusters(dataclasses.replace(reading, identity=identity), mammogram)) == 4


def curve() -> Curve:
    rate = np.array([0.0, 0.0, 0.5, 2.0])
    return Curve(np.array([np.inf, 0.9, 0.5, 0.1]), np.array([0.0, 0.4, 0.8, 1.0]), rate, rate / 10)


def test_a_curve_is_a_staircase_that_nothing_interpolates() -> None:
    axes: Any = plt.subplots()[1]
    assert plot.froc(curve(), "image", axes, limit=1.0) is axes
    line: Any = axes.lines[0]
    assert line.get_drawstyle() == "steps-post"
    assert line.get_xdata().tolist() == [0.0, 0.0, 0.5, 1.0]
    assert line.get_ydata().tolist() == [0.4, 0.4, 0.8, 0.8]
    assert axes.get_legend() is None


def test_several_curves_are_named() -> None:
    axes: Any = plot.froc({"ours": curve(), "theirs": curve()}, "cm2")
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["ours", "theirs"]
    assert "cm²" in axes.get_xlabel()


def test_without_matplotlib_the_line_that_installs_it_is_told(
    reading: Reading, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = builtins.__import__

    def without(name: str, *rest: Any, **more: Any) -> Any:
        if name.startswith("matplotlib"):
            raise ImportError(name)
        return real(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ExportError, match=r"matplotlib.*\[notebook\]"):
        plot.reading(reading)
