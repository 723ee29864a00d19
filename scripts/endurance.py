"""Measures long runs, and runs of several workers, and writes their parts of BENCHMARKS.md.

    scripts/endurance [--only memory|workers|cluster] [--images 2000] [--repeats 3] [--output BENCHMARKS.md]

memory     small phantoms by two workers: memory and time of the first hundred against the last hundred
workers    64 phantoms of mixed size: two workers against one
cluster    the same by two dask workers against two local processes

What is compared runs in turn, so that a machine that is busy meanwhile slows both alike. Linux.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

os.environ.update(dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1"))

from detector.evaluate.phantoms import make_phantom
from detector.evaluate.recipes import Recipe
from detector.export.phantoms import write_dicom
from scripts.bench import processor
from scripts.readme import put

ROOT = Path(__file__).resolve().parents[1]
SMALL = Recipe(rows=480, cols=384, spacing_mm=0.2)
MIXED = (
    Recipe(rows=1024, cols=832, spacing_mm=0.28),
    Recipe(rows=2048, cols=1664, spacing_mm=0.14),
    Recipe(rows=3072, cols=2496, spacing_mm=0.093),
    Recipe(rows=4096, cols=3328, spacing_mm=0.07),
)
HEADINGS: Mapping[str, str] = {
    "memory": "**A long run**",
    "workers": "**Two workers**",
    "cluster": "**A cluster**",
}
_SEEDS = 100
_HUNDRED = 100
_TICKS = os.sysconf("SC_CLK_TCK")
_EVERY_S = 0.2


def make_images(folder: Path, recipes: tuple[Recipe, ...], number: int, seeds: int) -> Path:
    """Write phantoms; those of one seed differ in their patient and their UIDs alone."""
    folder.mkdir()
    for seed in range(seeds):
        mammogram, _ = make_phantom(seed + 1, recipes[seed % len(recipes)])
        for case in range(seed, number, seeds):
            write_dicom(folder / f"{case:06}.dcm", mammogram, case=case + 1)
    return folder


def start(inputs: Path, out: Path, *options: str) -> subprocess.Popen[bytes]:
    """Start a run."""
    command = [sys.executable, "-c", "from detector.cli import main; main()", "run", str(inputs), "--out", str(out)]
    return subprocess.Popen([*command, "--quiet", *options], cwd=ROOT)


def seconds(inputs: Path, out: Path, *options: str) -> float:
    """Return how long a run takes."""
    begun = time.perf_counter()
    if start(inputs, out, *options).wait():
        raise SystemExit("scripts/endurance: a run failed")
    return time.perf_counter() - begun


# --------------------------------------------------------------------------------------------------------------
# memory


@dataclass
class Samples:
    """What was seen of one process while so many images were done: memory in MB, processor time in seconds."""

    done: list[int] = field(default_factory=list)
    megabytes: list[float] = field(default_factory=list)
    cpu_s: list[float] = field(default_factory=list)

    def memory(self, first: int, last: int) -> float:
        """Return the mean memory from one number of images to another."""
        return statistics.mean(m for d, m in zip(self.done, self.megabytes, strict=True) if first <= d <= last)

    def cpu(self, first: int, last: int) -> float:
        """Return the processor time of a hundred images, seen from one number of images to another."""
        seen = [(d, c) for d, c in zip(self.done, self.cpu_s, strict=True) if first <= d <= last]
        return _HUNDRED * (seen[-1][1] - seen[0][1]) / (seen[-1][0] - seen[0][0])


def watch(run: subprocess.Popen[bytes], log: Path) -> dict[str, Samples]:
    """Return the samples of the parent and of each worker, by name, until a run ends."""
    seen: dict[int, Samples] = {}
    names = {run.pid: "parent"}
    while run.poll() is None:
        done = log.read_text("utf-8").count(" analysed ") if log.exists() else 0
        for pid in (run.pid, *_workers(run.pid)):
            names.setdefault(pid, f"worker {len(names)}")
            with contextlib.suppress(OSError):
                megabytes, cpu_s = _memory_mb(pid), _cpu_s(pid)
                samples = seen.setdefault(pid, Samples())
                samples.done.append(done)
                samples.megabytes.append(megabytes)
                samples.cpu_s.append(cpu_s)
        time.sleep(_EVERY_S)
    return {names[pid]: samples for pid, samples in seen.items()}


def _workers(pid: int) -> Iterator[int]:
    with contextlib.suppress(OSError):
        for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
            with contextlib.suppress(OSError):
                if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes():
                    yield int(child)


def _memory_mb(pid: int) -> float:
    """Return what a process holds alone, not counting the code of libraries: private pages."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Private_")) / 1024


def _cpu_s(pid: int) -> float:
    words = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(words[11]) + int(words[12])) / _TICKS


def measure_memory(folder: Path, images: int) -> str:
    """Return a table of memory and time over a long run."""
    inputs = make_images(folder / "small", (SMALL,), images, min(_SEEDS, images))
    log = folder / "run.log"
    seen = watch(start(inputs, folder / "out", "--workers", "2", "--log-file", str(log)), log)
    parent, workers = seen["parent"], [samples for name, samples in seen.items() if name != "parent"]
    whole = [w for w in workers if w.done[-1] >= images - _HUNDRED and w.done[0] < _HUNDRED]
    spans = ((1, _HUNDRED), (images - _HUNDRED, images - 1))
    rows = [
        ("memory of the parent, MB", [parent.memory(*span) for span in spans]),
        *((f"memory of worker {n}, MB", [w.memory(*span) for span in spans]) for n, w in enumerate(whole, 1)),
        ("processor time of the parent for a hundred images, s", [parent.cpu(*span) for span in spans]),
        ("processor time of the workers for a hundred images, s", [sum(w.cpu(*s) for w in whole) for s in spans]),
    ]
    return "\n".join(
        [
            f"{images:,} phantoms of {SMALL.rows} x {SMALL.cols} pixels, two workers, all default formats. {machine()}",
            "",
            "| | first hundred | last hundred | change |",
            "|---|---|---|---|",
            *(f"| {name} | {a:.1f} | {b:.1f} | {b / a - 1:+.1%} |" for name, (a, b) in rows),
        ]
    )


