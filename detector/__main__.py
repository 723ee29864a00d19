"""``python -m detector`` is the command `detector`, for where its folder is not on PATH."""

from detector.cli import main

if __name__ == "__main__":
    main()
