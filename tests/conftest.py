"""What tests share: how hypothesis searches, a sample and a Reading of it, what becomes of tests that lack a tool."""

import os
import shutil
from pathlib import Path

import pytest
from hypothesis import settings

from detector.read import read_mammogram
from detector.records import Mammogram, Reading
from scripts.environment import LONG_TOOLS, TOOLS
from tests.known_misses import reason_for

# The plain run tries the same examples every time, so that it never fails by chance; --long searches anew.
settings.register_profile("repeatable", deadline=None, derandomize=True, max_examples=50)
settings.register_profile("long", deadline=None, max_examples=1000, print_blob=True)
settings.load_profile("repeatable")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let the tests of requirements that are not met yet fail, and say so."""
    for item in items:
        if why := reason_for(item.nodeid):
            item.add_marker(pytest.mark.xfail(reason=why, strict=False))


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip a test whose tool (``@pytest.mark.needs("dsrdump")``) is missing; with CI=true it fails."""
    for command in (name for mark in item.iter_markers("needs") for name in mark.args):
        if shutil.which(command):
            continue
        reason = f"needs {command} (Debian, Ubuntu: apt-get install {(TOOLS | LONG_TOOLS)[command]})"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)


@pytest.fixture(scope="session")
def mammogram() -> Mammogram:
    """Return an image of the sample data."""
    return read_mammogram(Path(__file__).parents[1] / "sample_data/LCC.dcm")


@pytest.fixture(scope="session")
def reading(mammogram: Mammogram) -> Reading:
    """Return a Reading of it with invented findings."""
    from tests.dicom_studies import make_reading

    return make_reading(mammogram.identity, 60, 4)
