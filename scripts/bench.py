"""Measures speed and memory and writes BENCHMARKS.md.

Times are those of one core; what counts are ratios, each taken within one run on one image: machines differ, and the
same machine differs from hour to hour.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import platform
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
os.environ.update(ONE_THREAD)

import cv2
import numpy as np
import pydicom
from numpy.typing import NDArray
from skimage.feature import blob_dog, blob_log

import detector
from detector.breast import find_breast
from detector.evaluate.peers import TOP_HAT_MM
from detector.evaluate.phantoms import make_phantom
from detector.evaluate.recipes import Recipe
from detector.export.dicom import StudyImage, write_objects
from detector.export.dicom.segmentation import fill_outlines, find_segments
from detector.export.dicom.source import Reported, load_source
from detector.export.phantoms import write_dicom
from detector.export.pictures import draw_crops, draw_overlay, encode_png
from detector.read import read_identity, read_mammogram
from detector.records import Buffers, FloatImage, Mammogram, Reading
from detector.settings import Settings

ROOT = Path(__file__).resolve().parents[1]
CANDIDATES_PER_CM2 = 20.0
N_FILES = 4
SCALE_RATIO, N_SCALES = 1.6, 5
STANDARD = Recipe(rows=4096, cols=3328, spacing_mm=0.07, breast_share=0.45)
LARGE = Recipe(rows=5355, cols=4915, spacing_mm=0.05, breast_share=0.45)


@dataclass(frozen=True)
class Peer:
    """Seconds of a peer, and how many candidates it gave."""

    seconds: float
    candidates_per_cm2: float


@dataclass(frozen=True)
class Times:
    """Seconds of each step, medians over the repeats, and the sorted ratios of what ran in turn.

    `ratios` are those of blob_dog to `analyse`, `log_ratio` that of blob_log; `floor_ratios` and `read_ratios` are
    those of `analyse` to the floor and to reading the file.
    """

    analyse: float
    dog: Peer
    log: Peer
    floor: float
    ratios: tuple[float, ...]
    log_ratio: float
    floor_ratios: tuple[float, ...]
    read_ratios: tuple[float, ...]
    rooms: dict[str, float]
    around: dict[str, float]


def seconds(work: Callable[..., object], *arguments: object) -> float:
    """Return how long a call takes."""
    start = time.perf_counter()
    work(*arguments)
    return time.perf_counter() - start


@dataclass(frozen=True)
class Box:
    """The breast's box: grey values as stored, the same as float32 from 0 to 1, and the breast's area in cm2."""

    stored: NDArray[np.uint16]
    image: FloatImage
    area_cm2: float

    @classmethod
    def of(cls, mammogram: Mammogram) -> Box:
        """Return the box of a mammogram."""
        breast = find_breast(mammogram, Settings().breast)
        box = np.array(mammogram.pixels[breast.box.slices], np.float32)
        low, high = breast.grey_range
        image = (box - np.float32(low)) / np.float32(high - low)
        return cls(box.astype(np.uint16), image, breast.area_cm2)


def run_dog(image: FloatImage, threshold: float) -> int:
    """Return how many blobs scikit-image's `blob_dog` finds at five scales."""
    top = SCALE_RATIO ** (N_SCALES - 1)
    blobs: FloatImage = blob_dog(image, min_sigma=1, max_sigma=top, sigma_ratio=SCALE_RATIO, threshold=threshold)  # type: ignore[no-untyped-call]
    return len(blobs)


def run_log(image: FloatImage, threshold: float) -> int:
    """Return how many blobs scikit-image's `blob_log` finds at the same scales."""
    top = SCALE_RATIO ** (N_SCALES - 1)
    blobs: FloatImage = blob_log(  # type: ignore[no-untyped-call]
        image, min_sigma=1, max_sigma=top, num_sigma=N_SCALES, threshold=threshold, log_scale=True
    )
    return len(blobs)


