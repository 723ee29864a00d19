"""The sample study: what must be found in it is found, and nothing else is flagged."""

import csv
from functools import cache
from pathlib import Path

import numpy as np
import pydicom
import pytest

import detector
from detector.evaluate.phantoms import Group, Recipe, make_phantom
from detector.records import Distribution, Kind, Morphology, Reading
from scripts.make_samples import SAMPLES, make_samples

FOLDER = Path(__file__).parents[1] / "sample_data"
EXPECTED = list(csv.DictReader((FOLDER / "expected.csv").read_text("utf-8").splitlines()))
NAMES = [sample.name for sample in SAMPLES]


@cache
def reading_of(name: str) -> Reading:
    return detector.analyse(detector.read_mammogram(FOLDER / name))


def away_mm(row: dict[str, str], table: detector.Spots | detector.Clusters, pixel_mm: float) -> np.ndarray:
    """Return the distance of each row of a table from an expected place."""
    return np.hypot(table.row_px - float(row["row_px"]), table.col_px - float(row["col_px"])) * pixel_mm


def expected(item: str) -> list[dict[str, str]]:
    return [row for row in EXPECTED if row["item"] == item]


def test_the_script_makes_the_samples_that_are_there(tmp_path: Path) -> None:
    make_samples(tmp_path)
    assert (tmp_path / "expected.csv").read_bytes() == (FOLDER / "expected.csv").read_bytes()
    for name in NAMES:
        ours, anew = detector.read_mammogram(FOLDER / name), detector.read_mammogram(tmp_path / name)
        assert ours.identity.image_id == anew.identity.image_id
        assert np.abs(ours.pixels - anew.pixels).max() <= 1  # other processors round otherwise


def test_the_samples_are_small_and_differ_in_how_they_are_written() -> None:
    headers = [pydicom.dcmread(FOLDER / name, stop_before_pixels=True) for name in NAMES]
    assert {path.name for path in FOLDER.iterdir()} == {*NAMES, "README.md", "expected.csv"}
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) < 8e6
    assert len({h.file_meta.TransferSyntaxUID for h in headers}) == 4
    assert [h.PhotometricInterpretation for h in headers].count("MONOCHROME1") == 1
    assert len({h.StudyInstanceUID for h in headers}) == 1
    assert {h.ImageLaterality + h.ViewPosition + ".dcm" for h in headers} == set(NAMES)
    assert all(str(h.PatientName).startswith("PHANTOM") for h in headers)


@pytest.mark.parametrize("row", expected("cluster"), ids=lambda row: f"{row['file']} {row['morphology']}")
def test_each_cluster_is_found_and_flagged_or_not_as_it_must_be(row: dict[str, str]) -> None:
    reading = reading_of(row["file"])
    near = away_mm(row, reading.clusters, reading.identity.spacing_mm[0]) < 2.5
    assert near.sum() == 1
    cluster = reading.clusters[near]
    assert cluster.n_spots[0] == pytest.approx(int(row["n_spots"]), rel=0.25)
    assert cluster.extent_mm[0] == pytest.approx(float(row["size_mm"]), rel=0.25)
    assert cluster.review[0] == (row["review"] == "true")


@pytest.mark.parametrize(
    "row", expected("macro"), ids=lambda row: f"{row['file']} {row['morphology']} {row['size_mm']}"
)
def test_each_macrocalcification_is_found(row: dict[str, str]) -> None:
    reading = reading_of(row["file"])
    spots = reading.spots[(reading.spots.kind == Kind.MACRO) & (reading.spots.confidence > 0.5)]
    away = away_mm(row, spots, reading.identity.spacing_mm[0])
    nearest = int(away.argmin())
    assert away[nearest] < 0.5
    assert spots.diameter_mm[nearest] == pytest.approx(float(row["size_mm"]), rel=0.2)


@pytest.mark.parametrize("name", NAMES)
def test_nothing_else_is_a_macrocalcification(name: str) -> None:
    """Not the nipple, nor a fold."""
    reading = reading_of(name)
    there = [row for row in EXPECTED if row["file"] == name and row["row_px"]]
    spots = reading.spots[(reading.spots.kind == Kind.MACRO) & (reading.spots.confidence > 0.5)]
    known = np.zeros(len(spots), bool)
    for row in there:
        near_mm = 0.5 if row["item"] == "macro" else 0.5 * float(row["size_mm"])
        known |= away_mm(row, spots, reading.identity.spacing_mm[0]) < near_mm
    assert known.all()


@pytest.mark.parametrize("name", NAMES)
def test_nothing_else_is_flagged(name: str) -> None:
    must = [row for row in EXPECTED if row["file"] == name and row["review"] == "true"]
    assert reading_of(name).n_review == len(must)


def flagged(seed: int, *groups: Group) -> bool:
    """Return whether a cluster is flagged where the first group lies, in a fatty breast."""
    mammogram, truth = make_phantom(seed, Recipe(rows=1400, cols=1050, density=0.2, groups=groups))
    clusters = detector.analyse(mammogram).clusters
    if not len(truth.clusters):
        return bool(clusters.review.any())
    away = np.hypot(clusters.row_px - truth.clusters.row_px[0], clusters.col_px - truth.clusters.col_px[0]) * 0.07
    return bool(clusters.review[away < 5.0].any())


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("morphology", [Morphology.FINE_LINEAR, Morphology.COARSE_HETEROGENEOUS])
def test_casting_dashes_and_irregular_grains_are_flagged(morphology: Morphology, seed: int) -> None:
    assert flagged(seed, Group(morphology, 10, extent_mm=14.0))


@pytest.mark.parametrize("seed", range(3))
def test_benign_macrocalcifications_alone_are_not_flagged(seed: int) -> None:
    scattered = Distribution.DIFFUSE
    assert not flagged(
        seed,
        Group(Morphology.ROUND, 4, distribution=scattered, size_mm=(1.2, 2.6)),
        Group(Morphology.LARGE_ROD_LIKE, 2, distribution=scattered, size_mm=(3.0, 5.0)),
        Group(Morphology.COARSE, 1, distribution=scattered, size_mm=(3.0, 5.0)),
    )
