"""Studies of mammograms with invented findings at known places, and what the validators say of objects made of them."""

import dataclasses
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from detector.evaluate.phantoms import Recipe, make_phantom
from detector.export.dicom import StudyImage
from detector.export.phantoms import DicomForm, write_dicom
from detector.read import read_mammogram
from detector.records import (
    Clusters,
    Distribution,
    Identity,
    Kind,
    Morphology,
    Outlines,
    Reading,
    Spots,
    Suggestion,
)
from detector.settings import Settings

VERSIONS = {"microcalcification-detector": "0.1.0", "numpy": "2.0.0", "model": "rule-1"}
COMMENTS = (
    "VR checker does not support this Specific Character Set",
    "Check for template constraints not yet supported",
    "Testing:",
    "Test passed",
)
"""What dcmtk says of any object in UTF-8, and of one that passes."""


def make_reading(identity: Identity, n_spots: int = 12, n_clusters: int = 2, seed: int = 0) -> Reading:
    """Return a Reading with spots of every form, half of them in clusters, one of them flagged.

    A third of the spots are under the operating point, and are not to be reported.
    """
    random = np.random.default_rng(seed)
    center = random.uniform(0.1, 0.9, (n_spots, 2)) * (identity.rows - 1, identity.cols - 1)
    width = random.uniform(0.2, 2.4, n_spots).round(4)
    mm = identity.spacing_mm[0]
    under = Settings().cluster.min_confidence / 2
    cluster_id = np.where(np.arange(n_spots) < n_spots // 2, np.arange(n_spots) % max(n_clusters, 1) + 1, 0)
    cluster_id = cluster_id if n_clusters else np.zeros(n_spots, int)
    confidence = np.where(cluster_id > 0, 0.9, np.where(np.arange(n_spots) % 3 == 0, under, 0.625))
    spots = Spots.blank(
        n_spots,
        spot_id=np.arange(1, n_spots + 1),
        row_px=center[:, 0],
        col_px=center[:, 1],
        diameter_mm=width * 1.1,
        length_mm=width * 1.3,
        width_mm=width,
        area_mm2=np.pi * (width * 0.55) ** 2,
        kind=np.where(width > 1.0, Kind.MACRO, Kind.MICRO),
        morphology=np.arange(n_spots) % len(Morphology),
        confidence=confidence,
        cluster_id=cluster_id,
    )
    ids = np.arange(1, n_clusters + 1)
    members = [cluster_id == i for i in ids]
    clusters = Clusters.blank(
        n_clusters,
        cluster_id=ids,
        row_px=[center[m, 0].mean() if m.any() else 1.0 for m in members],
        col_px=[center[m, 1].mean() if m.any() else 1.0 for m in members],
        n_spots=[m.sum() for m in members],
        n_macro=[(spots.kind[m] == Kind.MACRO).sum() for m in members],
        extent_mm=ids * 3.5,
        area_mm2=ids * 11.25,
        morphology=(ids * 3 + 10) % len(Morphology),
        distribution=ids % len(Distribution),
        confidence=0.5 + 0.4 / (1 + ids),
        suspicion=0.6 / ids,
        review=ids == 1,
        reasons=np.full(n_clusters, "tight", dtype="U8"),
        suggestion=np.where(ids == 1, Suggestion.CLOSER_VIEWS, Suggestion.COMPARE),
    )
    return Reading(
        identity=identity,
        spots=spots,
        clusters=clusters,
        spot_outlines=Outlines.of([disc(c, w * 0.55 / mm) for c, w in zip(center, width, strict=True)]),
        cluster_outlines=Outlines.of(
            [disc((r, c), 20.0, 6) for r, c in zip(clusters.row_px, clusters.col_px, strict=True)]
        ),
        breast_outline=np.empty((0, 2), np.float32),
        pectoral_outline=np.empty((0, 2), np.float32),
        nipple=None,
        chest_wall="left",
        breast_area_cm2=100.0,
        grey_range=(0.0, 1.0),
        quality="good",
        settings=Settings().to_mapping(),
        versions=VERSIONS,
    )


def disc(center: Sequence[float] | np.ndarray, radius: float, n: int = 24) -> np.ndarray:
    """Return n vertices, (row, col), on a circle."""
    angle = np.arange(n) * 2 * np.pi / n
    return np.column_stack([center[0] + radius * np.sin(angle), center[1] + radius * np.cos(angle)])


def make_study(folder: Path, n_spots: int = 12, n_clusters: int = 2, **recipe: float) -> list[StudyImage]:
    """Write the four views of a phantom's study, the left ones as MONOCHROME1, with a Reading of each."""
    folder.mkdir(parents=True, exist_ok=True)
    images = []
    for seed, (side, view) in enumerate([("L", "CC"), ("L", "MLO"), ("R", "CC"), ("R", "MLO")], 31):
        shape = {"rows": 300, "cols": 240, "spacing_mm": 0.3} | recipe
        phantom = make_phantom(seed, Recipe(side=side, view=view, **shape))[0]  # type: ignore[arg-type]
        path = write_dicom(folder / f"{side}{view}.dcm", phantom, DicomForm(monochrome=1 if side == "L" else 2))
        images.append(StudyImage(path, make_reading(read_mammogram(path).identity, n_spots, n_clusters, seed)))
    return images


def without_findings(image: StudyImage) -> StudyImage:
    """Return an image in which nothing was found."""
    assert image.reading is not None
    nothing = {
        "spots": Spots.empty(),
        "clusters": Clusters.empty(),
        "spot_outlines": Outlines.empty(),
        "cluster_outlines": Outlines.empty(),
    }
    return StudyImage(image.path, dataclasses.replace(image.reading, **nothing))  # type: ignore[arg-type]


def complaints_of(path: Path) -> list[str]:
    """Return what dciodvfy, dcmpschk and, for reports, dsrdump have against an object."""
    beside = Path(sys.executable).parent / "dciodvfy"
    said = _run(str(beside) if beside.exists() else "dciodvfy", str(path))
    complaints = [f"dciodvfy: {line}" for line in said if line.startswith(("Error", "Warning"))]
    assert any(line.startswith(("MammographyCADSR", "ComprehensiveSR", "GrayscaleSoftcopy", "Segmentation"))
               for line in said), said  # fmt: skip
    said = _run("dcmpschk", str(path))
    assert any("Test passed" in line for line in said), said
    complaints += [f"dcmpschk: {line}" for line in _not_comments(said)]
    if any(name in path.name for name in ("cad_sr", "measurements")):
        done = subprocess.run(["dsrdump", str(path)], capture_output=True, text=True, check=False)
        complaints += [f"dsrdump: {line}" for line in _not_comments(done.stderr.splitlines())] + [
            "dsrdump failed"
        ] * done.returncode
    return complaints


def _not_comments(lines: Sequence[str]) -> list[str]:
    return [line for line in lines if line.strip() and not any(comment in line for comment in COMMENTS)]


def _run(command: str, *arguments: str) -> list[str]:
    assert shutil.which(command), f"{command} is not there"
    done = subprocess.run([command, *arguments], capture_output=True, text=True, check=False)
    return (done.stdout + done.stderr).splitlines()
