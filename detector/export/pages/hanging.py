"""How the views of a case hang: right and left back to back, CC over MLO, as in a reading room."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from detector.records import Identity, Reading

_ORDER = ("CC", "MLO", "ML", "LM", "LMO", "XCCL", "XCCM", "CV", "AT")


@dataclass(frozen=True)
class Turn:
    """Whether a picture is mirrored, top to bottom (`rows`) and left to right (`cols`), to hang as it should."""

    rows: bool = False
    cols: bool = False


def turn_of(reading: Reading) -> Turn:
    """Return how an image is mirrored so that chest walls meet in the middle, and lateral or cranial is on top.

    A right breast has its chest wall on the right of its picture, a left one on the left. Where the chest wall is, the
    pixels say, else Patient Orientation; which side is up, Patient Orientation alone. What is unknown stays as it is.
    """
    identity = reading.identity
    wanted = {"R": "right", "L": "left"}.get(identity.side, "")
    wall = reading.chest_wall or _wall_by_header(identity)
    return Turn(_upside_down(identity), bool(wanted and wall and wall != wanted))


def _wall_by_header(identity: Identity) -> str:
    along_row = identity.patient_orientation[0] if identity.patient_orientation else ""
    return {"P": "right", "A": "left"}.get(along_row[:1], "")


def _upside_down(identity: Identity) -> bool:
    down = identity.patient_orientation[1] if len(identity.patient_orientation) > 1 else ""
    if identity.view in ("CC", "XCCL", "XCCM"):
        return down[:1] == identity.side and identity.side in ("R", "L")
    return down[:1] == "H"


def hang(views: Sequence[tuple[Identity, bool]]) -> list[tuple[int | None, int | None]]:
    """Return the rows of a hanging: which view is on the left of the screen, and which on the right.

    Parameters
    ----------
    views : sequence of (Identity, bool)
        What each view is, and whether it counts; of one exposure those that do not count hang last.

    Returns
    -------
    list of (int or None, int or None)
        Right breasts stand on the left. Views of unknown side fill what is free.
    """

    def place(i: int) -> tuple[bool, bool, int, str, tuple[str, ...], str]:
        identity, counts = views[i]
        rank = _ORDER.index(identity.view) if identity.view in _ORDER else len(_ORDER)
        modified = bool(identity.view_modifiers)
        return not counts, modified, rank, identity.view, identity.view_modifiers, identity.path

    rows: list[tuple[int | None, int | None]] = []
    for _, group in itertools.groupby(sorted(range(len(views)), key=place), key=lambda i: place(i)[:5]):
        numbers = list(group)
        right = [i for i in numbers if views[i][0].side == "R"]
        left = [i for i in numbers if views[i][0].side == "L"]
        for i in numbers:
            if i not in right and i not in left:
                (right if len(right) <= len(left) else left).append(i)
        rows += itertools.zip_longest(right, left)
    return rows
