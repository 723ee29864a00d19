"""A data set and what was found in it, put side by side: by a run of this program, or by any other."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from detector.batch import Job, Limits
from detector.breast import find_breast
from detector.errors import ReadError
from detector.evaluate.datasets import DATASETS, read_dataset
from detector.evaluate.marks import add_zones
from detector.evaluate.tables import join, read_findings, read_rows
from detector.evaluate.truth import Findings, ImageTruth, Mark, Pair
from detector.export.files import reading_name
from detector.pipeline import library_versions
from detector.read import read_mammogram
from detector.records import Clusters, Mammogram, Outlines, Reading, Spots
from detector.settings import Settings

Image = tuple[Path, ImageTruth]

UNKNOWN_MM = 0.1
"""Pixel size where none is known and none matters."""


@dataclass(frozen=True, eq=False)
class Study:
    """A data set with what was found in it.

    Attributes
    ----------
    name : str
        Key of `DATASETS`.
    method : str
        Whose findings they are.
    pairs : tuple of (ImageTruth, Findings)
        An image that the program failed on is one in which nothing was found.
    files : mapping of str to Path
        Image file by image id.
    references : mapping of str to Reading
        By image id; gives breast, pectoral muscle, nipple and pixel size, the same for all methods. None for an image
        that was not analysed.
    n_failed : int
        Images without a Reading.
    """

    name: str
    method: str
    pairs: tuple[Pair, ...]
    files: Mapping[str, Path]
    references: Mapping[str, Reading]
    n_failed: int = 0

    @property
    def located(self) -> tuple[Pair, ...]:
        """The pairs whose truth tells where the calcifications are: those that scores count, in their order."""
        return tuple((t, f) for t, f in self.pairs if t.located)


def read_images(name: str, path: Path, zones: Path | None = None, *, skip_missing: bool = False) -> list[Image]:
    """Return the images of a data set with their truth.

    Parameters
    ----------
    name : str
        Key of `DATASETS`.
    path : Path
    zones : Path, optional
        A table of marks with ignored zones and reference masks, as `reference.csv` of a report is.
    skip_missing : bool

    Raises
    ------
    SettingsError, ReadError
        As `read_dataset`; or if the set holds no image.
    """
    images = list(read_dataset(name, path, skip_missing=skip_missing))
    if not images:
        raise ReadError(f"{path} holds no image of the data set {name}")
    return list(add_zones(images, zones)) if zones else images


def plan_run(name: str, images: Sequence[Image], out: Path, workers: int, spacing_mm: float | None = None) -> Job:
    """Return the run that looks for calcifications in the images: at the most sensitive point, with nothing drawn.

    Parameters
    ----------
    name : str
        Key of `DATASETS`; its usual pixel size is taken where neither file nor truth states one.
    images : sequence of (Path, ImageTruth)
    out : Path
        Result folder.
    workers : int
    spacing_mm : float, optional
        Instead of the usual pixel size.
    """
    usual = spacing_mm or DATASETS[name].usual_spacing_mm
    stated = {str(path.absolute()): t.spacing_mm[0] if t.spacing_mm else usual for path, t in images}
    return Job(
        paths=tuple(path for path, _ in images),
        out=out,
        settings=Settings.from_mapping({"cluster": {"operating_point": "sensitive"}}),
        formats=frozenset({"csv"}),
        pictures="none",
        limits=Limits(workers),
        min_confidence=0.0,
        spacings={path: mm for path, mm in stated.items() if mm},
    )


def study_of_run(name: str, images: Sequence[Image], run: Path) -> Study:
    """Return the study of the Readings that a run has left.

    Images are known by their bytes, so that it does not matter how the run was told to find them.

    Parameters
    ----------
    name : str
    images : sequence of (Path, ImageTruth)
    run : Path
        Result folder.

    Raises
    ------
    ReadError
        If the run has analysed none of the images.
    """
    readings = {}
    for image_id, own_id in _own_ids(images, run).items():
        readings[image_id] = Reading.from_json((run / reading_name(own_id)).read_text("utf-8"))
    if not readings:
        raise ReadError(f"none of the images was analysed: {run / 'errors.csv'} and skipped.csv say why")
    pairs = tuple(_pair(t, readings.get(t.image_id), DATASETS[name].usual_spacing_mm) for _, t in images)
    files = {t.image_id: path for path, t in images}
    method = f"microcalcification-detector, {library_versions()['model']}"
    return Study(name, method, pairs, files, readings, len(images) - len(readings))


def _pair(truth: ImageTruth, reading: Reading | None, usual_mm: float | None) -> Pair:
    """Return truth and findings; an image that was not analysed adds misses and no breast."""
    if reading is not None:
        return truth.with_reference(reading), Findings.of_reading(reading)
    # where nothing was found, no score depends on the size of a pixel
    spacing = truth.spacing_mm or (usual_mm or UNKNOWN_MM,) * 2
    return replace(truth, spacing_mm=spacing, breast=truth.breast or Mark.circle(0, 0, 0)), Findings()


def study_of_findings(name: str, images: Sequence[Image], findings: Path, spacing_mm: float | None = None) -> Study:
    """Return the study of tables that a program has left, ours or another.

    Breast and pixel size come from the images themselves, unless the truth states them.

    Parameters
    ----------
    name : str
    images : sequence of (Path, ImageTruth)
    findings : Path
        As `read_findings` takes it. Images of a result folder of ours, or of a CAD report's tables, are known by their
        bytes or by their SOP Instance UID.
    spacing_mm : float, optional

    Raises
    ------
    ReadError
        As `read_findings` and `join`; or if an image cannot be read.
    """
    usual = spacing_mm or DATASETS[name].usual_spacing_mm
    references = {
        t.image_id: refer(read_mammogram(path, t.spacing_mm[0] if t.spacing_mm else usual)) for path, t in images
    }
    folder = findings if findings.is_dir() else findings.parent
    if (folder / "images.csv").is_file():
        names = {reference.identity.image_id: image_id for image_id, reference in references.items()}
        names |= {own_id: image_id for image_id, own_id in _own_ids(images, folder).items()}
        ours = {t.image_id for _, t in images}
        tables = {k: v for k, v in read_findings(findings, image_ids=names).items() if k in ours}
    else:
        tables = read_findings(findings)
    truths = [t.with_reference(references[t.image_id]) for _, t in images]
    files = {t.image_id: path for path, t in images}
    return Study(name, str(findings), tuple(join(truths, tables)), files, references)


def refer(mammogram: Mammogram) -> Reading:
    """Return a Reading of the breast alone: what scores refer to, whatever program looked for calcifications."""
    settings = Settings()
    breast = find_breast(mammogram, settings.breast)
    return Reading(
        identity=mammogram.identity,
        spots=Spots.empty(),
        clusters=Clusters.empty(),
        spot_outlines=Outlines.empty(),
        cluster_outlines=Outlines.empty(),
        breast_outline=breast.outline,
        pectoral_outline=breast.pectoral_outline,
        nipple=breast.nipple,
        chest_wall=breast.chest_wall,
        breast_area_cm2=breast.area_cm2,
        grey_range=breast.grey_range,
        quality="",
        settings=settings.to_mapping(),
        versions=library_versions(),
    )


def _own_ids(images: Iterable[Image], run: Path) -> dict[str, str]:
    """Return our id of each image that a run has analysed, by its id in the set."""
    listed = read_rows(run / "images.csv", ("image_id",))
    by_bytes = {row["sha256"]: row["image_id"] for row in listed if row.get("sha256")}
    known = {t.image_id: by_bytes.get(_sha256(path), "") for path, t in images}
    return {image_id: own_id for image_id, own_id in known.items() if own_id}


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
