"""Draws the pictures of README.md and rewrites those parts of it that are known from elsewhere.

A generated part stands between ``<!-- NAME -->`` and ``<!-- end of NAME -->``. ``--time`` also runs the first two
commands of README.md in a fresh clone, with empty caches, and writes down how long they took.
"""

from __future__ import annotations

import argparse
import dataclasses
import enum
import os
import platform
import re
import subprocess
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from PIL import Image

import detector
from detector.evaluate.datasets import DATASETS
from detector.export import tables
from detector.export.pictures import draw_crops
from detector.records import WORDS, Column, words_of_flags
from detector.settings import ClusterSettings
from scripts.bench import processor

ROOT = Path(__file__).resolve().parents[1]
PHANTOM = ROOT / "sample_data" / "LCC.dcm"
QUALITY = 88


# --------------------------------------------------------------------------------------------------------------
# parts that are made of code and of other papers


def column_table(columns: Sequence[Column]) -> str:
    """Return name, unit (if any has one) and meaning of each column, as a Markdown table."""
    if not any(c.unit for c in columns):
        return markdown(["column", "meaning"], [(f"`{c.name}`", meaning(c)) for c in columns])
    return markdown(["column", "unit", "meaning"], [(f"`{c.name}`", unit(c), meaning(c)) for c in columns])


