"""How large a pixel is in the plane of the breast, and where that is known from."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from detector.errors import NoPixelSpacing
from detector.read.dicom import Header
from detector.records import SpacingSource
from detector.settings import ReadSettings

NO_SPACING = "no spacing: it states no pixel size; give it with --spacing-mm (in Python: spacing_mm)"


@dataclass(frozen=True)
class Spacing:
    """Size of a pixel in mm (rows, columns), and how far it can be relied on.

    `sizes_known` is False for a magnified view whose magnification is not stated: `mm` is then the detector's.
    """

    mm: tuple[float, float]
    source: SpacingSource
    sizes_known: bool = True
    magnification: float | None = None

    @property
    def warning(self) -> str:
        """What a user should know of it, or nothing."""
        if not self.sizes_known:
            return "spacing: a magnified view that does not state its magnification; sizes are unknown"
        if self.source is SpacingSource.IMAGER:
            return "spacing: the magnification is not stated; sizes may be up to about 10 % too large"
        return ""


@dataclass(frozen=True)
class Given:
    """The spacing that the user gives for images that state none, or for all if `force`."""

    mm: tuple[float, float] | None = None
    force: bool = False

    @classmethod
    def of(cls, spacing_mm: float | tuple[float, float] | None, force: bool) -> Given:
        """Return one spacing as that of rows and columns."""
        if spacing_mm is None or isinstance(spacing_mm, tuple):
            return cls(spacing_mm, force)
        return cls((spacing_mm, spacing_mm), force)


def find_spacing(
    header: Header, shape: tuple[int, int], magnified: bool, given: Given, settings: ReadSettings
) -> Spacing:
    """Return the spacing that the header states best, or else the given one.

    Parameters
    ----------
    header : Header
    shape : tuple of int
        Rows and columns.
    magnified : bool
        Whether the view is a magnified one.
    given : Given
    settings : ReadSettings
        What is plausible.

    Returns
    -------
    Spacing

    Raises
    ------
    NoPixelSpacing
        If none is stated and none given, or none of them is plausible.
    """
    stated = list(_stated(header, magnified))
    if given.mm is not None and (given.force or not stated):
        return check_given(given, shape, settings, known=given.force or not magnified)
    if not stated:
        raise NoPixelSpacing(NO_SPACING)
    faults = [_fault(s.mm, shape, settings) for s in stated]
    if all(faults):
        raise NoPixelSpacing(
            f"the stated spacing is not plausible: {faults[0]}; give --spacing-mm with --force-spacing"
        )
    if faults[0]:
        header.note(f"spacing: a stated one is not plausible ({faults[0]}); the next one was taken")
    return next(s for s, fault in zip(stated, faults, strict=True) if not fault)


def check_given(given: Given, shape: tuple[int, int], settings: ReadSettings, known: bool = True) -> Spacing:
    """Return the given spacing.

    Parameters
    ----------
    given : Given
    shape : tuple of int
        Rows and columns.
    settings : ReadSettings
    known : bool
        Whether it holds for the breast.

    Returns
    -------
    Spacing

    Raises
    ------
    NoPixelSpacing
        If none is given, or it is not plausible for the image.
    """
    if given.mm is None:
        raise NoPixelSpacing(NO_SPACING)
    if fault := _fault(given.mm, shape, settings):
        raise NoPixelSpacing(f"no spacing: the given one is not plausible here: {fault}; give the right one")
    return Spacing(given.mm, SpacingSource.GIVEN, known)


def _fault(mm: tuple[float, float], shape: tuple[int, int], settings: ReadSettings) -> str:
    """Return what is not plausible, or nothing; the field that is spanned shows pictures that were reduced or cut."""
    low, high = settings.smallest_spacing_mm, settings.largest_spacing_mm
    if not all(low <= value <= high for value in mm):
        return f"a pixel of {max(mm):g} mm, where {low:g} to {high:g} mm is usual"
    if max(mm) > 2 * min(mm):
        return "pixels more than twice as long as wide"
    field = max(shape[0] * mm[0], shape[1] * mm[1])
    if not settings.smallest_field_mm <= field <= settings.largest_field_mm:
        usual = f"{settings.smallest_field_mm / 10:g} to {settings.largest_field_mm / 10:g} cm"
        return f"a field of {field / 10:,.1f} cm, where {usual} is usual; was the picture reduced or cropped?"
    return ""


def _stated(header: Header, magnified: bool) -> Iterator[Spacing]:
    """Yield the spacings that the header states, best first (PS3.3 10.7.1.3 and C.8.11)."""
    pixel = _pair(header, "PixelSpacing")
    calibrated = header.text("PixelSpacingCalibrationType").upper() in ("GEOMETRY", "FIDUCIAL")
    if pixel and calibrated:
        yield Spacing(pixel, SpacingSource.CALIBRATED)
    if imager := _pair(header, "ImagerPixelSpacing"):
        yield _at_the_support(header, imager, magnified)
    if scanned := _pair(header, "NominalScannedPixelSpacing"):
        yield Spacing(scanned, SpacingSource.SCANNED, not magnified)
    if pixel and not calibrated:
        yield Spacing(pixel, SpacingSource.UNCALIBRATED, not magnified)


def _at_the_support(header: Header, imager: tuple[float, float], magnified: bool) -> Spacing:
    """Return the detector's spacing divided by the magnification, as far as that is stated."""
    # of a magnified view a factor of 1 is a default that nobody set
    least = 1.05 if magnified else 1.0
    factor = header.number("EstimatedRadiographicMagnificationFactor")
    source = SpacingSource.MAGNIFICATION
    if not (factor and least <= factor <= 4.0):
        detector, support = header.number("DistanceSourceToDetector"), header.number("DistanceSourceToPatient")
        factor = detector / support if detector and support else None
        source = SpacingSource.DISTANCES
    if not (factor and least <= factor <= 4.0):
        return Spacing(imager, SpacingSource.IMAGER, not magnified)
    return Spacing((imager[0] / factor, imager[1] / factor), source, magnification=factor)


def _pair(header: Header, keyword: str) -> tuple[float, float] | None:
    numbers = header.numbers(keyword)
    return (numbers[0], numbers[-1]) if len(numbers) in (1, 2) and min(numbers) > 0 else None