def run_floor(stored: NDArray[np.uint16], spacing_mm: float) -> None:
    """Do what any method of this kind must: float32 once, a top-hat, differences of Gaussians in a pyramid."""
    image = stored.astype(np.float32)
    side = 2 * round(TOP_HAT_MM / 2 / spacing_mm) + 1
    cv2.morphologyEx(image, cv2.MORPH_TOPHAT, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side)))
    level, sigma_px = cv2.GaussianBlur(image, (0, 0), 1.0), 1.0
    for _ in range(N_SCALES):
        blurred = cv2.GaussianBlur(level, (0, 0), sigma_px * (SCALE_RATIO**2 - 1) ** 0.5)
        cv2.subtract(level, blurred)
        level, sigma_px = blurred, sigma_px * SCALE_RATIO
        if sigma_px >= 2:
            level, sigma_px = np.ascontiguousarray(level[::2, ::2]), sigma_px / 2


def peer_threshold(peer: Callable[[FloatImage, float], int], image: FloatImage, wanted: float) -> float:
    """Return the threshold at which a peer gives about the wanted number of candidates, found by halving."""
    low, high = 1e-4, 1.0
    for _ in range(12):
        middle = float(np.sqrt(low * high))
        found = peer(image, middle)
        if abs(found - wanted) < 0.05 * wanted:
            return middle
        low, high = (middle, high) if found > wanted else (low, middle)
    return middle


def measure(mammogram: Mammogram, path: Path, repeats: int) -> Times:
    """Time `analyse`, and in turn with it all that it is compared with, on one image; the slow `blob_log` once."""
    box = Box.of(mammogram)
    dog_threshold, log_threshold = (
        peer_threshold(peer, box.image, CANDIDATES_PER_CM2 * box.area_cm2) for peer in (run_dog, run_log)
    )
    readings: list[Reading] = []
    buffers = Buffers()
    ours, dogs, floors, reads = (list[float]() for _ in range(4))
    for _ in range(repeats):
        reads.append(seconds(read_mammogram, path))
        floors.append(seconds(run_floor, box.stored, mammogram.identity.spacing_mm[0]))
        ours.append(seconds(lambda: readings.append(detector.analyse(mammogram, buffers=buffers))))
        dogs.append(seconds(run_dog, box.image, dog_threshold))
    log = seconds(run_log, box.image, log_threshold)
    return Times(
        analyse=statistics.median(ours),
        dog=Peer(statistics.median(dogs), run_dog(box.image, dog_threshold) / box.area_cm2),
        log=Peer(log, run_log(box.image, log_threshold) / box.area_cm2),
        floor=statistics.median(floors),
        ratios=ratios(dogs, ours),
        log_ratio=log / statistics.median(ours),
        floor_ratios=ratios(ours, floors),
        read_ratios=ratios(ours, reads),
        rooms={name: statistics.median(r.seconds[name] for r in readings) for name in readings[0].seconds},
        around={
            "read and decode": statistics.median(reads),
            **measure_around(mammogram, readings[0], repeats),
        },
    )


def ratios(times: list[float], others: list[float]) -> tuple[float, ...]:
    """Return the ratios of times that were taken in turn, sorted."""
    return tuple(sorted(time / other for time, other in zip(times, others, strict=True)))


def measure_around(mammogram: Mammogram, reading: Reading, repeats: int) -> dict[str, float]:
    """Return the seconds of drawing, medians."""
    overlay = draw_overlay(mammogram, reading)
    calls: dict[str, tuple[Callable[..., object], tuple[object, ...]]] = {
        "draw overlay": (draw_overlay, (mammogram, reading)),
        "encode overlay": (encode_png, (overlay,)),
        "draw crops": (lambda *given: list(draw_crops(*given)), (mammogram, reading)),
    }
    return {
        name: statistics.median(seconds(call, *arguments) for _ in range(repeats))
        for name, (call, arguments) in calls.items()
    }


