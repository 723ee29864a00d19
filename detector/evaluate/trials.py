"""Trials with a known truth: calcifications put into real images, and phantoms, looked at by us and by others.

A trial is made anew from its seed, so that nothing of it needs to be kept but its outcome, which holds no pixels.
"""

from __future__ import annotations

import contextlib
import enum
import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from unittest import mock

import cv2
import numpy as np
from numpy.typing import NDArray

from detector.breast import find_breast
from detector.classify.judge import WEIGHTS, Judge
from detector.detect.peaks import is_looked_at
from detector.errors import DetectorError
from detector.evaluate.insertion import Insertion, insert_calcifications
from detector.evaluate.peers import PEERS, find_with
from detector.evaluate.phantoms import Truth, make_phantom
from detector.evaluate.physical import insert_physically
from detector.evaluate.recipes import Recipe
from detector.evaluate.truth import Findings, ImageTruth, Mark, Pair
from detector.pipeline import analyse, regroup
from detector.read import read_mammogram
from detector.records import LINEAR_FORMS, Mammogram, Reading
from detector.settings import Settings

LATTICE_MM = 0.1
"""Distance of the places by which the share of the breast is read where nothing is looked for."""


class Kind(enum.StrEnum):
    """What is put into an image."""

    STANDARD = "standard"
    PHYSICAL = "physical"
    LINEAR = "linear"
    BORDER = "border"
    NOTHING = "nothing"


INSERTIONS: Mapping[Kind, Insertion] = {
    Kind.STANDARD: Insertion(),
    Kind.PHYSICAL: Insertion(),
    Kind.LINEAR: Insertion(n_clusters=3, n_macros=0, n_particles=(5, 10), radius_mm=(4.0, 7.0), forms=LINEAR_FORMS),
    Kind.BORDER: Insertion(n_clusters=6, n_macros=0, margin_mm=0.0),
    Kind.NOTHING: Insertion(n_clusters=0, n_macros=0),
}
"""The standard set; the same by physics; fine linear groups; groups that may lie at skin and chest wall; none."""


@dataclass(frozen=True)
class Background:
    """A real image that calcifications are put into.

    Attributes
    ----------
    name : str
        Its image id in tables.
    path : Path
    patient : str
    medium : str
        ``film`` or ``digital``.
    spacing_mm : float
        Of files that state none.
    weights : Path
        Of the judge, which must not have been trained on the image.
    ignored : tuple of Mark
        Real calcium, marked by eye before any scoring.
    """

    name: str
    path: Path
    patient: str
    medium: str
    spacing_mm: float
    weights: Path = WEIGHTS
    ignored: tuple[Mark, ...] = ()

    def check(self) -> None:
        """Raise if the judge was trained on the image or the patient.

        Raises
        ------
        DetectorError
            If it was, or if there is no record of what it was trained on.
        """
        record = training_record(self.weights)
        digest = hashlib.sha256(self.path.read_bytes()).hexdigest()
        if digest in record["images"].values() or self.patient in record["patients"]:
            raise DetectorError(
                f"{self.weights} was trained on {self.name} or its patient: it says nothing of accuracy"
            )


@dataclass(frozen=True)
class Trial:
    """One image that is looked at: a background with something in it, or (without one) a phantom."""

    seed: int
    background: Background | None = None
    kind: Kind = Kind.STANDARD
    recipe: Recipe = field(default_factory=Recipe)
    with_peers: bool = False

    @property
    def name(self) -> str:
        """Its image id."""
        return f"{self.background.name if self.background else 'phantom'} {self.kind} {self.seed}"

    def make(self) -> tuple[Mammogram, Truth]:
        """Return the image and what lies in it."""
        if self.background is None:
            return make_phantom(self.seed, self.recipe)
        mammogram = read_mammogram(self.background.path, self.background.spacing_mm)
        insert = insert_physically if self.kind is Kind.PHYSICAL else insert_calcifications
        return insert(mammogram, self.seed, INSERTIONS[self.kind])


