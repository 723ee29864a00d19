"""The rules that keep the package legible: who may import whom, what is lazy, who prints, how long a function is."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "detector"
MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): ast.parse(path.read_text("utf-8"))
    for path in sorted(PACKAGE.rglob("*.py"))
}
PACKAGES = {
    ".".join(path.parent.relative_to(ROOT).parts) for path in PACKAGE.rglob("__init__.py")
}  # of MODULES, those that are folders

ROOMS = ("read", "breast", "enhance", "detect", "measure", "classify", "cluster", "assess")
SHARED = ("records", "settings", "errors")
NUMERIC = ("numpy", "scipy", "cv2", "skimage")
ALSO = {"read": ("pydicom", "imagecodecs")}
LAZY = ("pandas", "pyarrow", "matplotlib", "highdicom", "skimage", "dask", "typer", "rich")
CONTAINERS = ("list", "dict", "set", "bytearray", "defaultdict", "OrderedDict", "Counter", "deque")

Function = ast.FunctionDef | ast.AsyncFunctionDef


def _imports(name: str, nodes: Iterator[ast.AST] | None = None) -> set[str]:
    """Return the dotted names of all that a module imports, at its top or within functions."""
    found = set()
    for node in nodes or ast.walk(MODULES[name]):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            parents = name.split(".") if name in PACKAGES else name.split(".")[:-1]
            base = parents[: len(parents) - node.level + 1] if node.level else []
            source = ".".join([*base, *([node.module] if node.module else [])])
            members = {f"{source}.{alias.name}" for alias in node.names}
            found |= (members & set(MODULES)) or {source}
    return found


def _room(name: str) -> str:
    parts = name.split(".")
    return parts[1] if len(parts) > 1 and parts[0] == "detector" else ""


def _functions(name: str) -> Iterator[tuple[Function, ast.AST]]:
    for parent in ast.walk(MODULES[name]):
        for node in ast.iter_child_nodes(parent):
            if isinstance(node, Function):
                yield node, parent


def _public(node: Function | ast.ClassDef) -> bool:
    return not node.name.startswith("_")


def _is_command(name: str, node: Function) -> bool:
    return _room(name) == "cli" and bool(node.decorator_list)


def test_every_room_is_there() -> None:
    assert {f"detector.{room}" for room in (*ROOMS, *SHARED, "pipeline")} <= set(MODULES)


@pytest.mark.parametrize("name", [name for name in MODULES if _room(name) in ROOMS])
def test_a_room_imports_only_records_settings_errors_and_numeric_libraries(name: str) -> None:
    room = _room(name)
    for imported in _imports(name):
        if imported.split(".")[0] == "detector":
            assert _room(imported) in (room, *SHARED), f"{name} imports {imported}"
        else:
            top = imported.split(".")[0]
            allowed = {*sys.stdlib_module_names, *NUMERIC, *ALSO.get(room, ())}
            assert top in allowed, f"{name} imports {imported}"


@pytest.mark.parametrize("name", [f"detector.{shared}" for shared in SHARED])
def test_what_rooms_share_imports_no_room(name: str) -> None:
    assert {_room(imported) for imported in _imports(name) if imported.startswith("detector")} <= set(SHARED)


@pytest.mark.parametrize("name", MODULES)
def test_pydicom_is_met_at_the_borders_alone(name: str) -> None:
    dicom = {"pydicom", "highdicom", "pynetdicom", "dicomweb_client"}
    tops = {imported.split(".")[0] for imported in _imports(name)}
    assert not tops & dicom or _room(name) in ("read", "export")


def test_no_module_is_imported_by_what_it_imports() -> None:
    edges = {name: {i for i in _imports(name) if i in MODULES and i not in (name, "detector")} for name in MODULES}
    while leaves := [name for name, targets in edges.items() if not targets & set(edges)]:
        for name in leaves:
            del edges[name]
    assert not edges, f"cycle among {sorted(edges)}"


@pytest.mark.parametrize("name", MODULES)
def test_heavy_libraries_are_imported_where_they_are_used(name: str) -> None:
    tops = {imported.split(".")[0] for imported in _imports(name, iter(MODULES[name].body))}
    lazy = set(LAZY) - ({"typer", "rich"} if _room(name) == "cli" else set())
    assert not tops & lazy


def test_import_detector_loads_nothing_heavy() -> None:
    code = f"import sys, detector; print(*[m for m in {LAZY!r} if m in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True)
    assert found.stdout.strip() == ""


@pytest.mark.parametrize("name", [name for name in MODULES if _room(name) != "cli"])
def test_only_the_command_line_prints_and_exits(name: str) -> None:
    used = {ast.unparse(node.func) for node in ast.walk(MODULES[name]) if isinstance(node, ast.Call)}
    named = {ast.unparse(node) for node in ast.walk(MODULES[name]) if isinstance(node, ast.Attribute)}
    assert not used & {"print", "exit", "quit", "sys.exit", "pprint", "pprint.pprint"}
    assert not named & {"sys.stdout", "sys.stderr"}
    assert not {i.split(".")[0] for i in _imports(name)} & {"typer", "rich"}


@pytest.mark.parametrize("name", MODULES)
def test_functions_are_short_and_take_few_arguments(name: str) -> None:
    for node, parent in _functions(name):
        body = node.body[1:] if ast.get_docstring(node) else node.body
        lines = (body[-1].end_lineno or 0) - body[0].lineno + 1 if body else 0
        assert lines <= 40 or _is_command(name, node), f"{node.name} has {lines} lines"
        arguments = [a.arg for a in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)]
        own = isinstance(parent, ast.ClassDef) and arguments[:1] in (["self"], ["cls"])
        taken = len(arguments) - own
        assert taken <= 5 or _is_command(name, node), f"{node.name} takes {taken} arguments"


@pytest.mark.parametrize("name", MODULES)
def test_what_is_public_has_a_docstring(name: str) -> None:
    tree = MODULES[name]
    assert ast.get_docstring(tree) or not tree.body
    classes = [node for node in tree.body if isinstance(node, ast.ClassDef) and _public(node)]
    for body in (tree.body, *(node.body for node in classes)):
        for node in body:
            if isinstance(node, Function | ast.ClassDef) and _public(node):
                overload = any("overload" in ast.unparse(d) for d in node.decorator_list)
                assert overload or ast.get_docstring(node), f"{node.name} has no docstring"


@pytest.mark.parametrize("name", MODULES)
def test_no_state_that_can_change_at_module_level(name: str) -> None:
    assert not [node for node in ast.walk(MODULES[name]) if isinstance(node, ast.Global)]
    for node in MODULES[name].body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            continue
        if isinstance(node, ast.Assign | ast.AnnAssign | ast.AugAssign) and _is_container(node.value):
            kind = ast.unparse(node.annotation) if isinstance(node, ast.AnnAssign) else ""
            read_only = any(word in kind for word in ("Mapping", "Sequence", "Collection")) and "Mutable" not in kind
            assert read_only, f"line {node.lineno}: annotate as Mapping or Sequence, or use a tuple"


def _is_container(value: ast.expr | None) -> bool:
    if isinstance(value, ast.Call):
        return ast.unparse(value.func).split(".")[-1] in CONTAINERS
    return isinstance(value, ast.List | ast.Dict | ast.Set | ast.ListComp | ast.DictComp | ast.SetComp)


@pytest.mark.parametrize("name", MODULES)
def test_errors_are_raised_and_not_asserted(name: str) -> None:
    lines = [node.lineno for node in ast.walk(MODULES[name]) if isinstance(node, ast.Assert)]
    assert not lines
