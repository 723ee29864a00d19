"""Stored output of every room for one small phantom; each room is fed the stored output of the one before.

`scripts/golden` writes it anew, after a change that is meant to change results.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from detector.assess import assess_clusters
from detector.breast import find_breast
from detector.classify import classify_spots
from detector.cluster import cluster_spots
from detector.detect import detect_marks
from detector.enhance import enhance_detail
from detector.evaluate.phantoms import Group, Recipe, make_phantom
from detector.measure import measure_spots
from detector.records import (
    Band,
    Box,
    BreastRegion,
    Clusters,
    Detail,
    Distribution,
    Evidence,
    GreySteps,
    Identity,
    Level,
    Mammogram,
    Marks,
    Morphology,
    Noise,
    Outlines,
    Seeds,
    Spots,
    Table,
)
from detector.settings import Settings

FOLDER = Path(__file__).with_name("golden")
Arrays = Mapping[str, NDArray[Any]]

RECIPE = Recipe(
    rows=256,
    cols=192,
    spacing_mm=0.16,
    groups=(
        Group(Morphology.FINE_PLEOMORPHIC, 10, 10.0, size_mm=(0.5, 0.8), contrast=1.5),
        Group(Morphology.ROUND, 2, distribution=Distribution.DIFFUSE, size_mm=(1.2, 2.0)),
    ),
)
SETTINGS = Settings()


def make_image() -> Arrays:
    """Return the phantom's pixels as whole numbers."""
    return {"pixels": np.rint(make_phantom(4, RECIPE)[0].pixels).astype(np.uint16)}


def _mammogram(image: Arrays) -> Mammogram:
    rows, cols = image["pixels"].shape
    spacing_mm = (RECIPE.spacing_mm, RECIPE.spacing_mm)
    identity = Identity("golden", rows=rows, cols=cols, spacing_mm=spacing_mm, side="L", view="CC")
    return Mammogram(image["pixels"].astype(np.float32), identity)


def _breast(stored: Mapping[str, Arrays]) -> Arrays:
    return flat(find_breast(_mammogram(stored["image"]), SETTINGS.breast))


def _enhance(stored: Mapping[str, Arrays]) -> Arrays:
    return flat(enhance_detail(_mammogram(stored["image"]), _region(stored["breast"]), SETTINGS.enhance))


def _detect(stored: Mapping[str, Arrays]) -> Arrays:
    return flat(detect_marks(_detail(stored["enhance"]), _region(stored["breast"]), SETTINGS.detect))


def _measure(stored: Mapping[str, Arrays]) -> Arrays:
    before = _mammogram(stored["image"]), _region(stored["breast"]), _detail(stored["enhance"])
    return flat(measure_spots(*before, _marks(stored["detect"])))


def _classify(stored: Mapping[str, Arrays]) -> Arrays:
    measured = stored["measure"]
    evidence = Evidence(tuple(measured["1.names"].tolist()), measured["1.values"])
    return flat(classify_spots(_table(Spots, measured, "0."), evidence, _outlines(measured, "2."), SETTINGS.classify))


def _cluster(stored: Mapping[str, Arrays]) -> Arrays:
    return flat(cluster_spots(_table(Spots, stored["classify"], "0."), None, SETTINGS.cluster))


def _assess(stored: Mapping[str, Arrays]) -> Arrays:
    spots, clusters = _table(Spots, stored["cluster"], "0."), _table(Clusters, stored["cluster"], "1.")
    return flat(assess_clusters(spots, clusters, SETTINGS.assess))


ROOMS: Mapping[str, Callable[[Mapping[str, Arrays]], Arrays]] = {
    "breast": _breast,
    "enhance": _enhance,
    "detect": _detect,
    "measure": _measure,
    "classify": _classify,
    "cluster": _cluster,
    "assess": _assess,
}


# --- storing


