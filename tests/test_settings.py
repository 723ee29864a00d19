"""Every knob is documented, named when it is wrong, and survives TOML."""

import dataclasses
import math
import tomllib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from detector.errors import DetectorError, SettingsError
from detector.settings import ClusterSettings, Settings

KNOBS = {
    f"{room.name}.{knob.name}": knob
    for room in dataclasses.fields(Settings)
    for knob in dataclasses.fields(getattr(Settings(), room.name))
}
UNITS = {"mm": "_mm", "px": "_px", "sigma": "_sigma", "1/cm2": "_per_cm2", "Mpx": "_megapixels"}
REPEATABLE = ("cluster", "assess")  # what can be done again from a stored Reading


def value_of(name: str) -> Any:
    room, key = name.split(".")
    return getattr(getattr(Settings(), room), key)


def put(name: str, value: Any) -> Settings:
    room, key = name.split(".")
    return Settings.from_mapping({room: {key: value}})


def good_values(name: str) -> st.SearchStrategy[Any]:
    knob, allowed = KNOBS[name], KNOBS[name].metadata["allowed"]
    if knob.type == "str":
        return st.sampled_from(allowed)
    if knob.type == "int":
        return st.integers(*allowed)
    return st.floats(*allowed)


@st.composite
def all_settings(draw: st.DrawFn) -> Settings:
    values: dict[str, dict[str, Any]] = {}
    for name in draw(st.sets(st.sampled_from(sorted(KNOBS)))):
        room, key = name.split(".")
        values.setdefault(room, {})[key] = draw(good_values(name))
    return Settings.from_mapping(values)


@pytest.mark.parametrize("name", KNOBS)
def test_every_knob_says_unit_range_meaning_and_source(name: str) -> None:
    knob = KNOBS[name]
    assert knob.metadata["meaning"]
    assert knob.metadata["source"]
    assert knob.type in ("float", "int", "str")
    if unit := knob.metadata["unit"]:
        assert knob.name.endswith(UNITS[unit])
    if knob.type == "str":
        assert value_of(name) in knob.metadata["allowed"]
    else:
        lowest, highest = knob.metadata["allowed"]
        assert lowest <= value_of(name) <= highest


@given(all_settings())
def test_toml_and_back(settings: Settings) -> None:
    assert Settings.from_toml(settings.to_toml()) == settings
    assert tomllib.loads(settings.to_toml()) == settings.to_mapping()


def test_toml_shows_every_source() -> None:
    text = Settings().to_toml()
    for knob in KNOBS.values():
        assert f"source: {knob.metadata['source']}" in text


@given(st.sampled_from(sorted(KNOBS)), st.data())
def test_a_value_out_of_range_is_named(name: str, data: st.DataObject) -> None:
    knob, allowed = KNOBS[name], KNOBS[name].metadata["allowed"]
    wrong: st.SearchStrategy[Any] = st.sampled_from([None, True, [], math.nan, math.inf, -math.inf])
    if knob.type == "str":
        wrong |= st.text().filter(lambda text: text not in allowed)
    else:
        wrong |= st.just("1") | st.floats(max_value=allowed[0], exclude_max=True)
        wrong |= st.floats(min_value=allowed[1], exclude_min=True)
    if knob.type == "int":
        wrong |= st.just(allowed[0] + 0.5)
    with pytest.raises(SettingsError, match=name):
        put(name, data.draw(wrong))


def test_what_is_unknown_is_named_with_what_is_known() -> None:
    with pytest.raises(SettingsError, match=r"unknown section \[detekt\].*detect"):
        Settings.from_toml("[detekt]\nthreshold_sigma = 3")
    with pytest.raises(SettingsError, match=r"unknown setting detect\.treshold.*threshold_sigma"):
        Settings.from_toml("[detect]\ntreshold = 3")
    with pytest.raises(SettingsError, match=r"\[detect\]"):
        Settings.from_toml("detect = 3")
    with pytest.raises(SettingsError, match="TOML"):
        Settings.from_toml("[detect")
    assert issubclass(SettingsError, DetectorError)


def test_a_wrong_value_is_refused_in_python_as_well() -> None:
    with pytest.raises(SettingsError, match=r"cluster\.link_mm"):
        Settings(cluster=ClusterSettings(link_mm=-1.0))


def test_a_file_changes_only_what_it_names() -> None:
    base = Settings.from_toml("[cluster]\nlink_mm = 7\n[detect]\nthreshold_sigma = 5")
    changed = Settings.from_toml("[cluster]\nrule = 'grouped'", base)
    assert changed.cluster.link_mm == 7.0
    assert changed.cluster.rule == "grouped"
    assert dataclasses.replace(changed, cluster=base.cluster) == base


def test_whole_numbers_count_as_floats() -> None:
    assert put("cluster.link_mm", 7) == put("cluster.link_mm", 7.0)
    assert put("cluster.link_mm", 7).report_hash() == put("cluster.link_mm", 7.0).report_hash()


@given(all_settings())
def test_the_detection_hash_sees_detection_alone(settings: Settings) -> None:
    plain = Settings()
    detection = [f.name for f in dataclasses.fields(Settings) if f.name not in REPEATABLE]
    same = all(getattr(settings, room) == getattr(plain, room) for room in detection)
    assert (settings.detection_hash() == plain.detection_hash()) == same
    assert (settings.report_hash() == plain.report_hash()) == (settings == plain)


@pytest.mark.parametrize("point", ["sensitive", "balanced", "specific"])
def test_the_operating_point_chooses_the_confidence(point: str) -> None:
    cluster = put("cluster.operating_point", point).cluster
    assert cluster.min_confidence == getattr(cluster, f"{point}_confidence")


def test_operating_points_are_in_order() -> None:
    cluster = ClusterSettings()
    assert cluster.sensitive_confidence < cluster.balanced_confidence < cluster.specific_confidence
