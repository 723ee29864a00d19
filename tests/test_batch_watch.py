"""Watching a folder: what is complete is taken, what is being written waits, and a stop ends in good order."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from detector.batch import Job, Progress, run_batch
from detector.batch.watch import watch
from tests.test_batch import Here, table, tables
from tests.test_cli import make_images, run_here, start, until

EVERY_S = 0.05


def look(folder: Path, then: Callable[[int, list[str]], bool]) -> list[list[str]]:
    """Watch a folder; hand what is at rest to `then`, which says whether to go on."""
    seen: list[list[str]] = []
    ended: list[bool] = []
    for found in watch([folder], folder / "out", EVERY_S, lambda: bool(ended)):
        seen.append([f.shown for f in found])
        if not then(len(seen), seen[-1]):
            ended.append(True)
    return seen


def test_a_file_is_handed_out_when_it_grows_no_more(tmp_path: Path) -> None:
    (tmp_path / "whole").write_text("x")
    growing = (tmp_path / "growing").open("w")
    turns = 0

    def grow() -> bool:
        nonlocal turns
        turns += 1
        if turns < 30:
            growing.write("x")
            growing.flush()
        return turns > 200

    looks: Iterator[list[str]] = ([f.shown for f in found] for found in watch([tmp_path], tmp_path / "o", 0.1, grow))
    assert next(looks) == ["whole"]
    assert next(looks) == ["growing", "whole"]
    assert turns >= 30
    growing.close()


def test_nothing_new_is_not_handed_out_again_and_what_changes_is(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("x")

    def then(number: int, _: list[str]) -> bool:
        if number == 1:
            (tmp_path / "b").write_text("x")
        if number == 2:
            (tmp_path / "a").write_text("xx")
        return number < 3

    assert look(tmp_path, then) == [["a"], ["a", "b"], ["a", "b"]]


def test_a_folder_that_is_away_for_a_while_is_awaited(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in/a").write_text("x")

    def then(number: int, _: list[str]) -> bool:
        if number == 1:
            shutil.rmtree(tmp_path / "in")
            time.sleep(3 * EVERY_S)
            (tmp_path / "in").mkdir()
            (tmp_path / "in/b").write_text("x")
        return number < 2

    assert look(tmp_path / "in", then) == [["a"], ["b"]]


def test_a_stop_at_once_still_tells_what_is_there(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("x")
    assert [[f.shown for f in found] for found in watch([tmp_path], tmp_path / "o", 9.0, lambda: True)] == [["a"]]


def test_a_watch_takes_what_comes_and_keeps_what_it_has_done(tmp_path: Path) -> None:
    sources, inputs, out = make_images(tmp_path / "from", 3), tmp_path / "in", tmp_path / "out"
    inputs.mkdir()
    shutil.copy(sources / "0.dcm", inputs)
    (inputs / "1.dcm").write_bytes((sources / "1.dcm").read_bytes()[:-9])
    heard: list[str] = []

    def hear(progress: Progress) -> None:
        if progress.path:
            heard.append(f"{progress.status} {progress.path}")
        if len(heard) == 2 and progress.path:  # the sender has cleaned up, and sends anew
            (inputs / "0.dcm").unlink()
            shutil.copy(sources / "1.dcm", inputs)
            shutil.copy(sources / "2.dcm", inputs)

    here = Here()
    job = Job((inputs,), out, watch_s=EVERY_S)
    summary = run_batch(job, hear, lambda: len(heard) >= 4, runner=here)
    assert heard == ["analysed 0.dcm", "failed 1.dcm", "analysed 1.dcm", "analysed 2.dcm"]
    assert summary.stopped
    run_here(sources, tmp_path / "here")
    assert tables(out) == tables(tmp_path / "here")


def test_what_fails_is_not_tried_at_every_look(tmp_path: Path) -> None:
    inputs = make_images(tmp_path / "in", 2)
    (inputs / "0.dcm").write_bytes(b"II*\0")
    heard: list[str] = []

    def hear(progress: Progress) -> None:
        if progress.path:
            heard.append(progress.path)
            if len(heard) == 2:
                (inputs / "3.dcm").write_bytes((inputs / "0.dcm").read_bytes())

    run_batch(Job((inputs,), tmp_path / "out", watch_s=EVERY_S), hear, lambda: len(heard) >= 3, runner=Here())
    assert heard == ["0.dcm", "1.dcm", "3.dcm"]
    assert len(table(tmp_path / "out/errors.csv")) == 2


@pytest.mark.skipif(sys.platform != "linux", reason="finds the workers in /proc")
def test_the_command_watches_until_it_is_told_to_stop(tmp_path: Path) -> None:
    inputs, out = make_images(tmp_path / "in", 1), tmp_path / "out"
    end = start("run", inputs, "--out", out, "--workers", 1, "--watch")
    until(lambda: (out / "images.csv").exists() and "0.dcm" in (out / "images.csv").read_text(), end)
    os.kill(end.pid, signal.SIGTERM)
    said, errors = end.communicate()
    assert (end.returncode, "Traceback" in errors) == (143, False)
    assert "1 analysed" in said
    assert json.loads((out / "manifest.json").read_text())["finished"] is False
