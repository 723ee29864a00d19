"""Draws docs/review_worklist.jpg, review_case.jpg and review_portrait.jpg: the review pages in a real browser.

``python -m scripts.draw_pages``. It needs playwright (pip) and chromium (Debian). All cases are phantoms.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from detector.batch import Job, run_batch
from detector.evaluate.phantoms import Group, Recipe, make_phantom
from detector.export.files import file_stem
from detector.export.phantoms import write_dicom
from detector.records import Distribution, Morphology

ROOT = Path(__file__).resolve().parents[1]
SAMPLE = "phantom 1"
_MACRO = (Group(Morphology.ROUND, 3, distribution=Distribution.DIFFUSE, size_mm=(1.2, 2.4)),)
_GROUPS: dict[str, dict[str, tuple[Group, ...]]] = {
    "phantom 2": {"R": (Group(Morphology.FINE_LINEAR_BRANCHING, 14, extent_mm=12.0, place=(0.45, 0.1)),), "L": ()},
    "phantom 3": {"R": _MACRO, "L": _MACRO},
    "phantom 4": {"R": (), "L": (Group(Morphology.FINE_PLEOMORPHIC, 10, extent_mm=7.0, place=(0.5, 0.2)), *_MACRO)},
    "phantom 5": {"R": (), "L": ()},
    "phantom 6": {"R": (Group(Morphology.PUNCTATE, 9, extent_mm=9.0, place=(0.5, 0.0)),), "L": ()},
}


def make_results(folder: Path) -> Path:
    """Analyse the sample study and some more phantoms; return the folder of the results."""
    images, cases = folder / "images", {}
    images.mkdir()
    for file in (ROOT / "sample_data").glob("*.dcm"):
        shutil.copy(file, images / file.name)
        cases[file.name] = SAMPLE
    for number, (case_id, sides) in enumerate(_GROUPS.items(), 2):
        for i, (side, view) in enumerate([("R", "CC"), ("L", "CC"), ("R", "MLO"), ("L", "MLO")]):
            recipe = Recipe(1920, 1440, side=side, view=view, groups=sides[side], density=0.15 + 0.05 * number)
            name = f"{number}_{side}{view}.dcm"
            write_dicom(images / name, make_phantom(10 * number + i % 2, recipe)[0], case=number)
            cases[name] = case_id
    out = folder / "results"
    run_batch(Job((images,), out, formats=frozenset({"csv", "report"}), cases=cases))
    return out


def draw(browser: Any, url: str, file: Path, size: tuple[int, int], keys: Sequence[str]) -> None:
    """Open a page, press keys, and write what is on the screen."""
    page = browser.new_page(viewport={"width": size[0], "height": size[1]})
    page.goto(url)
    page.wait_for_timeout(1500)
    page.fill("#reviewer", "Dr Example")
    page.locator("#reviewer").blur()
    for key in keys:
        page.keyboard.press(key)
        page.wait_for_timeout(600)
    page.wait_for_timeout(1000)
    page.screenshot(path=file, type="jpeg", quality=82)
    page.close()


def main() -> None:
    """Draw the pictures."""
    from playwright.sync_api import sync_playwright

    with tempfile.TemporaryDirectory() as name, sync_playwright() as playwright:
        out = make_results(Path(name))
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox", "--disable-dev-shm-usage"]
        )
        case = (out / "report" / f"{file_stem(SAMPLE)}.html").as_uri()
        draw(browser, (out / "report.html").as_uri(), ROOT / "docs/review_worklist.jpg", (1366, 768), [])
        draw(browser, case, ROOT / "docs/review_case.jpg", (1366, 768), ["n", "z", "a"])
        draw(browser, case, ROOT / "docs/review_portrait.jpg", (2048, 2560), ["n"])
        browser.close()


if __name__ == "__main__":
    main()
