"""What the docs site takes from elsewhere: tables from the code, lessons from the notebooks, papers from the root.

MkDocs loads this file (mkdocs.yml, hooks). A page of docs/ says ``<!-- generated: NAME -->`` where a part of `parts`
goes; pages that are whole made are added to the site and never written to docs/.
"""

from __future__ import annotations

import base64
import dataclasses
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import nbformat
import typer
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files

from detector.cli import app
from detector.export.dicom import write
from detector.export.dicom.send import SOP_CLASSES
from detector.export.phantoms import TRANSFER_SYNTAXES
from detector.read import dicom, frames, subject
from detector.settings import Settings
from scripts import notebooks, readme

ROOT = Path(__file__).resolve().parents[1]
PAPERS: Mapping[str, str] = {
    "ACCURACY.md": "accuracy.md",
    "BENCHMARKS.md": "benchmarks.md",
    "MODEL_CARD.md": "model-card.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
}
"""Files of the project's folder that are pages as they stand."""
ELSEWHERE: Mapping[str, str] = {name: name for name in PAPERS.values()} | {"README.md": "index.md"} | dict(PAPERS)
ROOM_PICTURE = ("room-", "clusters", "reading")

Parts = Mapping[str, str]


# --------------------------------------------------------------------------------------------------------------
# parts of pages


def parts() -> Parts:
    """Return what may be named in a page as ``<!-- generated: NAME -->``."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    return {
        **{name: table for name, table in readme.parts().items() if table.startswith("|")},
        "settings": settings(),
        "commands": commands(),
        "limits": section("Limits"),
        "privacy": section("Privacy"),
        "images read": uid_table((subject.PRESENTATION, subject.PROCESSING, *filter(None, subject._OTHER_X_RAY))),
        "syntaxes read": uid_table([*filter(None, frames._NATIVE), *frames._CODECS]),
        "elements read": ", ".join(f"`{keyword}`" for keyword in dicom.KEYWORDS),
        "objects sent": uid_table(SOP_CLASSES),
        "object formats": ", ".join(f"`{name}`" for name in write.FORMATS),
        "phantom syntaxes": ", ".join(TRANSFER_SYNTAXES),
        "review keys": review_keys(),
        "version": str(project["version"]),
    }


def settings() -> str:
    """Return every setting, a table a room, with unit, range and source."""
    lines = []
    for room in dataclasses.fields(Settings):
        of_room = getattr(Settings(), room.name)
        lines += [f"## {room.name}", "", cell((type(of_room).__doc__ or "").strip()), ""]
        rows = [setting_row(knob, getattr(of_room, knob.name)) for knob in dataclasses.fields(of_room)]
        lines += [
            readme.markdown(["setting", "default", "unit", "allowed", "meaning", "source of the default"], rows),
            "",
        ]
    return "\n".join(lines)


def setting_row(knob: dataclasses.Field[Any], value: object) -> tuple[str, ...]:
    """Return the cells of one setting."""
    given = knob.metadata
    allowed = given["allowed"]
    words = (
        ", ".join(f"`{word}`" for word in allowed)
        if isinstance(allowed[0], str)
        else " to ".join(f"{v:g}" for v in allowed)
    )
    default = f"`{value}`" if isinstance(value, str) else f"{value:g}"
    units = {"sigma": "noise sigmas", "1/cm2": "1/cm²"}
    unit = units.get(given["unit"], given["unit"])
    return f"`{knob.name}`", default, unit, words, cell(given["meaning"]), cell(with_links(given["source"]))


def with_links(text: str) -> str:
    """Return a text whose DOIs lead to their papers."""
    return re.sub(r"doi (10\.\d+/\S*[^\s).,;])", r"[doi \1](https://doi.org/\1)", text)


def cell(text: str) -> str:
    """Return a text that a Markdown table takes as it is."""
    return text.replace("|", "\\|")


def commands() -> str:
    """Return the help of every command, as it prints it."""
    group = typer.main.get_command(app)
    lines = []
    for name, command in sorted(group.commands.items()):  # type: ignore[attr-defined]
        context = command.make_context(name, [], resilient_parsing=True)
        context.info_name = f"detector {name}"
        lines += [f"## {name}", "", "```text", command.get_help(context), "```", ""]
    return "\n".join(lines)


def review_keys() -> str:
    """Return the keys of a case page, from the list that the page itself shows, as a Markdown table."""
    page = (ROOT / "detector/export/pages/templates/case.html").read_text("utf-8")
    rows = re.findall(r"<dt>(.*?)</dt><dd>(.*?)</dd>", page)
    return readme.markdown(["key", "what it does"], [(cell(keys), cell(does)) for keys, does in rows])


def section(title: str) -> str:
    """Return a section of README.md, without its title."""
    text = (ROOT / "README.md").read_text("utf-8")
    return relinked(readme.found(rf"^## {title}\n((?:.*\n)*?)(?=^## )", text).strip())


def uid_table(uids: Iterable[str]) -> str:
    """Return UIDs with the names that the standard gives them."""
    from pydicom.uid import UID

    return readme.markdown(["name", "UID"], [(UID(uid).name, f"`{uid}`") for uid in uids])


def relinked(text: str) -> str:
    """Return a text of the project's folder whose links lead to pages of the site, or, where there is none, nowhere."""

    def link(match: re.Match[str]) -> str:
        words, target, place = match[1], match[2], match[3] or ""
        if target in ELSEWHERE:
            return f"[{words}]({ELSEWHERE[target]}{place})"
        return match[0] if "://" in target or not target else words

    return re.sub(r"(?<!!)\[([^\]]*)\]\(([^)#\s]*)(#[^)\s]*)?\)", link, text)


