"""Writes tests/golden anew: the stored output of every room, each fed that of the room before."""

from __future__ import annotations

from tests.golden_rooms import FOLDER, store_all


def main() -> None:
    """Write all, and say how much it is."""
    store_all()
    total = sum(path.stat().st_size for path in FOLDER.glob("*.npz"))
    print(f"{FOLDER}: {total / 1000:.0f} kB; look at `git diff --stat` and say in the commit why results changed")


if __name__ == "__main__":
    main()
