"""Runs the notebooks from a clean start and writes them anew with what they show.

They are kept with their outputs, so that they can be read where nothing runs; this script keeps these up to date.
``--pictures DIR`` also writes every picture to a folder, to be looked at; ``--time`` measures how long lesson 2 takes
to answer a slider, and writes that to BENCHMARKS.md.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import os
import re
import statistics
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import nbclient
import nbformat

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = ROOT / "notebooks"
TIMEOUT_S = 120
N_MOVES = 20

WIDGET = "application/vnd.jupyter.widget-view+json"

KERNEL = """
c.IPKernelApp.log_level = "CRITICAL"
c.HistoryManager.enabled = False
c.InlineBackend.figure_formats = {"jpeg"}
c.InlineBackend.print_figure_kwargs = {"bbox_inches": None, "pil_kwargs": {"quality": 85, "optimize": True}}
"""
"""JPEG, since noise fills a PNG; the whole figure, since its layout is made for its size; no warnings of the kernel."""

PRIVATE = re.compile(
    r"(?<![\w<])/(?:home|root|tmp|work|usr|opt|var|Users|private)/|[A-Z]:\\\\|\bat 0x[0-9a-f]{6,}"
    r"|\b\d{4}-\d\d-\d\d[T ]\d\d:\d\d|\b\d\d:\d\d:\d\d\b"
)
"""Paths of a machine, addresses in memory and time stamps: no two runs share them, and they are nobody's business."""

MOVES = """
import time
sliders
_seconds = []
for _move in range({n}):
    _start = time.perf_counter()
    sliders.children[0].value = 3.0 + 0.2 * (_move + 1)
    _seconds.append(time.perf_counter() - _start)
print(*_seconds)
"""


def notebooks() -> list[Path]:
    """Return the notebooks in the order of the lessons."""
    return sorted(NOTEBOOKS.glob("[0-9][0-9]_*.ipynb"))


def load(path: Path) -> Any:
    """Return a notebook without what it showed."""
    notebook = nbformat.read(path, as_version=4)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    return notebook


def execute(notebook: Any, more: str = "") -> Any:
    """Run a notebook in a fresh kernel that knows nothing of the user's own settings, and return it with its outputs.

    Parameters
    ----------
    notebook : notebook
        Changed.
    more : str
        Code of a cell that is added at the end.

    Raises
    ------
    nbclient.exceptions.CellExecutionError
        If a cell fails.
    """
    if more:
        notebook.cells.append(nbformat.v4.new_code_cell(more, id="more"))
    with tempfile.TemporaryDirectory() as folder:
        profile = Path(folder) / "profile_default"
        profile.mkdir()
        (profile / "ipython_kernel_config.py").write_text(KERNEL)
        own = {"IPYTHONDIR": folder, "PYTHONPATH": str(ROOT), "MPLBACKEND": "module://matplotlib_inline.backend_inline"}
        client = nbclient.NotebookClient(
            notebook,
            timeout=TIMEOUT_S,
            kernel_name="python3",
            record_timing=False,
            resources={"metadata": {"path": str(NOTEBOOKS)}},
        )
        client.execute(env=os.environ | own)
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        # a slider is not alive in a file, and its state is named anew in every run
        if "outputs" in cell:
            cell.outputs = [o for o in cell.outputs if WIDGET not in o.get("data", {})]
        for output in cell.get("outputs", ()):
            if "image/jpeg" in output.get("data", {}):
                output.data.pop("image/png", None)  # Pillow gives both
    notebook.metadata.pop("widgets", None)
    notebook.metadata.language_info = {"name": "python"}
    return notebook


def source_hash(notebook: Any) -> str:
    """Return a hash of the code, by which a test knows that the outputs are those of the code as it stands."""
    code = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "code")
    return hashlib.sha256(code.encode()).hexdigest()[:16]


def save(notebook: Any, path: Path) -> None:
    """Write an executed notebook, with the hash of its code."""
    notebook.metadata["executed"] = source_hash(notebook)
    nbformat.validate(notebook)
    path.write_text(nbformat.writes(notebook, indent=1) + "\n", "utf-8")


def outputs(notebook: Any) -> Iterator[tuple[Any, Any]]:
    """Yield each cell of code with each of its outputs."""
    for cell in notebook.cells:
        for output in cell.get("outputs", ()):
            yield cell, output


def text_of(output: Any) -> str:
    """Return all that an output shows as text, embedded pictures left out."""
    data = output.get("data", {})
    parts = [output.get("text", ""), *(value for kind, value in data.items() if kind.startswith("text/"))]
    return re.sub(r"data:image/[a-z]+;base64,[\w+/=]+", "", "\n".join(map(str, parts)))


def pictures(notebook: Any) -> Iterator[tuple[str, str, bytes]]:
    """Yield the pictures of a notebook: the tag of their cell (else its id), the file's ending, the bytes."""
    for cell, output in outputs(notebook):
        name = next(iter(cell.metadata.get("tags", ())), cell.id)
        for kind, value in output.get("data", {}).items():
            if kind in ("image/jpeg", "image/png"):
                yield name, {"image/jpeg": "jpg", "image/png": "png"}[kind], base64.b64decode(value)
            elif kind == "text/html":
                for found in re.finditer(r"data:image/(jpeg|png);base64,([\w+/=]+)", value):
                    yield name, {"jpeg": "jpg", "png": "png"}[found[1]], base64.b64decode(found[2])


def slider_seconds(n_moves: int = N_MOVES) -> list[float]:
    """Return how long lesson 2 takes to answer each move of a slider: reading the part anew, and drawing it."""
    notebook = execute(load(NOTEBOOKS / "02_settings.ipynb"), MOVES.format(n=n_moves))
    printed = "".join(o.text for o in notebook.cells[-1].outputs if o.output_type == "stream" and o.name == "stdout")
    return [float(word) for word in printed.split()[-n_moves:]]


def write_times(seconds: Sequence[float]) -> None:
    """Put the times into BENCHMARKS.md, between marks that its own script keeps."""
    start, end = "<!-- notebooks -->", "<!-- end of notebooks -->"
    path = ROOT / "BENCHMARKS.md"
    before, _, rest = path.read_text("utf-8").partition(start)
    after = rest.partition(end)[2]
    rows = (
        "| a move of a slider in lesson 2 (a part of 448 x 448 pixels is read anew and drawn) | ms |\n|---|---|\n"
        f"| median of {len(seconds)} | {1000 * statistics.median(seconds):.0f} |\n"
        f"| longest, to be under 500 | {1000 * max(seconds):.0f} |"
    )
    path.write_text(f"{before.rstrip()}\n\n{start}\n{rows}\n{end}\n{after.lstrip()}", "utf-8")


def main() -> None:
    """Run and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help="how the names of some begin, such as 02; default: all"
    )
    parser.add_argument("--pictures", type=Path, metavar="DIR", help="write every picture to a folder as well")
    parser.add_argument("--time", action="store_true", help="measure the sliders and write BENCHMARKS.md")
    arguments = parser.parse_args()
    for path in notebooks():
        if arguments.names and not path.name.startswith(tuple(arguments.names)):
            continue
        notebook = execute(load(path))
        save(notebook, path)
        print(f"{path.name}: {path.stat().st_size / 1e6:.2f} MB")
        if arguments.pictures:
            arguments.pictures.mkdir(parents=True, exist_ok=True)
            for i, (name, ending, data) in enumerate(pictures(notebook)):
                (arguments.pictures / f"{path.stem}_{i:02d}_{name}.{ending}").write_bytes(data)
    if arguments.time:
        write_times(slider_seconds())


if __name__ == "__main__":
    main()
