"""Makes the sample study: four phantoms as DICOM, and the table of what must be found in them."""

import csv
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from detector.evaluate.phantoms import Group, Recipe, Truth, make_phantom
from detector.export.phantoms import DicomForm, write_dicom
from detector.records import Distribution, Kind, Morphology

COLUMNS = ("file", "item", "row_px", "col_px", "size_mm", "n_spots", "morphology", "review")


@dataclass(frozen=True)
class Sample:
    """One image of the study."""

    seed: int
    side: str
    view: str
    groups: tuple[Group, ...]
    form: DicomForm

    @property
    def name(self) -> str:
        """Name of its file."""
        return f"{self.side}{self.view}.dcm"

    @property
    def recipe(self) -> Recipe:
        """What it is made of."""
        size = (1920, 1440)
        return Recipe(*size, side=self.side, view=self.view, groups=self.groups, density=0.25, breast_share=0.4)


SAMPLES = (
    Sample(
        24,
        "R",
        "CC",
        (
            Group(Morphology.ROUND, 3, distribution=Distribution.DIFFUSE, size_mm=(1.3, 2.6)),
            Group(Morphology.LARGE_ROD_LIKE, 2, distribution=Distribution.DIFFUSE, size_mm=(3.0, 5.0)),
            Group(Morphology.COARSE, 1, distribution=Distribution.DIFFUSE, size_mm=(3.0, 5.0)),
        ),
        DicomForm(bits=12, transfer_syntax="jpeg lossless"),
    ),
    Sample(12, "R", "MLO", (), DicomForm(bits=12, transfer_syntax="deflated")),
    Sample(
        25,
        "L",
        "CC",
        (Group(Morphology.FINE_PLEOMORPHIC, 18, extent_mm=11.0, place=(0.5, -0.15), size_mm=(0.35, 0.75)),),
        DicomForm(bits=14, transfer_syntax="jpeg 2000"),
    ),
    Sample(
        31,
        "L",
        "MLO",
        (Group(Morphology.ROUND, 8, extent_mm=14.0, place=(0.55, 0.2), size_mm=(0.55, 0.9)),),
        DicomForm(bits=12, monochrome=1, transfer_syntax="rle"),
    ),
)


def make_samples(folder: Path) -> None:
    """Write the files of `SAMPLES` and ``expected.csv`` into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "expected.csv").open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(COLUMNS)
        for sample in SAMPLES:
            mammogram, truth = make_phantom(sample.seed, sample.recipe)
            write_dicom(folder / sample.name, mammogram, sample.form)
            table.writerows(_expected(sample.name, truth))


def _expected(name: str, truth: Truth) -> Iterator[tuple[object, ...]]:
    """Yield a row for each cluster and each macrocalcification, or one that says that nothing is there."""
    clusters, macros = truth.clusters, truth.spots[truth.spots.kind == Kind.MACRO]
    for row in range(len(clusters)):
        at = (f"{clusters.row_px[row]:.1f}", f"{clusters.col_px[row]:.1f}", f"{clusters.extent_mm[row]:.2f}")
        review = str(bool(clusters.review[row])).lower()
        yield name, "cluster", *at, clusters.n_spots[row], clusters.words("morphology")[row], review
    for row in np.argsort(macros.row_px):
        at = (f"{macros.row_px[row]:.1f}", f"{macros.col_px[row]:.1f}", f"{macros.diameter_mm[row]:.2f}")
        yield name, "macro", *at, "", macros.words("morphology")[row], "false"
    if not len(clusters) and not len(macros):
        yield name, "nothing", "", "", "", 0, "", "false"


if __name__ == "__main__":
    make_samples(Path(sys.argv[1]))
