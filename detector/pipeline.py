"""How a mammogram becomes a Reading: the rooms in order, and nothing else."""

from __future__ import annotations

import dataclasses
import functools
import importlib.metadata
import time
from collections.abc import Callable, Mapping
from types import MappingProxyType

from detector.assess import assess_clusters
from detector.breast import find_breast
from detector.classify import classify_spots
from detector.classify.judge import Judge
from detector.cluster import cluster_spots
from detector.detect import detect_marks
from detector.enhance import enhance_detail
from detector.errors import NoPixelSpacing
from detector.measure import measure_spots
from detector.records import BreastRegion, Buffers, Mammogram, Reading, SpacingSource
from detector.settings import Settings

PLAUSIBLE_BREAST_CM2 = (8.0, 700.0)
"""A compressed breast covers 30 to 300 cm2, parts of it in cropped or spot views less; no detector is larger."""

_LIBRARIES = ("microcalcification-detector", "numpy", "scipy", "opencv-python")


def analyse(mammogram: Mammogram, settings: Settings | None = None, buffers: Buffers | None = None) -> Reading:
    """Find, measure, judge and group the bright spots of one mammogram.

    Parameters
    ----------
    mammogram : Mammogram
    settings : Settings, optional
    buffers : Buffers, optional
        Memory that serves image after image, but one at a time; without it each image takes its own.

    Returns
    -------
    Reading
        All candidates over the confidence floor, clusters at the operating point, outlines; no pixels.

    Raises
    ------
    NoPixelSpacing
        If the spacing was given by the user and makes the breast implausibly small or large.
    """
    settings = settings or Settings()
    seconds: dict[str, float] = {}
    lap = _stopwatch(seconds)

    breast = find_breast(mammogram, settings.breast)
    _check_given_spacing(mammogram, breast)
    lap("breast")
    detail = enhance_detail(mammogram, breast, settings.enhance, buffers)
    lap("enhance")
    marks = detect_marks(detail, breast, settings.detect, buffers)
    lap("detect")
    spots, evidence, outlines = measure_spots(mammogram, breast, detail, marks)
    lap("measure")
    spots, outlines = classify_spots(spots, evidence, outlines, settings.classify)
    lap("classify")
    spots, clusters, cluster_outlines = cluster_spots(spots, breast.nipple, settings.cluster)
    lap("cluster")
    clusters = assess_clusters(spots, clusters, settings.assess)
    lap("assess")
    return Reading(
        identity=mammogram.identity,
        spots=spots,
        clusters=clusters,
        spot_outlines=outlines,
        cluster_outlines=cluster_outlines,
        breast_outline=breast.outline,
        pectoral_outline=breast.pectoral_outline,
        nipple=breast.nipple,
        chest_wall=breast.chest_wall,
        breast_area_cm2=breast.area_cm2,
        grey_range=breast.grey_range,
        quality=_quality(mammogram, breast),
        settings=settings.to_mapping(),
        versions=library_versions(),
        seconds=seconds,
    )


def regroup(reading: Reading, settings: Settings) -> Reading:
    """Group and assess the spots of a Reading anew, at another operating point or by another rule; detects nothing.

    Parameters
    ----------
    reading : Reading
    settings : Settings
        Its sections `cluster` and `assess` are used.

    Returns
    -------
    Reading
    """
    spots, clusters, outlines = cluster_spots(reading.spots, reading.nipple, settings.cluster)
    clusters = assess_clusters(spots, clusters, settings.assess)
    values = settings.to_mapping()
    changed = {**reading.settings, "cluster": values["cluster"], "assess": values["assess"]}
    return dataclasses.replace(
        reading, spots=spots, clusters=clusters, cluster_outlines=outlines, settings=changed, seconds={}
    )


def library_versions() -> dict[str, str]:
    """Return the versions of the package, of the libraries that compute, and the name of the judge."""
    return {**_installed_versions(), "model": Judge.load().digest[:12]}


@functools.cache
def _installed_versions() -> Mapping[str, str]:
    """Return the versions of what is installed; files are read for it, so once."""
    versions = {}
    for name in _LIBRARIES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:  # run from a checkout, or the headless OpenCV
            continue
    return MappingProxyType(versions)


def _check_given_spacing(mammogram: Mammogram, breast: BreastRegion) -> None:
    """Refuse a spacing that the user gave for an image that states none, if the breast would be of no woman's size."""
    low, high = PLAUSIBLE_BREAST_CM2
    given = mammogram.identity.spacing_source == SpacingSource.GIVEN
    if given and not breast.is_empty and not low <= breast.area_cm2 <= high:
        where = f"{mammogram.identity.path}: " if mammogram.identity.path else ""
        raise NoPixelSpacing(
            f"{where}with the given spacing of {mammogram.pixel_mm:g} mm the breast would cover "
            f"{breast.area_cm2:.0f} cm2; give the size of this image's pixels"
        )


def _quality(mammogram: Mammogram, breast: BreastRegion) -> str:
    """Return ``good``, or what limits the reading, words joined by ``|``."""
    limits = []
    if breast.is_empty:
        limits.append("no breast found")
    if not mammogram.identity.sizes_known:
        limits.append("size unknown")
    if mammogram.pixel_mm > 0.15:
        limits.append("coarse pixels")
    return "|".join(limits) or "good"


def _stopwatch(seconds: dict[str, float]) -> Callable[[str], None]:
    last = time.perf_counter()

    def lap(name: str) -> None:
        nonlocal last
        now = time.perf_counter()
        seconds[name] = now - last
        last = now

    return lap
