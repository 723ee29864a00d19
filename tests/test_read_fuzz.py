"""Mammograms broken on purpose are read or refused: no other exception, no crash, no hang, no waste of memory."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest

from detector.batch.pool import Limits, Lost, run_locally
from tests.mutations import SYNTAXES, Fuzz, broken, read_broken, whole_file

LIMITS = Limits(workers=2, timeout_s=10.0, memory_limit_mb=2048)


def findings(seeds: Sequence[int], folder: Path) -> tuple[dict[int, str], Counter[str]]:
    """Return what must not be, by seed, and how often what may be came out."""
    found, counts = dict[int, str](), Counter[str]()
    for seed, result in run_locally(seeds, Fuzz(folder), LIMITS):
        if isinstance(result, Lost):
            found[seed] = f"{result.error}: {result.message}"
        elif result.startswith("FOUND"):
            found[seed] = result
        else:
            counts[result] += 1
    return found, counts


@pytest.mark.parametrize("rich", [False, True])
@pytest.mark.parametrize("syntax", SYNTAXES)
def test_what_is_broken_was_whole(tmp_path: Path, syntax: str, rich: bool) -> None:
    assert read_broken(whole_file(syntax, rich), tmp_path) == "read"


def test_the_same_seed_breaks_the_same_way_and_most_break_something() -> None:
    assert [broken(seed) for seed in range(20)] == [broken(seed) for seed in range(20)]
    assert len({broken(seed) for seed in range(200)}) > 190


def test_hundreds_of_broken_files_are_read_or_refused(tmp_path: Path) -> None:
    found, counts = findings(range(500), tmp_path)
    assert found == {}
    assert min(counts["read"], counts["BadPixels"], counts["ReadError"]) > 20


@pytest.mark.long
def test_twenty_thousand_broken_files_are_read_or_refused(tmp_path: Path) -> None:
    found, counts = findings(range(1000, 21_000), tmp_path)
    assert found == {}
    assert counts.total() == 20_000