def markdown(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table."""
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows))


def unit(column: Column) -> str:
    """Return the unit as it is written in text."""
    return {"sigma": "noise sigmas", "mm2": "mm²", "cm2": "cm²", "1/cm2": "1/cm²"}.get(column.unit, column.unit)


def meaning(column: Column) -> str:
    """Return what a column says, and which words it takes if its meaning does not name them."""
    words = words_of(column)
    listed = "" if all(word in column.meaning for word in words) else ": " + ", ".join(words)
    return (column.meaning + listed).replace("|", "\\|")


def words_of(column: Column) -> list[str]:
    """Return the words that a coded column takes."""
    if column.codes is None:
        return []
    if issubclass(column.codes, enum.IntFlag):
        return [words_of_flags(flag) for flag in column.codes]
    return [word for word in WORDS[column.codes].values() if word]


def operating_points() -> str:
    """Return from which confidence a spot counts at each operating point, and what that means, as a Markdown table."""
    knobs = {f.name: f for f in dataclasses.fields(ClusterSettings)}
    rows = []
    for point in knobs["operating_point"].metadata["allowed"]:
        knob = knobs[f"{point}_confidence"]
        default = " (default)" if point == knobs["operating_point"].default else ""
        rows.append((f"`{point}`{default}", f"{knob.default:g}", knob.metadata["source"].replace("cm2", "cm²")))
    return markdown(["`--operating-point`", "a spot counts from a confidence of", "as measured"], rows)


def data_sets() -> str:
    """Return the data sets that are read, with licence and what to cite, as a Markdown table."""
    rows = [(s.title, s.licence, s.citation) for s in DATASETS.values() if s.citation]
    return markdown(["data set", "licence", "cite"], rows)


def speed(root: Path) -> str:
    """Return the main number of BENCHMARKS.md."""
    text = (root / "BENCHMARKS.md").read_text("utf-8")
    machine = found(r"^Machine: (.*)\.$", text)
    shape = found(r"^Image: phantom of (.*?),", text)
    seconds = float(found(r"^\| `detector\.analyse` \| ([\d.]+) \|", text))
    ratio = float(found(r"\*\*ratio\*\*.*\*\*([\d.]+)\*\*", text))
    around = {name: float(ms) for name, ms in re.findall(r"^\| (read|draw|encode)[^|]* \| ([\d.]+) \|", text, re.M)}
    whole = seconds + sum(around.values()) / 1000
    memory = ", ".join(f"{mb} MB for {size}" for size, mb in re.findall(r"^\| (\d+ x \d+) \| (\d+) \|$", text, re.M))
    return (
        f"A phantom of {shape} is analysed in {seconds:.2g} s, {ratio:.1f} times as fast as scikit-image's `blob_dog` "
        f"looks for blobs alone; with reading and pictures it takes about {whole:.2g} s. "
        f"Memory of a worker: {memory or 'not measured'} pixels. {machine}; more in [BENCHMARKS.md](BENCHMARKS.md)."
    )


def accuracy(root: Path) -> str:
    """Return of ACCURACY.md the share of single calcifications found, for those kinds of images that it tells of."""
    text = (root / "ACCURACY.md").read_text("utf-8")
    measured = []
    for name, title in (("film", "Scanned films"), ("digital", "Digital images")):
        block = found(rf"<!-- {name} -->\n((?:.*\n)*?)<!-- end of {name} -->", text)
        if table := re.search(r"(?:^\|.*\n)+", block, re.MULTILINE):
            measured.append(f"{title}:\n\n{table[0].strip()}")
    head = (
        "Share of single calcifications found at a given number of false spots per cm² of breast; calcifications were "
        "put into real images. More, and how it was measured: [ACCURACY.md](ACCURACY.md)."
    )
    return "\n\n".join([head, *measured]) if measured else ""


def found(pattern: str, text: str) -> str:
    """Return the first group of a pattern that must be there."""
    match = re.search(pattern, text, re.MULTILINE)
    if match is None:
        raise SystemExit(f"scripts/readme: {pattern} was not found")
    return match[1]


def parts(root: Path = ROOT) -> dict[str, str]:
    """Return the generated parts of README.md by name; those of a paper that is not there yet are left as they are."""
    made = {
        "images.csv": column_table(tables.IMAGE_COLUMNS),
        "spots.csv": column_table(tables.SPOT_COLUMNS),
        "clusters.csv": column_table(tables.CLUSTER_COLUMNS),
        "errors.csv": column_table(tables.ERROR_COLUMNS),
        "skipped.csv": column_table(tables.SKIPPED_COLUMNS),
        "timings.csv": column_table(tables.TIMING_COLUMNS),
        "operating points": operating_points(),
        "data sets": data_sets(),
    }
    if (root / "BENCHMARKS.md").is_file():
        made["speed"] = speed(root)
    if (root / "ACCURACY.md").is_file() and (content := accuracy(root)):
        made["accuracy"] = content
    return made


def put(text: str, name: str, content: str) -> str:
    """Return the text with the content put between the marks of a part.

    Raises
    ------
    SystemExit
        If the text has no such part.
    """
    start, end = f"<!-- {name} -->", f"<!-- end of {name} -->"
    before, mark, rest = text.partition(start)
    _, closed, after = rest.partition(end)
    if not (mark and closed):
        raise SystemExit(f"scripts/readme: README.md has no part {start} ... {end}")
    return f"{before}{start}\n{content}\n{end}{after}"


# --------------------------------------------------------------------------------------------------------------
# pictures


def draw(folder: Path) -> None:
    """Draw the overlay of the sample with the suspicious cluster, and that cluster magnified."""
    mammogram = detector.read_mammogram(PHANTOM)
    reading = detector.analyse(mammogram)
    flagged = reading.clusters.cluster_id[reading.clusters.review]
    crops = dict(draw_crops(mammogram, reading))
    folder.mkdir(exist_ok=True)
    pictures = {"overlay.jpg": detector.draw_overlay(mammogram, reading), "crop.jpg": crops[int(flagged[0])]}
    for name, picture in pictures.items():
        Image.fromarray(picture).save(folder / name, quality=QUALITY, optimize=True)


# --------------------------------------------------------------------------------------------------------------
# times


def duration(seconds: float) -> str:
    """Return seconds in words, to two digits or so."""
    return f"{seconds:.2g} s" if seconds < 10 else f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.0f} min"


def commands(text: str) -> list[str]:
    """Return the lines of the first block of commands in README.md."""
    return found(r"^```sh\n((?:.*\n)+?)```", text).splitlines()


def run(command: str, folder: Path, env: Mapping[str, str]) -> float:
    """Run a command as it is printed and return how many seconds it took.

    Raises
    ------
    SystemExit
        If it fails.
    """
    start = time.perf_counter()
    if status := subprocess.run(["sh", "-c", command], cwd=folder, env=env, check=False).returncode:
        raise SystemExit(f"scripts/readme: {command} ended with status {status}")
    return time.perf_counter() - start


def time_commands(text: str) -> str:
    """Return how long the first two commands take in a fresh clone of what is committed."""
    detect, test = commands(text)
    with tempfile.TemporaryDirectory() as folder:
        clone = Path(folder) / "clone"
        subprocess.run(["git", "clone", "--quiet", ROOT, clone], check=True)
        env = {**os.environ, "PIP_CACHE_DIR": str(Path(folder) / "pip")}
        first, again, tests = (run(command, clone, env) for command in (detect, f"{detect} --fresh", test))
    return times(first, again, tests)


def times(first: float, again: float, tests: float) -> str:
    """Return how many seconds the first command took, and took again, and the second, as a sentence."""
    return (
        f"In a fresh clone, with all downloads, the first took {duration(first)} ({duration(again)} the next time) and "
        f"the second {duration(tests)}, on {machine()}."
    )


def machine() -> str:
    """Return what this machine is."""
    system = platform.freedesktop_os_release()["PRETTY_NAME"] if platform.system() == "Linux" else platform.platform()
    return f"{os.cpu_count()} cores ({processor()}, {system}, Python {platform.python_version()})"


def main() -> None:
    """Draw and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--time", action="store_true", help="also time the two commands; takes long")
    arguments = parser.parse_args()
    readme = ROOT / "README.md"
    draw(ROOT / "docs")
    text = readme.read_text("utf-8")
    for name, content in parts().items():
        text = put(text, name, content)
    if arguments.time:
        text = put(text, "times", time_commands(text))
    readme.write_text(text, "utf-8")


if __name__ == "__main__":
    main()
