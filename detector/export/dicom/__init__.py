"""DICOM objects made from finished Readings, for a PACS and its viewers."""

from __future__ import annotations

from detector.export.dicom.source import StudyImage
from detector.export.dicom.write import FORMATS, Written, write_objects

__all__ = ["FORMATS", "StudyImage", "Written", "write_objects"]
