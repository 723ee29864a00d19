"""DICOM objects made from finished Readings, for a PACS and its viewers; CAD reports read back."""

from __future__ import annotations

from detector.export.dicom.reader import CadImage, CadReport, read_cad_sr
from detector.export.dicom.source import StudyImage
from detector.export.dicom.write import FORMATS, Written, write_objects

__all__ = ["FORMATS", "CadImage", "CadReport", "StudyImage", "Written", "read_cad_sr", "write_objects"]
