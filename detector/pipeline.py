"""How a mammogram becomes a Reading: the rooms in order, and nothing else."""

from __future__ import annotations

import time
from collections.abc import Callable
from importlib.metadata import version

from detector.assess import assess_clusters
from detector.breast import find_breast
from detector.classify import MODEL, classify_spots
from detector.cluster import cluster_spots
from detector.detect import detect_marks
from detector.enhance import enhance_detail
from detector.measure import measure_spots
from detector.records import Mammogram, Reading
from detector.settings import Settings


def analyse(mammogram: Mammogram, settings: Settings | None = None) -> Reading:
    """Find, measure, judge and group the bright spots of one mammogram.

    Parameters
    ----------
    mammogram : Mammogram
    settings : Settings, optional

    Returns
    -------
    Reading
        All candidates over the confidence floor, clusters at the operating point, outlines; no pixels.
    """
    settings = settings or Settings()
    seconds: dict[str, float] = {}
    lap = _stopwatch(seconds)

    breast = find_breast(mammogram, settings.breast)
    lap("breast")
    detail = enhance_detail(mammogram, breast, settings.enhance)
    lap("enhance")
    marks = detect_marks(detail, breast, settings.detect)
    lap("detect")
    spots, evidence, outlines = measure_spots(mammogram, breast, detail, marks, settings.measure)
    lap("measure")
    spots, outlines = classify_spots(spots, evidence, outlines, settings.classify)
    lap("classify")
    spots, clusters, cluster_outlines = cluster_spots(spots, settings.cluster)
    lap("cluster")
    clusters = assess_clusters(spots, clusters, settings.assess)
    lap("assess")
    raise NotImplementedError
