"""Result folders with review pages of invented findings at known places, made without analysing anything."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from detector.batch.cases import Cases, picture_name
from detector.batch.manifest import write_manifest
from detector.batch.pool import Limits
from detector.batch.work import Plan
from detector.export.files import reading_name
from detector.export.pages import draw_view
from detector.export.tables import (
    CLUSTER_COLUMNS,
    ERROR_COLUMNS,
    IMAGE_COLUMNS,
    SKIPPED_COLUMNS,
    cluster_rows,
    image_row,
    open_csv,
)
from detector.records import (
    Clusters,
    Distribution,
    Identity,
    Kind,
    Mammogram,
    Morphology,
    Outlines,
    Reading,
    Shape,
    Spots,
    Suggestion,
    Window,
)
from detector.settings import Settings

ROWS, COLS, MM = 600, 420, 0.2
SPOTS = np.array([[200, 150], [207, 161], [213, 149], [222, 158], [205, 172], [420, 300], [100, 90]], float)
"""Places, (row, col), of the spots of `make_view`: five of the flagged cluster 1, one single, one macro."""


def here(tasks: Iterable[Any], work: Any, *_: object) -> Iterator[tuple[Any, Any]]:
    """Do the tasks of a run in this process."""
    for task in tasks:
        yield task, work(task)


def make_view(image_id: str, side: str, view: str, wall: str, **identity: Any) -> tuple[Mammogram, Reading]:
    """Return a dark half disc with bright discs of 3 pixels at `SPOTS`, chest wall on the given side, and a Reading."""
    rows, cols = np.mgrid[:ROWS, :COLS]
    away = np.hypot(rows - ROWS / 2, (cols if wall == "left" else COLS - 1 - cols) * 1.1)
    pixels = np.where(away < 280, 300.0, 0.0)
    pixels[np.min([np.hypot(rows - r, cols - c) for r, c in SPOTS], axis=0) <= 1.5] = 1000.0
    facts = {
        "path": f"{image_id}.dcm",
        "sha256": "0" * 64,
        "study_date": "2026-01-02",
        "spacing_mm": (MM, MM),
    } | identity
    known = Identity(image_id, side=side, view=view, rows=ROWS, cols=COLS, spacing_source="given", **facts)
    mammogram = Mammogram(pixels.astype(np.float32), known, Window(500, 1000, "LINEAR_EXACT"))
    return mammogram, _reading(known, wall)


def _reading(identity: Identity, wall: str) -> Reading:
    n = len(SPOTS)
    spots = Spots.blank(
        n,
        spot_id=np.arange(1, n + 1),
        row_px=SPOTS[:, 0],
        col_px=SPOTS[:, 1],
        diameter_mm=np.full(n, 0.6),
        length_mm=np.full(n, 0.65),
        width_mm=np.full(n, 0.55),
        shape=np.full(n, Shape.DOT),
        kind=[Kind.MICRO] * (n - 1) + [Kind.MACRO],
        confidence=np.full(n, 0.9),
        cluster_id=[1] * 5 + [0, 0],
    )
    clusters = Clusters.blank(
        2,
        cluster_id=[1, 2],
        row_px=[SPOTS[:5, 0].mean(), 450.25],
        col_px=[SPOTS[:5, 1].mean(), 120.5],
        n_spots=[5, 3],
        extent_mm=[4.4, 2.0],
        area_mm2=[20.0, 8.0],
        density_per_cm2=[25.0, 37.5],
        nearest_mm=[1.1, 0.9],
        distribution=[Distribution.GROUPED, Distribution.NONE],
        morphology=[Morphology.FINE_PLEOMORPHIC, Morphology.NONE],
        confidence=[0.9, 0.4],
        suspicion=[0.8, 0.2],
        review=[True, False],
        reasons=np.array(["5 spots in 0.2 cm2, 4 of them irregular|tight", "3 spots in 0.1 cm2"]),
        suggestion=[Suggestion.CLOSER_VIEWS, Suggestion.NONE],
    )
    return Reading(
        identity=identity,
        spots=spots,
        clusters=clusters,
        spot_outlines=Outlines.of([disc(place, 1.5) for place in SPOTS]),
        cluster_outlines=Outlines.of([disc(SPOTS[:5].mean(axis=0), 18.0, 12), disc((450.25, 120.5), 9.0, 12)]),
        breast_outline=np.empty((0, 2), np.float32),
        pectoral_outline=np.empty((0, 2), np.float32),
        nipple=None,
        chest_wall=wall,
        breast_area_cm2=80.0,
        grey_range=(0.0, 1000.0),
        quality="good",
        settings=Settings().to_mapping(),
        versions={},
    )


def disc(center: Sequence[float] | np.ndarray, radius: float, n: int = 24) -> np.ndarray:
    """Return n vertices, (row, col), on a circle."""
    angle = np.arange(n) * 2 * np.pi / n
    return np.column_stack([center[0] + radius * np.sin(angle), center[1] + radius * np.cos(angle)])


def without_findings(reading: Reading) -> Reading:
    """Return a Reading in which nothing was found."""
    empty = Outlines.empty()
    return dataclasses.replace(
        reading, spots=Spots.empty(), clusters=Clusters.empty(), spot_outlines=empty, cluster_outlines=empty
    )


def four_views(case: str) -> list[tuple[Mammogram, Reading]]:
    """Return a case of four views; of R CC the chest wall is on the wrong side, of L MLO nothing was found."""
    right_cc = make_view(f"1.2.{case}.1", "R", "CC", "left")
    left_cc = make_view(f"1.2.{case}.2", "L", "CC", "left")
    right_mlo = make_view(f"1.2.{case}.3", "R", "MLO", "right")
    left_mlo = make_view(f"1.2.{case}.4", "L", "MLO", "left")
    return [left_cc, right_cc, (left_mlo[0], without_findings(left_mlo[1])), right_mlo]


def make_results(folder: Path, cases: Mapping[str, Sequence[tuple[Mammogram, Reading]]], pictures: bool = True) -> Path:
    """Write what a run of these cases would leave: Readings, tables, manifest, pictures, worklist and pages."""
    folder.mkdir(parents=True, exist_ok=True)
    write_manifest(folder, {"settings": Settings().to_mapping(), "paths": [str(folder)]})
    with (
        open_csv(folder / "images.csv", IMAGE_COLUMNS) as images,
        open_csv(folder / "clusters.csv", CLUSTER_COLUMNS) as clusters,
    ):
        for case_id, views in cases.items():
            for mammogram, reading in views:
                image_id = reading.identity.image_id
                images([image_row(reading, 0.05, case_id)])
                clusters(cluster_rows(reading))
                _put(folder / reading_name(image_id), reading.to_json().encode())
                if pictures:
                    _put(folder / picture_name(image_id), draw_view(mammogram, reading))
    for name, columns in (("errors", ERROR_COLUMNS), ("skipped", SKIPPED_COLUMNS)):
        with open_csv(folder / f"{name}.csv", columns):
            pass
    Cases(Plan(folder, Settings()), None).write(here, Limits(1), lambda: False)
    return folder


def _put(place: Path, content: bytes) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_bytes(content)