def measure_objects(path: Path, repeats: int) -> tuple[float, float] | None:
    """Time all DICOM objects of 500 spots and 40 clusters in one image, and highdicom on the segmentation alone.

    Parameters
    ----------
    path : Path
        The image.
    repeats : int

    Returns
    -------
    tuple of float, or None
        Medians in seconds; None if highdicom is not installed.
    """
    if importlib.util.find_spec("highdicom") is None:
        return None
    from tests.dicom_studies import make_reading

    identity = replace(read_identity(path), image_id=str(pydicom.dcmread(path, stop_before_pixels=True).SOPInstanceUID))
    image = StudyImage(path, make_reading(identity, 500, 40))
    run_highdicom(image)  # its import is not counted
    ours, peers = [], []
    for _ in range(repeats):
        with tempfile.TemporaryDirectory() as folder:
            ours.append(seconds(write_objects, [image], Path(folder)))
        peers.append(seconds(run_highdicom, image))
    return statistics.median(ours), statistics.median(peers)


def run_highdicom(image: StudyImage) -> None:
    """Make and write the segmentation of an image with highdicom, from the same masks."""
    import highdicom
    from pydicom.sr.codedict import codes

    source = load_source(image)
    segments = find_segments(Reported.of(source.reading)) if source.reading else []
    shape = int(source.header.Rows), int(source.header.Columns)
    masks = np.stack([fill_outlines(outlines, shape) for _, _, outlines in segments], axis=-1)
    algorithm = highdicom.AlgorithmIdentificationSequence("bench", codes.cid7162.ArtificialIntelligence, "1")
    category = codes.cid7150.MorphologicallyAbnormalStructure
    described = [
        highdicom.seg.SegmentDescription(
            number, label, category, codes.cid6010.Macrocalcifications, "AUTOMATIC", algorithm_identification=algorithm
        )
        for number, (label, _, _) in enumerate(segments, 1)
    ]
    uids = [highdicom.UID() for _ in range(2)]
    names = ("bench", "bench", "1", "1")
    out = highdicom.seg.Segmentation([source.header], masks[None], "BINARY", described, uids[0], 1, uids[1], 1, *names)
    with tempfile.TemporaryFile() as file:
        out.save_as(file)


def peak_memory_mb(mammogram: Mammogram) -> float:
    """Return the highest VmHWM among the processes of a run with one worker, in MB (Linux).

    Over `N_FILES` files of one picture, each of a patient of its own.
    """
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryDirectory() as out:
        for case in range(N_FILES):
            write_dicom(Path(folder) / f"{case}.dcm", mammogram, case=case + 1)
        command = [sys.executable, "-m", "detector", "run", folder, "--out", out, "--workers", "1", "--quiet"]
        run = subprocess.Popen(command, env=os.environ | ONE_THREAD)
        peak = 0
        while run.poll() is None:
            peak = max([peak, *(_high_water_kb(pid) for pid in _descendants(run.pid))])
            time.sleep(0.01)
        if run.returncode != 0:
            raise SystemExit(f"the run ended with status {run.returncode}")
    return peak / 1024


def _descendants(pid: int) -> Iterator[int]:
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return
    for child in children:
        yield int(child)
        yield from _descendants(int(child))


def _high_water_kb(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("VmHWM:")), 0)


