"""Each room against its stored output, fed the stored output of the room before: which room changed is seen at once."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.golden_rooms import FOLDER, ROOMS, Arrays, load, load_all, make_image, rounded, store_all


@pytest.fixture(scope="module")
def stored() -> dict[str, Arrays]:
    return load_all()


def test_the_phantom_is_as_stored(stored: dict[str, Arrays]) -> None:
    pixels, before = make_image()["pixels"].astype(int), stored["image"]["pixels"].astype(int)
    assert np.abs(pixels - before).max() <= 1


@pytest.mark.parametrize("name", ROOMS)
def test_a_room_does_with_its_stored_input_what_it_did(name: str, stored: dict[str, Arrays]) -> None:
    found, before = rounded(ROOMS[name](stored)), stored[name]
    assert set(found) == set(before)
    for key, values in before.items():
        if values.dtype.kind in "fc":
            # other processors differ in the last bits, images by a step of their rounding
            coarse = 1 / 16 if values.ndim == 2 and values.size > 4000 else 1e-6
            np.testing.assert_allclose(found[key], values, rtol=1e-4, atol=1.01 * coarse, err_msg=key)
        elif values.ndim == 2 and values.size > 1000:
            assert np.mean(found[key] != values) < 1e-3, key
        else:
            assert np.array_equal(found[key], values), key


def test_the_stored_image_holds_something_to_find(stored: dict[str, Arrays]) -> None:
    assert len(stored["classify"]["0.spot_id"]) >= 8
    assert len(stored["assess"]["cluster_id"]) >= 1
    assert len(stored["enhance"]["noise.grey"]) > 10


def test_stored_data_is_small_and_holds_no_objects() -> None:
    assert sum(path.stat().st_size for path in FOLDER.glob("*.npz")) < 1_000_000
    assert {path.stem for path in FOLDER.glob("*.npz")} == {"image", *ROOMS}


def test_writing_anew_gives_the_same(tmp_path: Path) -> None:
    store_all(tmp_path)
    for name in ("image", *ROOMS):
        with np.load(tmp_path / f"{name}.npz") as anew:
            assert set(anew.files) == set(load(name))
