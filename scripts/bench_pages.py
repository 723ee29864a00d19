"""Measures the worklist over 10,000 cases in a real browser, and writes its section of BENCHMARKS.md.

``python -m scripts.bench_pages``. It needs playwright (pip) and chromium (Debian).
"""

from __future__ import annotations

import argparse
import csv
import platform
import re
import shutil
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from detector.batch import Job, run_batch
from detector.batch.cases import Cases, read_cases
from detector.batch.work import Plan
from detector.export.files import file_stem
from detector.settings import Settings

ROOT = Path(__file__).resolve().parents[1]
N_CASES = 10_000
SIZE = (1366, 768)
BEGIN, END = "<!-- review pages -->", "<!-- end of review pages -->"
_PAINTED = "await new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)));"
_TYPED = "byId('{0}').value = '{1}'; byId('{0}').dispatchEvent(new Event('input'));"
_ACTS = {
    "search for a reason, which finds all": _TYPED.format("search", "spots"),
    "search for a case number, which finds 1": _TYPED.format("search", "c09876"),
    "filter by side": _TYPED.format("side", "L"),
    "sort by case": "document.querySelector('#head .case button').click();",
    "scroll to the middle": "byId('table').scrollTop = byId('table').scrollHeight / 2;",
}


def make_list(folder: Path, n_cases: int) -> Path:
    """Leave in a folder the worklist that a run of so many cases would: one Reading with changed ids.

    Pages and thumbnails are links to those of the one.
    """
    sample = ROOT / "sample_data" / "LCC.dcm"
    run_batch(Job((sample,), folder, formats=frozenset({"csv", "report"})))
    (page,) = (folder / "report").glob("*.html")
    (thumbnail,) = (folder / "report" / "thumbnails").glob("*.jpg")
    for name in ("images", "clusters"):
        table = folder / f"{name}.csv"
        with table.open(encoding="utf-8", newline="") as handle:
            rows = list(csv.DictReader(handle))
        with table.open("w", encoding="utf-8", newline="") as handle:
            writer = csv.DictWriter(handle, list(rows[0]))
            writer.writeheader()
            for i in range(n_cases):
                ids = {
                    "image_id": f"2.25.{i}",
                    **({"case_id": f"c{i:05}", "study_uid": f"2.25.{i}"} if name == "images" else {}),
                }
                writer.writerows(row | ids for row in rows)
    cases = read_cases(folder)
    listed = Cases(Plan(folder, Settings()), None)
    for case_id in cases:
        stem = file_stem(case_id)
        (folder / "report" / f"{stem}.html").hardlink_to(page)
        (folder / "report" / "thumbnails" / f"{stem}.jpg").hardlink_to(thumbnail)
    start = time.perf_counter()
    listed.write_worklist(cases)
    print(f"written in {time.perf_counter() - start:.2f} s")
    return folder / "report.html"


def measure(page: Any, url: str, repeats: int) -> dict[str, float]:
    """Return times in ms: of the first paint and of what a reader does, each until it is painted."""
    paints, rows = [], []
    for _ in range(repeats):
        page.goto(url)
        page.wait_for_timeout(300)
        paints.append(page.evaluate("performance.getEntriesByName('first-contentful-paint')[0].startTime"))
        rows.append(page.evaluate("performance.getEntriesByName('rows')[0]?.startTime ?? NaN"))
    times = {"first paint": statistics.median(paints), "first rows made": statistics.median(rows)}
    for name, act in _ACTS.items():
        taken = []
        for _ in range(repeats):
            page.evaluate(f"async () => {{ byId('reset').click(); byId('table').scrollTop = 0; {_PAINTED} }}")
            script = (
                f"async () => {{ const start = performance.now(); {act} {_PAINTED} return performance.now() - start; }}"
            )
            taken.append(page.evaluate(script))
        times[name] = statistics.median(taken)
    return times


def section(size_mb: float, version: str, times: dict[str, float], repeats: int) -> str:
    """Return the section of BENCHMARKS.md."""
    lines = [
        BEGIN,
        "## Review pages",
        "",
        f"Written by `python -m scripts.bench_pages`. Worklist over {N_CASES:,} cases, opened from disk in Chromium "
        f"{version} without a window or GPU, {SIZE[0]} x {SIZE[1]}, {_processor()}. Medians of {repeats}; what a reader"
        " does is timed until it is painted, so that one frame of 16.7 ms is the least.",
        "",
        "| worklist over 10,000 cases | |",
        "|---|---|",
        f"| size of the page | {size_mb:.1f} MB |",
        *(f"| {name} | {ms:.0f} ms |" for name, ms in times.items()),
        END,
    ]
    return "\n".join(lines)


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def put(text: str, own: str) -> str:
    """Return BENCHMARKS.md with this section in the place of the old one, or at its end."""
    old = re.compile(rf"{re.escape(BEGIN)}.*{re.escape(END)}", re.DOTALL)
    return old.sub(lambda _: own, text) if old.search(text) else f"{text.rstrip()}\n\n{own}\n"


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--output", type=Path, default=ROOT / "BENCHMARKS.md")
    chosen = parser.parse_args(arguments)
    from playwright.sync_api import sync_playwright

    with tempfile.TemporaryDirectory() as name, sync_playwright() as playwright:
        worklist = make_list(Path(name) / "results", N_CASES)
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox", "--disable-dev-shm-usage"]
        )
        page = browser.new_page(viewport={"width": SIZE[0], "height": SIZE[1]})
        times = measure(page, worklist.as_uri(), chosen.repeats)
        own = section(worklist.stat().st_size / 1e6, browser.version, times, chosen.repeats)
        browser.close()
    text = chosen.output.read_text("utf-8") if chosen.output.is_file() else "# Benchmarks\n"
    chosen.output.write_text(put(text, own), "utf-8")
    print(own)


if __name__ == "__main__":
    main()
