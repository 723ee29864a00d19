"""The notebooks run from a clean start, show pictures, keep nobody's machine, and are kept as they run."""

import ast
import re
from pathlib import Path
from typing import Any

import cv2
import nbformat
import numpy as np
import pytest

from scripts import notebooks

ROOT = Path(__file__).parents[1]
LESSONS = notebooks.notebooks()
ROOMS = ("read", "breast", "enhance", "detect", "measure", "classify", "cluster", "assess")

MOVED = """
assert max(part.box.shape) <= 512  # a part that is small enough to be moved by hand
find_breast = enhance_detail = None  # a move does neither again
found = []
for value in (4.0, 9.0, 3.6):
    sliders.children[0].value = value
    found.append(len(sliders.result[0].seeds))
assert found[0] > found[1] < found[2], found
members = []
for value in (0.02, 1.0):
    sliders.children[1].value = value
    members.append(int(sliders.result[2].n_spots.sum()))
assert members[0] > members[1], members
sliders.children[1].value = 0.02
sliders.children[2].value = "grouped"
assert sliders.result[2].n_spots.min(initial=99) >= 5
print("moved")
"""
"""What a user does with the sliders of lesson 2, and what must come of it."""


def kept(path: Path) -> Any:
    return nbformat.read(path, as_version=4)


def check_what_is_shown(notebook: Any) -> None:
    """Fail on errors, warnings, and what belongs to a machine or a moment."""
    for cell, output in notebooks.outputs(notebook):
        assert output.output_type != "error", cell.source
        assert output.get("name") != "stderr", output.text
        shown = notebooks.text_of(output)
        assert not notebooks.PRIVATE.search(shown), shown
    for _, _, data in notebooks.pictures(notebook):
        picture = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_GRAYSCALE)
        assert picture is not None
        assert picture.std() > 10  # something is drawn
        assert max(picture.shape) <= 1200


def test_there_are_four_lessons() -> None:
    assert [path.stem for path in LESSONS] == ["01_one_mammogram", "02_settings", "03_batch", "04_accuracy"]


@pytest.mark.parametrize("path", LESSONS, ids=lambda path: path.stem)
def test_the_notebook_runs_from_a_clean_start(path: Path) -> None:
    more = MOVED if path.stem.startswith("02") else ""
    notebook = notebooks.execute(notebooks.load(path), more)
    check_what_is_shown(notebook)
    if more:
        assert notebook.cells.pop().outputs[0].text == "moved\n"
    for old, new in zip(kept(path).cells, notebook.cells, strict=True):
        assert [o.output_type for o in old.get("outputs", ())] == [o.output_type for o in new.get("outputs", ())]


@pytest.mark.parametrize("path", LESSONS, ids=lambda path: path.stem)
def test_the_notebook_is_kept_as_it_ran(path: Path) -> None:
    notebook = kept(path)
    nbformat.validate(notebook)
    assert notebook.metadata["executed"] == notebooks.source_hash(notebook), "code has changed: run scripts/notebooks"
    assert notebook.metadata.kernelspec.name == "python3"
    assert "widgets" not in notebook.metadata
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    check_what_is_shown(notebook)
    assert len(list(notebooks.pictures(notebook))) >= 2
    assert path.stat().st_size < 1e6


@pytest.mark.parametrize("path", LESSONS, ids=lambda path: path.stem)
def test_the_notebook_reads_as_a_lesson(path: Path) -> None:
    cells = kept(path).cells
    assert cells[0].cell_type == "markdown"
    assert cells[0].source.startswith(f"# {int(path.stem[:2])}. ")
    # words before every step, and none that nobody reads to the end
    runs = re.findall("c+", "".join(cell.cell_type[0] for cell in cells))
    assert max(map(len, runs)) <= 3
    assert all(len(cell.source.split()) < 150 for cell in cells if cell.cell_type == "markdown")
    for name in re.findall(r"\]\(([\w.]+\.ipynb)\)", "".join(cell.source for cell in cells)):
        assert (path.parent / name).is_file()
    for cell in cells:
        if cell.cell_type == "code":
            ast.parse(cell.source)


def test_the_first_lesson_stops_in_every_room() -> None:
    tags = [tag for cell in kept(LESSONS[0]).cells for tag in cell.metadata.get("tags", ())]
    assert [tag for tag in tags if tag.startswith("room-")] == [f"room-{room}" for room in ROOMS]
    shown = {name for name, _, _ in notebooks.pictures(kept(LESSONS[0]))}
    assert {f"room-{room}" for room in ROOMS[:-1]} <= shown  # the last room's is a table of reasons


@pytest.mark.parametrize(
    "text",
    ["in /home/anna/x.py", "/tmp/abc/", "C:\\\\Users", "<Axes at 0x7f00deadbeef>", "2026-01-02 10:11", "at 10:11:12"],
)
def test_what_belongs_to_a_machine_or_a_moment_is_seen(text: str) -> None:
    output = nbformat.v4.new_output("stream", text=text)
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("", outputs=[output])])
    with pytest.raises(AssertionError):
        check_what_is_shown(notebook)
