"""The short form of scripts/faults: runs that are killed, stopped or starved lose nothing."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def faults(*options: object) -> str:
    command = [sys.executable, "scripts/faults.py", *map(str, options)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.skipif(sys.platform != "linux", reason="finds the workers in /proc")
def test_nothing_is_lost_by_a_few_faults() -> None:
    said = faults("--images", 2, "--kills", 1, "--steps", 60)
    assert said.endswith("Nothing was lost.\n")
    for part, number in (("parent", 1), ("worker", 1), ("stop", 1), ("full", 1), ("twice", 1), ("steps", 3)):
        assert f"{part} {number}: nothing lost" in said


@pytest.mark.long
@pytest.mark.skipif(sys.platform != "linux", reason="finds the workers in /proc")
def test_nothing_is_lost_by_thirty_kills_and_at_many_a_step() -> None:
    # all steps, one after another, are left to scripts/faults itself
    said = faults("--steps", 7)
    for part, number in (("parent", 30), ("worker", 30), ("stop", 10), ("full", 10), ("steps", 100)):
        assert f"{part} {number}: nothing lost" in said
