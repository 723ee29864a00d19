"""Review pages of a run: a worklist and a page a case, which open from disk with no server and no network."""

from detector.export.pages.case import Case, View, render_case
from detector.export.pages.hanging import hang
from detector.export.pages.pictures import draw_thumbnails, draw_view, fit
from detector.export.pages.render import Run, render_page
from detector.export.pages.worklist import CaseRow, level_of, render_worklist

__all__ = [
    "Case",
    "CaseRow",
    "Run",
    "View",
    "draw_thumbnails",
    "draw_view",
    "fit",
    "hang",
    "level_of",
    "render_case",
    "render_page",
    "render_worklist",
]