def flat(value: Any, name: str = "") -> dict[str, NDArray[Any]]:
    """Return the arrays and numbers of a record, of records in it and of tuples, by their dotted names."""
    if value is None:
        return {}
    if isinstance(value, np.ndarray | str | int | float | np.generic):
        return {name: np.asarray(value)}
    if dataclasses.is_dataclass(value):
        parts = {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
    elif len(value) and isinstance(value[0], str | int | float):
        return {name: np.asarray(value)}
    else:
        parts = dict(zip(map(str, range(len(value))), value, strict=True))
    found: dict[str, NDArray[Any]] = {}
    for key, part in parts.items():
        found |= flat(part, f"{name}.{key}" if name else key)
    return found


def rounded(arrays: Arrays) -> Arrays:
    """Return images to a sixteenth of a grey level, so that they pack well; the next room sees them so."""
    return {
        k: np.round(a * 16) / np.float32(16) if a.dtype == np.float32 and a.ndim == 2 and a.size > 4000 else a
        for k, a in arrays.items()
    }


def load(name: str) -> Arrays:
    """Return what is stored of a room."""
    with np.load(FOLDER / f"{name}.npz", allow_pickle=False) as arrays:
        return dict(arrays)


def load_all() -> dict[str, Arrays]:
    """Return what is stored of the image and of all rooms."""
    return {name: load(name) for name in ("image", *ROOMS)}


def store_all(folder: Path = FOLDER) -> None:
    """Write all anew."""
    folder.mkdir(exist_ok=True)
    stored: dict[str, Arrays] = {"image": make_image()}
    for name, room in ROOMS.items():
        stored[name] = rounded(room(stored))
    for name, arrays in stored.items():
        np.savez_compressed(folder / f"{name}.npz", **dict(arrays))  # type: ignore[arg-type]


# --- records from what is stored


def _box(arrays: Arrays, name: str = "box") -> Box:
    return Box(*(int(arrays[f"{name}.{f.name}"]) for f in dataclasses.fields(Box)))


def _region(arrays: Arrays) -> BreastRegion:
    nipple = tuple(arrays["nipple"].tolist()) if "nipple" in arrays else None
    return BreastRegion(
        zones=arrays["zones"],
        skin_distance_mm=arrays["skin_distance_mm"],
        step_px=int(arrays["step_px"]),
        box=_box(arrays),
        outline=arrays["outline"],
        pectoral_outline=arrays["pectoral_outline"],
        nipple=nipple,
        chest_wall=str(arrays["chest_wall"]),
        area_cm2=float(arrays["area_cm2"]),
        grey_range=(float(arrays["grey_range"][0]), float(arrays["grey_range"][1])),
    )


def _detail(arrays: Arrays) -> Detail:
    def several(kind: str) -> list[dict[str, Any]]:
        numbers = sorted({int(k.split(".")[1]) for k in arrays if k.startswith(f"{kind}.")})
        return [{k.split(".", 2)[2]: v for k, v in arrays.items() if k.startswith(f"{kind}.{i}.")} for i in numbers]

    levels = [
        Level(v["image"], v["tophat"], int(v["step_px"]), tuple(v["origin_px"].tolist())) for v in several("levels")
    ]

    def noise(values: Mapping[str, Any]) -> Noise:
        return Noise(*(values[f"noise.{name}"] for name in ("grey", "sigma", "factor")))

    bands = [Band(float(v["scale_mm"]), int(v["level"]), v["response"], noise(v)) for v in several("bands")]
    return Detail(
        levels=tuple(levels),
        bands=tuple(bands),
        noise=noise(arrays),
        grey_level=int(arrays["grey_level"]),
        coherence=arrays["coherence"],
        steps=GreySteps(*arrays["steps"].tolist()),
        cell_px=int(arrays["cell_px"]),
        pixel_mm=float(arrays["pixel_mm"]),
        box=_box(arrays),
        image_shape=tuple(arrays["image_shape"].tolist()),
    )


def _marks(arrays: Arrays) -> Marks:
    return Marks(arrays["labels"], arrays["pixels"], _table(Seeds, arrays, "seeds."), _box(arrays))


def _table(kind: type[Any], arrays: Arrays, prefix: str) -> Any:
    assert issubclass(kind, Table)
    return kind(**{c.name: arrays[prefix + c.name] for c in kind.columns()})


def _outlines(arrays: Arrays, prefix: str) -> Outlines:
    return Outlines(arrays[f"{prefix}vertices_px"], arrays[f"{prefix}offsets"])