def report(times: Times, memory: dict[str, float], objects: tuple[float, float] | None, repeats: int) -> str:
    """Return BENCHMARKS.md."""
    total = sum(times.rooms.values())
    lines = [
        "# Benchmarks",
        "",
        "Written by `scripts/bench`; run it to have the numbers of your machine.",
        "",
        f"Machine: {processor()}, one core, Python {platform.python_version()}, OpenCV {cv2.__version__}, "
        f"numpy {np.__version__}.",
        f"Image: phantom of {STANDARD.rows} x {STANDARD.cols} pixels of {STANDARD.spacing_mm} mm, "
        f"breast {STANDARD.breast_share:.0%} of it. Medians of {repeats} runs of all in turn, but one of `blob_log`. "
        "`analyse` is given buffers that it uses again (`detector.Buffers`); a worker uses freed memory again. "
        "The floor is what any such method must do on the breast's box: grey values to float32 once, a white top-hat "
        f"of {TOP_HAT_MM} mm with an ellipse, and differences of Gaussians at five scales in a pyramid, each octave "
        "halved. Ratios are least, median and greatest.",
        "",
        "| | seconds |",
        "|---|---|",
        f"| `detector.analyse` | {times.analyse:.3f} |",
        f"| `skimage.feature.blob_dog` on the breast's box, five scales, {times.dog.candidates_per_cm2:.1f} candidates "
        f"a cm2 | {times.dog.seconds:.3f} |",
        f"| **ratio** of it to `analyse` | {spread(times.ratios)} |",
        f"| `skimage.feature.blob_log` on the same box, the same scales, {times.log.candidates_per_cm2:.1f} candidates "
        f"a cm2 | {times.log.seconds:.3f} |",
        f"| ratio of it to `analyse` | {times.log_ratio:.1f} |",
        f"| the floor | {times.floor:.3f} |",
        f"| ratio of `analyse` to it | {spread(times.floor_ratios)} |",
        f"| the file, read and decoded | {times.around['read and decode']:.3f} |",
        f"| ratio of `analyse` to it | {spread(times.read_ratios)} |",
        "",
        "Two workers against one, over 64 images of mixed size: in the part **Two workers**, which `scripts/endurance "
        "--only workers` measures.",
        "",
        "| room | ms | share |",
        "|---|---|---|",
        *(f"| {name} | {1000 * s:.1f} | {s / total:.0%} |" for name, s in times.rooms.items()),
        "",
        "| around it | ms |",
        "|---|---|",
        *(f"| {name} | {1000 * s:.1f} |" for name, s in times.around.items()),
        "",
        f"| peak memory of a worker of `detector run` over {N_FILES} files (VmHWM) | MB |",
        "|---|---|",
        *(f"| {name} | {mb:.0f} |" for name, mb in memory.items()),
        "",
    ]
    if objects:
        lines += [
            f"| DICOM objects of 500 spots, 40 clusters in {LARGE.rows} x {LARGE.cols} pixels | seconds |",
            "|---|---|",
            f"| CAD SR, measurement report, presentation state and segmentation together | {objects[0]:.2f} |",
            f"| highdicom, the segmentation alone | {objects[1]:.2f} |",
            f"| ratio, to be under 2 | {objects[0] / objects[1]:.2f} |",
            "",
        ]
    return "\n".join(lines)


def spread(values: tuple[float, ...]) -> str:
    """Return the least, the median and the greatest of sorted ratios."""
    return f"{values[0]:.1f}, **{statistics.median(values):.1f}**, {values[-1]:.1f}"


def kept_parts(path: Path) -> str:
    """Return those parts that other scripts write, each between ``<!-- NAME -->`` and ``<!-- end of NAME -->``."""
    text = path.read_text("utf-8") if path.exists() else ""
    return "".join(f"\n{part[0]}\n" for part in re.finditer(r"<!-- (.+?) -->.*?<!-- end of \1 -->", text, re.DOTALL))


def processor() -> str:
    """Return the processor's name."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=11)
    parser.add_argument("--output", type=Path, default=ROOT / "BENCHMARKS.md")
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    with tempfile.TemporaryDirectory() as folder:
        memory: dict[str, float] = {}
        mammogram, _ = make_phantom(1, STANDARD)
        path = write_dicom(Path(folder) / "standard.dcm", mammogram)
        times = measure(mammogram, path, arguments.repeats)
        large, _ = make_phantom(2, LARGE)
        large_path = write_dicom(Path(folder) / "large.dcm", large)
        if sys.platform == "linux":
            memory[f"{STANDARD.rows} x {STANDARD.cols}"] = peak_memory_mb(mammogram)
            memory[f"{LARGE.rows} x {LARGE.cols}"] = peak_memory_mb(large)
        objects = measure_objects(large_path, arguments.repeats)
        arguments.output.write_text(report(times, memory, objects, arguments.repeats) + kept_parts(arguments.output))
        print(arguments.output.read_text())


if __name__ == "__main__":
    main()