# --------------------------------------------------------------------------------------------------------------
# lessons


def lesson(path: Path) -> tuple[str, dict[str, bytes]]:
    """Return a notebook as a page, and its pictures by their names beside it."""
    notebook = nbformat.read(path, as_version=4)
    lines: list[str] = []
    shown: dict[str, bytes] = {}
    for cell_ in notebook.cells:
        if cell_.cell_type == "markdown":
            lines += [cell_.source.replace(".ipynb)", ".md)"), ""]
            continue
        lines += ["```python", cell_.source, "```", ""]
        for output in cell_.outputs:
            lines += list(output_lines(output, f"{path.stem}_{len(shown)}.jpg", shown))
    head = (
        f"!!! note\n\n    This is `notebooks/{path.name}` of the project, with what it showed when it was last run.\n\n"
    )
    title, _, rest = "\n".join(lines).partition("\n")
    return f"{title}\n\n{head}{rest}\n", shown


def output_lines(output: Any, picture: str, shown: dict[str, bytes]) -> Iterator[str]:
    """Yield the lines of an output; a picture of its own goes to `shown`."""
    data = output.get("data", {})
    if "image/jpeg" in data:
        shown[picture] = base64.b64decode(data["image/jpeg"])
        yield f"![figure]({picture})"
    elif "text/html" in data:
        # an empty line would end the HTML for Markdown
        yield f'<div class="output">{re.sub(chr(10) + "+", chr(10), data["text/html"])}</div>'
    else:
        yield f"```text\n{(output.get('text') or data.get('text/plain', '')).rstrip()}\n```"
    yield ""


# --------------------------------------------------------------------------------------------------------------
# what MkDocs calls


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Compute the parts once a build; let no page of docs/ be left out of the menu."""
    config.extra["parts"] = parts()
    menu = str(config.nav)
    others = sorted(path.name for path in Path(config.docs_dir).glob("*.md") if path.name not in menu)
    if others and config.nav:
        config.nav.append({"More": others})
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that are whole made, and the pictures of the lessons."""
    for source, name in PAPERS.items():
        add(files, config, name, relinked((ROOT / source).read_text("utf-8")))
    for path in notebooks.notebooks():
        page, shown = lesson(path)
        add(files, config, f"notebooks/{path.stem}.md", page)
        for name, data in shown.items():
            add(files, config, f"notebooks/{name}", data)
    for name, ending, data in notebooks.pictures(nbformat.read(notebooks.notebooks()[0], as_version=4)):
        if name.startswith(ROOM_PICTURE):
            add(files, config, f"rooms/{name}.{ending}", data)
    return files


def add(files: Files, config: MkDocsConfig, name: str, content: str | bytes) -> None:
    """Add a file to the site."""
    files.append(File.generated(config, name, content=content))


def on_page_markdown(markdown: str, config: MkDocsConfig, **_: object) -> str:
    """Put the generated parts into a page.

    Raises
    ------
    PluginError
        If it names a part that there is not.
    """

    def part(match: re.Match[str]) -> str:
        made: Parts = config.extra["parts"]
        if match[1] not in made:
            raise PluginError(f"a page names the part {match[1]!r}; there are {', '.join(made)}")
        return made[match[1]]

    return re.sub(r"<!-- generated: (.+?) -->", part, markdown)
