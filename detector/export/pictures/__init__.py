"""Pictures of a finished Reading: the whole mammogram with its marks, and each cluster magnified.

Marks lie beside what they mark: after all is drawn, the pixels inside the outline of every marked spot are put back.
"""

from detector.export.pictures.crops import draw_crops
from detector.export.pictures.legend import NOT_NORMAL, NOTICE, suspicion_words
from detector.export.pictures.overlay import draw_overlay
from detector.export.pictures.png import encode_png
from detector.export.pictures.window import apply_window

__all__ = ["NOTICE", "NOT_NORMAL", "apply_window", "draw_crops", "draw_overlay", "encode_png", "suspicion_words"]
