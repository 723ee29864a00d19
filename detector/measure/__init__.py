"""How large, how bright and of what form each spot is: Marks -> Spots, Evidence, Outlines.

One pass over the pixels of all spots together; no loop over spots.
"""

from __future__ import annotations

import numpy as np

from detector.measure.border import Foreground, trace_borders
from detector.measure.evidence import gather_evidence
from detector.measure.form import Form, measure_form
from detector.records import BreastRegion, Detail, Evidence, Mammogram, Marks, Outlines, Spots

__all__ = ["measure_spots"]


def measure_spots(
    mammogram: Mammogram, breast: BreastRegion, detail: Detail, marks: Marks
) -> tuple[Spots, Evidence, Outlines]:
    """Measure all spots.

    The outline runs through the places between pixels at which the grey level crosses half height. Area is that of the
    pixels inside, holes filled, corrected by those places; calipers are taken 5 degrees apart.

    Parameters
    ----------
    mammogram : Mammogram
    breast : BreastRegion
    detail : Detail
    marks : Marks

    Returns
    -------
    spots : Spots
        One row a mark, in the order of the label image; columns of other rooms are blank.
    evidence : Evidence
        Features for judging, one row a spot.
    outlines : Outlines
        One closed outline a spot.
    """
    if not len(marks.seeds):
        return Spots.empty(), Evidence((), np.empty((0, 0), np.float32)), Outlines.empty()
    image = detail.levels[0].image
    border = trace_borders(marks, image)
    form = measure_form(Foreground.of(marks, image), border, mammogram.spacing_mm)
    spots = _table(mammogram, breast, detail, marks, form)
    return spots, gather_evidence(mammogram, breast, detail, marks, (spots, border)), border.outlines(marks)


def _table(mammogram: Mammogram, breast: BreastRegion, detail: Detail, marks: Marks, form: Form) -> Spots:
    """Return the table of spots; lengths are NaN where the size of a pixel in the breast is not known."""
    row_px, col_px = form.row + marks.box.row_start, form.col + marks.box.col_start
    grey_range = max(breast.grey_range[1] - breast.grey_range[0], 1e-12)
    known = 1.0 if mammogram.identity.sizes_known else np.nan
    return Spots.blank(
        len(form.row),
        spot_id=np.arange(1, len(form.row) + 1),
        row_px=row_px,
        col_px=col_px,
        row_mm=row_px * mammogram.spacing_mm[0] * known,
        col_mm=col_px * mammogram.spacing_mm[1] * known,
        diameter_mm=np.sqrt(4 / np.pi * form.area_mm2) * known,
        length_mm=form.length_mm * known,
        width_mm=form.width_mm * known,
        area_mm2=form.area_mm2 * known,
        contrast=marks.seeds.height * detail.steps.size / grey_range,
        snr=marks.seeds.height / detail.noise_at(row_px, col_px),
        eccentricity=form.eccentricity,
        solidity=form.solidity,
        circularity=form.circularity,
        hole_share=form.hole_share,
        orientation_deg=form.orientation_deg,
        skin_distance_mm=breast.skin_distance_mm[breast.cells(row_px, col_px)] * known,
        confidence=np.zeros(len(form.row)),
    )
