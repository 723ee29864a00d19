"""Every knob of the program: one frozen dataclass a room, lengths in mm, thresholds in noise sigmas.

Each knob states its unit, its allowed range and the source of its default. Order of precedence: defaults, file, flags.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from detector.errors import SettingsError


def _knob(default: Any, unit: str, allowed: tuple[float, float] | tuple[str, ...], meaning: str, source: str) -> Any:
    return field(default=default, metadata={"unit": unit, "allowed": allowed, "meaning": meaning, "source": source})


@dataclass(frozen=True)
class ReadSettings:
    """What `read` accepts."""

    max_megapixels: float = _knob(
        150.0, "Mpx", (0.01, 10_000), "largest image that is decoded", "twice the largest film scan in use (CBIS-DDSM)"
    )
    smallest_spacing_mm: float = _knob(0.02, "mm", (0.001, 1), "smallest plausible pixel", "magnified views at 0.05 mm")
    largest_spacing_mm: float = _knob(0.4, "mm", (0.01, 10), "largest plausible pixel", "twice mini-MIAS")
    smallest_field_mm: float = _knob(
        80.0,
        "mm",
        (1, 1000),
        "shortest plausible long side of the field",
        "small detectors are 18 x 24 cm; cropped views",
    )
    largest_field_mm: float = _knob(
        450.0, "mm", (10, 2000), "longest plausible side", "largest detectors are 24 x 31 cm"
    )


@dataclass(frozen=True)
class BreastSettings:
    """How `breast` tells breast from what is not."""

    grid_mm: float = _knob(0.6, "mm", (0.1, 2), "greatest side of a cell of the zone map", "a skin line is 1 to 2 mm")
    skin_mm: float = _knob(
        2.0,
        "mm",
        (0, 10),
        "depth of the skin zone",
        "normal skin is up to 2 mm thick (Huang 2008, doi 10.1118/1.2841938)",
    )
    edge_mm: float = _knob(
        1.0, "mm", (0, 10), "width of the zone along film edges and paddles", "blur of a scanned film edge"
    )


@dataclass(frozen=True)
class EnhanceSettings:
    """How `enhance` removes the background and equalises the noise."""

    smoothing_mm: float = _knob(
        0.0535,
        "mm",
        (0, 1),
        "standard deviation of what pixels and the first Gaussian blur by together",
        "blur of common detectors",
    )
    finest_scale_mm: float = _knob(
        0.075,
        "mm",
        (0.02, 1),
        "smallest blob scale (standard deviation)",
        "a 0.2 mm speck: radius / sqrt(2) (Lindeberg 1998, doi 10.1023/A:1008045108935)",
    )
    coarsest_scale_mm: float = _knob(3.3, "mm", (0.1, 10), "largest blob scale", "a 9 mm popcorn: radius / sqrt(2)")
    scale_ratio: float = _knob(
        1.6, "", (1.1, 3), "ratio of neighbouring scales", "DoG nearest to LoG (Marr 1980, doi 10.1098/rspb.1980.0020)"
    )
    noise_window_mm: float = _knob(
        3.0,
        "mm",
        (0.5, 30),
        "standard deviation of the window that noise is measured in",
        "many specks wide, smaller than a tissue region",
    )


@dataclass(frozen=True)
class DetectSettings:
    """How `detect` finds candidates."""

    threshold_sigma: float = _knob(
        3.8, "sigma", (1, 50), "lowest blob response of a candidate that stands alone", "under it calcium is rare"
    )
    supported_sigma: float = _knob(
        2.8,
        "sigma",
        (1, 50),
        "lowest blob response where strong ones are near",
        "low enough for the faint specks of a group",
    )
    support_sigma: float = _knob(4.5, "sigma", (1, 50), "blob response that supports weak ones", "rare by chance")
    support_count: int = _knob(
        2, "", (1, 20), "strong ones that a weak one needs around; the fainter half one more", "a group has three"
    )
    support_mm: float = _knob(4.0, "mm", (0.5, 30), "distance within which they support", "the size of tight groups")
    strand_sigma: float = _knob(
        6.0,
        "sigma",
        (0, 50),
        "blob response from which a fine candidate needs no contrast along its weakest direction",
        "calcium seldom fails it, peaks of strands and of noise often do",
    )
    coarse_scale_mm: float = _knob(
        0.25, "mm", (0.1, 10), "scale from which blobs must have a sharp border", "discs of 0.7 mm and more"
    )
    large_scale_mm: float = _knob(
        0.45, "mm", (0.1, 10), "scale from which the threshold is that of large blobs", "discs of 1.3 mm and more"
    )
    large_threshold_sigma: float = _knob(
        2.0,
        "sigma",
        (1, 100),
        "lowest blob response of a large candidate",
        "lumps of tissue are as bright: the border decides",
    )
    edge_share: float = _knob(
        0.5,
        "",
        (0, 1),
        "least step across the border of a coarse candidate, as a share of its height",
        "a disc with the blur of common systems keeps over 0.6, a Gaussian lump of 2 mm has 0.2",
    )
    edge_sigma: float = _knob(
        3.0,
        "sigma",
        (0, 50),
        "least step across its border",
        "over what noise alone makes of 16 rays, the steepest of five",
    )
    max_candidates_per_cm2: float = _knob(
        200.0, "1/cm2", (1, 10_000), "strongest candidates kept", "bounds time and memory on images of noise"
    )


@dataclass(frozen=True)
class ClassifySettings:
    """How `classify` tells macro from micro and calcium from the rest."""

    macro_width_mm: float = _knob(
        1.0, "mm", (0.1, 10), "width from which a spot is macro", "BI-RADS 5th edition, in DOMAIN's words"
    )
    rod_width_mm: float = _knob(
        0.5, "mm", (0.1, 10), "width from which a smooth rod is macro", "BI-RADS 5th edition: large rod-like"
    )
    rod_length_mm: float = _knob(
        1.0, "mm", (0.1, 20), "length over which a smooth rod is macro", "BI-RADS 5th edition: large rod-like"
    )
    punctate_mm: float = _knob(
        0.5, "mm", (0.1, 2), "diameter under which a round spot is punctate", "BI-RADS 5th edition"
    )
    coarse_mm: float = _knob(
        2.0, "mm", (0.5, 10), "width over which a spot is coarse", "BI-RADS 5th edition: over 2 to 3 mm"
    )
    unresolved_px: float = _knob(
        4.0, "px", (1, 20), "width under which a spot has no shape", "four samples across a shape"
    )
    floor: float = _knob(
        0.003, "", (0, 1), "lowest confidence that a Reading keeps", "well under what counts at `sensitive`"
    )


@dataclass(frozen=True)
class ClusterSettings:
    """How `cluster` groups spots; the operating point is applied here."""

    operating_point: str = _knob(
        "balanced", "", ("sensitive", "balanced", "specific"), "which spots count", "set on training images"
    )
    sensitive_confidence: float = _knob(
        0.008,
        "",
        (0, 1),
        "lowest confidence that counts at `sensitive`",
        "about 1.0 false spots a cm2 on held-out films (classify/weights.json)",
    )
    balanced_confidence: float = _knob(
        0.03, "", (0, 1), "lowest confidence that counts at `balanced`", "about 0.4 false spots a cm2, likewise"
    )
    specific_confidence: float = _knob(
        0.2, "", (0, 1), "lowest confidence that counts at `specific`", "about 0.1 false spots a cm2, likewise"
    )
    sensitive_core: float = _knob(
        0.05,
        "",
        (0, 1),
        "confidence from which a spot founds a cluster at `sensitive`",
        "one in twenty is calcium",
    )
    balanced_core: float = _knob(0.5, "", (0, 1), "the same at `balanced`", "more likely calcium than not")
    specific_core: float = _knob(0.7, "", (0, 1), "the same at `specific`", "twice as likely calcium as not")
    rule: str = _knob(
        "density", "", ("density", "grouped"), "how a cluster is defined", "DOMAIN: 3 in 1 cm2, or 5 within 10 mm"
    )
    link_mm: float = _knob(5.0, "mm", (0.5, 30), "distance within which spots are linked (rule density)", "DOMAIN")
    density_minimum: int = _knob(3, "", (2, 100), "spots in a disc of 1 cm2 (rule density)", "DOMAIN")
    grouped_minimum: int = _knob(5, "", (2, 100), "spots within grouped_mm (rule grouped)", "BI-RADS 5th edition")
    grouped_mm: float = _knob(10.0, "mm", (1, 50), "diameter of a group (rule grouped)", "BI-RADS 5th edition")
    macro_member_mm: float = _knob(2.0, "mm", (0.5, 10), "width up to which a spot can be a member", "DOMAIN")
    hull_margin_mm: float = _knob(0.5, "mm", (0.1, 5), "growth of the hull for area and density", "INTERFACE")

    @property
    def min_confidence(self) -> float:
        """Lowest confidence that counts at the operating point."""
        return float(getattr(self, f"{self.operating_point}_confidence"))

    @property
    def core_confidence(self) -> float:
        """Confidence from which a spot founds a cluster at the operating point."""
        return float(getattr(self, f"{self.operating_point}_core"))

    @property
    def member_confidence(self) -> float:
        """Lowest confidence of a cluster's member: half of the core's, since it knows of the group already."""
        return max(self.min_confidence, 0.5 * self.core_confidence)


@dataclass(frozen=True)
class AssessSettings:
    """How `assess` ranks clusters and flags them."""

    review_suspicion: float = _knob(
        0.34, "", (0, 1), "suspicion from which a cluster is flagged", "phantoms of known forms"
    )
    high_suspicion: float = _knob(0.65, "", (0, 1), "suspicion shown as high", "phantoms of known forms")
    min_confidence: float = _knob(
        0.85,
        "",
        (0, 1),
        "lowest cluster confidence of a flag",
        "few phantoms without calcium are flagged (ACCURACY.md)",
    )
    min_confidence_high: float = _knob(
        0.65,
        "",
        (0, 1),
        "the same where suspicion is high, and of two thin lines or more",
        "lower, since a missed group of thin lines weighs more than a false one; crossing strands come to 0.6",
    )


@dataclass(frozen=True)
class Settings:
    """All settings, a dataclass a room, in the order of the flow.

    Raises
    ------
    SettingsError
        If a value is of the wrong type or out of its range.
    """

    read: ReadSettings = field(default_factory=ReadSettings)
    breast: BreastSettings = field(default_factory=BreastSettings)
    enhance: EnhanceSettings = field(default_factory=EnhanceSettings)
    detect: DetectSettings = field(default_factory=DetectSettings)
    classify: ClassifySettings = field(default_factory=ClassifySettings)
    cluster: ClusterSettings = field(default_factory=ClusterSettings)
    assess: AssessSettings = field(default_factory=AssessSettings)

    def __post_init__(self) -> None:
        for room in dataclasses.fields(self):
            section = getattr(self, room.name)
            for knob in dataclasses.fields(section):
                _check(f"{room.name}.{knob.name}", getattr(section, knob.name), knob)

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any], base: Self | None = None) -> Self:
        """Return `base` (default: the defaults) with the values of a mapping of mappings put in.

        Raises
        ------
        SettingsError
            If a room or a knob is unknown, or a value is not allowed; the message names it.
        """
        settings = base or cls()
        rooms = {f.name: getattr(settings, f.name) for f in dataclasses.fields(cls)}
        changed: dict[str, Any] = {}
        for name, section in values.items():
            if name not in rooms:
                raise SettingsError(f"unknown section [{name}]; the sections are {', '.join(rooms)}")
            if not isinstance(section, Mapping):
                raise SettingsError(f"[{name}] must be a section with keys, not a value")
            known = {f.name: f for f in dataclasses.fields(rooms[name])}
            for key, value in section.items():
                if key not in known:
                    raise SettingsError(f"unknown setting {name}.{key}; the settings of {name} are {', '.join(known)}")
                _check(f"{name}.{key}", value, known[key])
            whole = {k: float(v) if known[k].type == "float" else v for k, v in section.items()}
            changed[name] = dataclasses.replace(rooms[name], **whole)
        return dataclasses.replace(settings, **changed)

    @classmethod
    def from_toml(cls, text: str, base: Self | None = None) -> Self:
        """Return the settings of a TOML text over `base`.

        Raises
        ------
        SettingsError
            If the text is no TOML, or as `from_mapping` does.
        """
        try:
            values = tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            raise SettingsError(f"the settings are not valid TOML: {error}") from error
        return cls.from_mapping(values, base)

    def to_mapping(self) -> dict[str, dict[str, Any]]:
        """Return all settings as a mapping of mappings."""
        return dataclasses.asdict(self)

    def to_toml(self) -> str:
        """Return all settings as TOML with meaning, unit, range and source of each."""
        lines: list[str] = []
        for room in dataclasses.fields(self):
            section = getattr(self, room.name)
            lines += ["", f"[{room.name}]", f"# {(type(section).__doc__ or '').strip()}"]
            for knob in dataclasses.fields(section):
                m = knob.metadata
                unit = f" in {m['unit']}" if m["unit"] else ""
                lines.append(f"# {m['meaning']}{unit}; {_allowed(m['allowed'])}; source: {m['source']}")
                lines.append(f"{knob.name} = {json.dumps(getattr(section, knob.name))}")
        return "\n".join(lines).lstrip() + "\n"

    def detection_hash(self) -> str:
        """Return a hash of what detection depends on: all rooms but `cluster` and `assess`, which can be repeated."""
        rooms = {k: v for k, v in self.to_mapping().items() if k not in ("cluster", "assess")}
        return _digest(rooms)

    def report_hash(self) -> str:
        """Return a hash of all settings."""
        return _digest(self.to_mapping())


def _digest(values: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:16]


def _allowed(allowed: tuple[Any, ...]) -> str:
    if isinstance(allowed[0], str):
        return "one of " + ", ".join(allowed)
    return f"from {allowed[0]:g} to {allowed[1]:g}"


def _check(name: str, value: Any, knob: dataclasses.Field[Any]) -> None:
    allowed = knob.metadata["allowed"]
    if knob.type == "str":
        good = isinstance(value, str) and value in allowed
    elif knob.type == "int":
        good = isinstance(value, int) and not isinstance(value, bool) and allowed[0] <= value <= allowed[1]
    else:
        good = (
            isinstance(value, (int, float))
            and not isinstance(value, bool)
            and math.isfinite(value)
            and allowed[0] <= value <= allowed[1]
        )
    if not good:
        raise SettingsError(f"{name} = {value!r} is not allowed; it must be {_allowed(allowed)}")
