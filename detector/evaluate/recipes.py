"""What a phantom is made of: the breast, the exposure, and the calcifications to put in."""

from __future__ import annotations

from dataclasses import dataclass

from detector.records import Distribution, Morphology

SUSPICIOUS = frozenset(
    {
        Morphology.AMORPHOUS,
        Morphology.COARSE_HETEROGENEOUS,
        Morphology.FINE_PLEOMORPHIC,
        Morphology.FINE_LINEAR,
        Morphology.FINE_LINEAR_BRANCHING,
    }
)


@dataclass(frozen=True)
class Group:
    """Calcifications to put in.

    Attributes
    ----------
    morphology : Morphology
        A key of `detector.evaluate.particles.FORMS`.
    number : int
    extent_mm : float
        Largest distance within the group (not used by DIFFUSE).
    distribution : Distribution
    place : tuple of float, optional
        Middle of the group: depth from the chest wall (0) to the nipple (1), and height from the upper (-1) to the
        lower (1) end of the breast; default: anywhere well inside.
    size_mm : tuple of float, optional
        Smallest and largest size instead of the form's own.
    contrast : float
        Factor on the calcium's attenuation; 0 changes no pixel.
    """

    morphology: Morphology
    number: int = 12
    extent_mm: float = 10.0
    distribution: Distribution = Distribution.GROUPED
    place: tuple[float, float] | None = None
    size_mm: tuple[float, float] | None = None
    contrast: float = 1.0

    @property
    def is_suspicious(self) -> bool:
        """Whether a radiologist should look: by form, or fine dots that follow a duct."""
        follows_duct = self.distribution in (Distribution.LINEAR, Distribution.SEGMENTAL)
        return self.morphology in SUSPICIOUS or (self.morphology is Morphology.PUNCTATE and follows_duct)


@dataclass(frozen=True)
class Recipe:
    """What a phantom is made of.

    Attributes
    ----------
    rows, cols : int
    spacing_mm : float
        Side of a pixel.
    side, view : str
        L or R; CC or MLO.
    breast_share : float
        Share of the image that is breast.
    density : float
        Share of fibroglandular tissue, from 0 (fatty) to 1 (dense).
    thickness_mm : float
        Compressed breast.
    quanta_per_mm2 : float
        Exposure: quanta that the detector would catch in air.
    blur_mm : float
        Standard deviation of the detector's blur.
    n_vessels, n_strands : int
    pectoral : bool
        Whether MLO views show the pectoral muscle.
    groups : tuple of Group
    """

    rows: int = 1280
    cols: int = 960
    spacing_mm: float = 0.07
    side: str = "L"
    view: str = "CC"
    breast_share: float = 0.42
    density: float = 0.35
    thickness_mm: float = 45.0
    quanta_per_mm2: float = 6e5
    blur_mm: float = 0.05
    n_vessels: int = 4
    n_strands: int = 40
    pectoral: bool = True
    groups: tuple[Group, ...] = (
        Group(Morphology.FINE_PLEOMORPHIC, 12),
        Group(Morphology.ROUND, 3, distribution=Distribution.DIFFUSE, size_mm=(1.2, 2.4)),
    )

    def __post_init__(self) -> None:
        if self.side not in ("L", "R") or self.view not in ("CC", "MLO"):
            raise ValueError(f"side must be L or R and view CC or MLO, not {self.side!r} and {self.view!r}")
        if not 0.05 <= self.breast_share <= 0.7 or min(self.rows, self.cols) < 64 or self.spacing_mm <= 0:
            raise ValueError("breast_share must lie from 0.05 to 0.7, rows and cols from 64 up, spacing_mm above 0")

    @property
    def field_mm(self) -> tuple[float, float]:
        """Height and width of the image."""
        return self.rows * self.spacing_mm, self.cols * self.spacing_mm
