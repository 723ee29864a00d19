"""From folders of mammograms to Readings, pictures and tables on disk; a bad file is a row and not a crash.

`find` tells which files, `work` does one, `pool` runs many, `ledger` remembers, `tabulate` writes the tables, `studies`
and `cases` make objects and pages, `early` tells when, and `run` puts them together.
"""

from detector.batch.find import read_map, read_spacings
from detector.batch.pool import Limits
from detector.batch.report import rebuild_report
from detector.batch.run import FORMATS, Estimate, Job, Progress, Summary, estimate, run_batch

__all__ = [
    "FORMATS",
    "Estimate",
    "Job",
    "Limits",
    "Progress",
    "Summary",
    "estimate",
    "read_map",
    "read_spacings",
    "rebuild_report",
    "run_batch",
]