# --------------------------------------------------------------------------------------------------------------
# several workers


def compare(
    folder: Path, repeats: int, one: Callable[[Path], float], other: Callable[[Path], float]
) -> list[list[float]]:
    """Return the seconds of two ways to run, in turn; each takes the folder of its results."""
    times: list[list[float]] = [[], []]
    for repeat in range(repeats):
        for way, run in enumerate((one, other)):
            times[way].append(run(folder / f"out-{way}-{repeat}"))
    return times


def table(names: tuple[str, str], times: list[list[float]], ratio: str, ratios: list[float]) -> str:
    """Return a table of two ways, medians, and their ratio."""
    low, middle, high = min(ratios), statistics.median(ratios), max(ratios)
    return "\n".join(
        [
            "| | seconds |",
            "|---|---|",
            *(f"| {name} | {statistics.median(t):.1f} |" for name, t in zip(names, times, strict=True)),
            f"| {ratio} (least, median, greatest of {len(ratios)}) | {low:.2f}, **{middle:.2f}**, {high:.2f} |",
        ]
    )


def measure_workers(folder: Path, repeats: int) -> str:
    """Return a table of two workers against one."""
    inputs = make_images(folder / "mixed", MIXED, 64, 8)
    times = compare(
        folder,
        repeats,
        lambda out: seconds(inputs, out, "--workers", "1"),
        lambda out: seconds(inputs, out, "--workers", "2"),
    )
    ratios = [one / two for one, two in zip(*times, strict=True)]
    head = f"64 phantoms of {', '.join(f'{r.rows} x {r.cols}' for r in MIXED)} pixels, all default formats. {machine()}"
    return f"{head}\n\n{table(('one worker', 'two workers'), times, 'times as fast', ratios)}"


def measure_cluster(folder: Path, repeats: int) -> str:
    """Return a table of two dask workers against two local processes."""
    inputs = make_images(folder / "mixed", MIXED, 64, 8)
    with cluster(folder) as address:
        times = compare(
            folder,
            repeats,
            lambda out: seconds(inputs, out, "--workers", "2"),
            lambda out: seconds(inputs, out, "--cluster", address),
        )
    for name in ("images.csv", "spots.csv", "clusters.csv", "errors.csv", "skipped.csv"):
        if (folder / "out-0-0" / name).read_bytes() != (folder / "out-1-0" / name).read_bytes():
            raise SystemExit(f"scripts/endurance: {name} differs between the cluster and local processes")
    ratios = [dask / local for local, dask in zip(*times, strict=True)]
    words = ("two local processes", "two dask workers of one thread, a scheduler, all on this machine")
    text = table(words, times, "time of the second by the first", ratios)
    return f"The same 64 phantoms; tables equal to the byte. {machine()}\n\n{text}"


@contextlib.contextmanager
def cluster(folder: Path) -> Iterator[str]:
    """Start a scheduler and two workers, and yield the scheduler's address."""
    import json

    file = folder / "scheduler.json"
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "cwd": ROOT}
    dask = [sys.executable, "-m"]
    here = ["--host", "127.0.0.1", "--port", "0", "--no-dashboard", "--scheduler-file", str(file)]
    processes = [subprocess.Popen([*dask, "distributed.cli.dask_scheduler", *here], **quiet)]  # type: ignore[call-overload]
    try:
        while not file.exists():
            time.sleep(0.1)
        address: str = json.loads(file.read_text())["address"]
        worker = ["distributed.cli.dask_worker", address, "--nthreads", "1", "--no-dashboard"]
        for number in range(2):
            place = ["--local-directory", str(folder / f"dask-{number}")]
            processes.append(subprocess.Popen([*dask, *worker, *place], **quiet))  # type: ignore[call-overload]
        time.sleep(5)
        yield address
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            process.wait()


def machine() -> str:
    """Return on what it was measured, and how busy that was."""
    return f"{processor()}, {os.cpu_count()} CPUs, load {os.getloadavg()[0]:.1f} at the end."


def write(output: Path, name: str, content: str) -> None:
    """Put a part into the paper, at its end if it is not there yet."""
    text = output.read_text("utf-8") if output.exists() else ""
    if f"<!-- {name} -->" not in text:
        text = f"{text.rstrip()}\n\n<!-- {name} -->\n<!-- end of {name} -->\n"
    output.write_text(put(text, name, f"{HEADINGS[name]}, by `scripts/endurance`:\n\n{content}\n"), "utf-8")


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=("memory", "workers", "cluster"))
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--output", type=Path, default=ROOT / "BENCHMARKS.md")
    given = parser.parse_args()
    measures: Mapping[str, Callable[[Path], str]] = {
        "memory": lambda folder: measure_memory(folder, given.images),
        "workers": lambda folder: measure_workers(folder, given.repeats),
        "cluster": lambda folder: measure_cluster(folder, given.repeats),
    }
    for name, measure in measures.items():
        if given.only in (None, name):
            with tempfile.TemporaryDirectory() as place:
                content = measure(Path(place).resolve())
            write(given.output, name, content)
            print(content, flush=True)


if __name__ == "__main__":
    main()
