"""Finds calcifications on mammograms, measures and groups them, and flags groups for a radiologist's review.

It never diagnoses. Names are loaded when they are first used, so that ``import detector`` costs next to nothing.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from detector import plot
    from detector.errors import DetectorError, ReadError, SettingsError
    from detector.evaluate.phantoms import make_phantom
    from detector.export.dicom import read_cad_sr
    from detector.export.pictures import draw_overlay
    from detector.pipeline import analyse, regroup
    from detector.read import read_mammogram
    from detector.records import Buffers, Clusters, Mammogram, Reading, Spots
    from detector.settings import Settings

_HOMES: Mapping[str, str] = {
    "Buffers": "records",
    "Clusters": "records",
    "DetectorError": "errors",
    "Mammogram": "records",
    "ReadError": "errors",
    "Reading": "records",
    "Settings": "settings",
    "SettingsError": "errors",
    "Spots": "records",
    "analyse": "pipeline",
    "draw_overlay": "export.pictures",
    "make_phantom": "evaluate.phantoms",
    "plot": "plot",
    "read_cad_sr": "export.dicom",
    "read_mammogram": "read",
    "regroup": "pipeline",
}

__all__ = [
    "Buffers",
    "Clusters",
    "DetectorError",
    "Mammogram",
    "ReadError",
    "Reading",
    "Settings",
    "SettingsError",
    "Spots",
    "analyse",
    "draw_overlay",
    "make_phantom",
    "plot",
    "read_cad_sr",
    "read_mammogram",
    "regroup",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'detector' has no attribute {name!r}")
    home = importlib.import_module(f"detector.{_HOMES[name]}")
    return home if _HOMES[name] == name else getattr(home, name)


def __dir__() -> list[str]:
    return sorted(__all__)
