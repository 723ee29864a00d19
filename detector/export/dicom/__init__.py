"""DICOM objects made from finished Readings, for a PACS and its viewers; CAD reports read back."""

from __future__ import annotations

from detector.export.dicom.reader import CadImage, CadReport, read_cad_sr
from detector.export.dicom.source import StudyImage, study_uid_of
from detector.export.dicom.write import FORMATS, Written, write_objects

__all__ = ["FORMATS", "CadImage", "CadReport", "StudyImage", "Written", "read_cad_sr", "study_uid_of", "write_objects"]
