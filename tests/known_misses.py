"""Requirements that are tested and not yet met: their tests may fail, with the size of the miss as the reason."""

from collections.abc import Mapping

KNOWN_MISSES: Mapping[str, str] = {
    "test_macrocalcifications_are_found_and_called_so[-rods]": "of twelve one, bent and thin, is called micro",
    "test_macrocalcifications_are_found_and_called_so[more-rods]": "of 34, two are called micro, two are mis-sized",
}
"""Part of a test's name, and by how much it misses."""


def reason_for(node: str) -> str:
    """Return why a test may fail, or nothing."""
    return next((why for part, why in KNOWN_MISSES.items() if part in node), "")
