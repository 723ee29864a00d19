"""Templates, scripts and styles put together into one page that holds all it needs and may load nothing."""

from __future__ import annotations

import base64
import functools
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from detector.export.pictures import NOT_NORMAL, NOTICE


@dataclass(frozen=True)
class Run:
    """What all pages of a result folder share.

    Attributes
    ----------
    key : str
        Name under which a browser keeps drafts of decisions on this folder.
    version : str
        Program, model and settings that the findings were made with; kept with every decision.
    operating_point : str
    """

    key: str
    version: str
    operating_point: str = ""


def render_page(template: str, run: Run, scripts: Sequence[str], **values: Any) -> str:
    """Return a page as HTML, with a Content-Security-Policy that allows its own scripts and styles and no others.

    Parameters
    ----------
    template : str
        Of the package's folder ``templates``; all values are escaped.
    run : Run
    scripts : sequence of str
        Of the package's folder ``static``.
    **values
        For the template.
    """
    style = _asset("pages.css")
    sources = [_asset(name) for name in scripts]
    return (
        _environment()
        .get_template(template)
        .render(
            run=run,
            policy=_policy([style], sources),
            style=Markup(style),
            scripts=[Markup(source) for source in sources],
            notice=NOTICE,
            not_normal=NOT_NORMAL,
            run_data={"key": run.key, "version": run.version},
            **values,
        )
    )


def _policy(styles: Sequence[str], scripts: Sequence[str]) -> str:
    rules = {
        "default-src": "'none'",
        "script-src": " ".join(map(_hash, scripts)) or "'none'",
        "style-src": " ".join(map(_hash, styles)),
        # file: means the thumbnails beside a page that was opened from disk
        "img-src": "'self' file: data: blob:",
        "connect-src": "'self'",
        "base-uri": "'none'",
        "form-action": "'none'",
    }
    return "; ".join(f"{name} {value}" for name, value in rules.items())


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


@functools.cache
def _asset(name: str) -> str:
    text = (files("detector.export.pages") / "static" / name).read_text("utf-8")
    return text.partition("//# sourceMappingURL=")[0]


@functools.cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("detector.export.pages"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["json"] = json_for_html
    environment.globals["licence"] = _asset("openseadragon.LICENSE.txt")
    return environment


def json_for_html(value: Mapping[str, Any] | Sequence[Any]) -> Markup:
    """Return JSON that can stand in a ``script`` element: nothing in it ends the element or opens a comment."""
    text = json.dumps(value, allow_nan=False, separators=(",", ":"), ensure_ascii=True)
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(text)