@dataclass(frozen=True, eq=False)
class Outcome:
    """What came of a trial.

    Attributes
    ----------
    trial : Trial
    truth : ImageTruth
        Its breast is that of the reading: one area for all methods.
    known : Truth
        The same as tables.
    reading : Reading
        At the operating point `sensitive`.
    peers : mapping of str to Findings
        By the names of `PEERS`; empty if they were not asked.
    masked : ndarray of bool, shape (n true spots,)
        Those that lie where no candidate is looked for.
    closed_share : float
        Share of the outlined breast where no candidate is looked for.
    """

    trial: Trial
    truth: ImageTruth
    known: Truth
    reading: Reading
    peers: Mapping[str, Findings]
    masked: NDArray[np.bool_]
    closed_share: float

    @property
    def pair(self) -> Pair:
        """Truth and findings of this program."""
        return self.truth, Findings.of_reading(self.reading)

    def at(self, operating_point: str) -> Reading:
        """Return the reading at another operating point."""
        return regroup(self.reading, settings_at(operating_point))


def settings_at(operating_point: str) -> Settings:
    """Return the default settings at an operating point."""
    return Settings.from_mapping({"cluster": {"operating_point": operating_point}})


def run_trial(trial: Trial) -> Outcome:
    """Make an image, look at it, and return what came of it."""
    mammogram, known = trial.make()
    with judged_by(trial.background.weights if trial.background else WEIGHTS):
        reading = analyse(mammogram, settings_at("sensitive"))
    masked, closed_share = _closed(mammogram, known)
    return Outcome(
        trial=trial,
        truth=_truth(trial, mammogram, known, reading),
        known=known,
        reading=reading,
        peers={name: find_with(peer, mammogram) for name, peer in PEERS.items()} if trial.with_peers else {},
        masked=masked,
        closed_share=closed_share,
    )


def _truth(trial: Trial, mammogram: Mammogram, known: Truth, reading: Reading) -> ImageTruth:
    background = trial.background
    return ImageTruth.of_tables(
        trial.name,
        background.patient if background else trial.name,
        known.spots,
        known.clusters,
        spacing_mm=mammogram.spacing_mm,
        breast=Mark.outline(reading.breast_outline) if len(reading.breast_outline) else None,
        ignored=background.ignored if background else (),
        tags={"medium": background.medium if background else "phantom"},
    )


def _closed(mammogram: Mammogram, known: Truth) -> tuple[NDArray[np.bool_], float]:
    """Return which true spots lie where nothing is looked for, and the share of the breast that this is."""
    breast = find_breast(mammogram, Settings().breast)
    if breast.is_empty:
        return np.ones(len(known.spots), np.bool_), 1.0
    step_px = LATTICE_MM / mammogram.pixel_mm
    shape = tuple(round(n / step_px) for n in mammogram.pixels.shape)
    outline = np.rint(breast.outline[:, ::-1] / step_px).astype(np.int32)
    inside = np.nonzero(cv2.fillPoly(np.zeros(shape, np.uint8), [outline], 1))
    row_px, col_px = (step_px * place.astype(np.float64) for place in inside)
    at_spots, in_breast = (
        is_looked_at(row, col, breast, mammogram.pixels.shape, mammogram.pixel_mm)
        for row, col in ((known.spots.row_px, known.spots.col_px), (row_px, col_px))
    )
    return ~at_spots, float(np.mean(~in_breast))


# --------------------------------------------------------------------------------------------------------------
# judges


@contextlib.contextmanager
def judged_by(weights: Path) -> Iterator[None]:
    """Let another judge decide than that of the package while this is entered, in this process."""
    judge = Judge.load(weights)
    with mock.patch.object(Judge, "load", return_value=judge):
        yield


def training_record(weights: Path) -> Mapping[str, Mapping[str, str]]:
    """Return what a judge was trained on: at least the `patients` and the `images` with their SHA-256.

    Raises
    ------
    DetectorError
        If there is no record beside the weights.
    """
    path = weights.with_suffix(".json")
    try:
        record: Mapping[str, Mapping[str, str]] = json.loads(path.read_text("utf-8"))
    except FileNotFoundError as error:
        raise DetectorError(f"{path} is missing: what these weights were trained on is not known") from error
    return record
