"""The folders of src show the architecture: what may import what, and how many modules a folder has. Nothing is run."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

SRC = Path(__file__).parent.parent / "src"
PACKAGES = ("_anyfork_child", "_anyfork_client", "anyfork")
LONGEST = 400  # lines of code of a file: those with more than a comment or a docstring
MOST = 20  # entries of a folder, as a reader counts them: modules, folders, __init__, the compiled part's sources

# What each folder of the child's package may import. ``root`` is its __init__, ``main`` its __main__.
WIRE, VALUES = "_anyfork_child.wire", "_anyfork_child.values"
CHILD = {
    "": set(),
    "wire": {""},
    "values": {"wire"},
    "birth": {"values", "wire"},
    "template": {"birth", "values", "wire"},
    "__main__": {"template", "birth", "values", "wire"},
    "worker": {"", "birth", "values", "wire"},
    "remote": {"", "template", "birth", "values", "wire"},
    "multiprocessing": {"birth", "values", "wire"},
    "program": {"template", "birth", "values", "wire"},
}
# What each folder of the owner's package may import of it, beside the modules at the bottom, which all may import.
BOTTOM = {"_errors", "_status"}
OWNER = {
    "_status": set(),
    "_errors": {"_status"},
    "_system": set(),
    "_processes": {"_system"},
    "_calls": {"_processes", "_system"},
    "_pools": {"_calls", "_processes", "_system"},
    "_blocking": {"_calls", "_processes", "_system"},
    "_executor": {"_blocking", "_pools", "_calls", "_processes", "_system"},
    "_programs": {"_blocking", "_processes", "_system"},
    "aio": {"_programs", "_blocking", "_pools", "_calls", "_processes", "_system"},
    "context": {"_blocking"},
    "early": {"_programs", "_processes"},
    "frozen": {"_processes", "_system"},
    "_cli": {"context", "_programs", "_pools", "_processes", "_system", ""},
    "__main__": {"_cli"},
    "joblib": {"_executor", "_blocking"},
    "contrib": {"aio", "_executor", "_pools", "_blocking", "_calls", "_processes", "_programs", "_system", "frozen"},
    "subprocess": {"_programs", "_blocking"},
    "": {"_blocking", "_executor", "_pools", "_processes", "_programs", "_system", "aio", "context", "subprocess"},
}


@dataclass(frozen=True)
class Module:
    """One module of src: its dotted name, its file, and the modules of src that it imports anywhere."""

    name: str
    path: Path
    imports: frozenset[str]

    @property
    def package(self) -> str:
        """The top package."""
        return self.name.partition(".")[0]

    @property
    def folder(self) -> str:
        """The folder below the top package, or the module's own name where it lies in none."""
        return self.name.partition(".")[2].partition(".")[0]


@cache  # and not at the import: each process of pytest-xdist imports this, and one of them runs it
def modules() -> dict[str, Module]:
    """Return the modules of src, by name."""
    paths = {}
    for path in sorted(path for package in PACKAGES for path in (SRC / package).rglob("*.py")):
        parts = path.relative_to(SRC).with_suffix("").parts
        if all(part.isidentifier() for part in parts):  # hooks of PyInstaller are no modules
            paths[".".join(parts).removesuffix(".__init__")] = path
    return {name: Module(name, path, frozenset(imported(name, path, {*paths}))) for name, path in paths.items()}


@cache
def nodes(path: Path) -> list[ast.AST]:
    """Return all nodes of a module's code."""
    return [*ast.walk(ast.parse(path.read_text()))]


def imported(name: str, path: Path, known: set[str]) -> Iterator[str]:
    package = name if path.stem == "__init__" else name.rpartition(".")[0]
    for node in nodes(path):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in known)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            for alias in node.names:
                inner = f"{base}.{alias.name}"
                if inner in known or base in known:
                    yield inner if inner in known else base


def arrows() -> list[tuple[Module, Module]]:
    """Return each module with each other one that it imports."""
    known = modules()
    return [(known[name], known[other]) for name in known for other in known[name].imports if other != name]


def allowed(module: Module, other: Module) -> bool:
    if module.package == other.package == "_anyfork_client":
        return True
    if module.package == other.package:
        return other.folder == module.folder or other.folder in (
            CHILD[module.folder] if module.package == "_anyfork_child" else OWNER[module.folder] | BOTTOM
        )
    if module.name == "_anyfork_client.__main__":
        return other.name == "anyfork._cli.command_line"
    if other.package == "_anyfork_client":
        return module.folder in ("_programs", "_cli", "_pools")
    return module.package == "anyfork" and other.folder in ("wire", "values", "")


def test_imports_run_along_the_arrows():
    broken = {(module.name, other.name) for module, other in arrows() if not allowed(module, other)}
    assert sorted(broken) == [], "these imports are not allowed: see docs/architecture.md"


def test_every_folder_has_its_arrows():
    folders = {(module.package, module.folder) for module in modules().values() if module.package != "_anyfork_client"}
    assert folders == {("_anyfork_child", name) for name in CHILD} | {("anyfork", name) for name in OWNER}


@pytest.mark.parametrize("rules", [CHILD, OWNER], ids=["child", "owner"])
def test_the_arrows_between_folders_form_no_circle(rules):
    left = {name: set(targets) for name, targets in rules.items()}
    while free := [name for name in left if not left[name] & {*left}]:
        for name in free:
            del left[name]
    assert left == {}


def test_the_child_imports_nothing_of_the_owner():
    assert [arrow for arrow in arrows() if arrow[0].package == "_anyfork_child" and arrow[1].package == "anyfork"] == []


def test_the_client_imports_nothing_of_the_library_when_it_runs_a_program():
    broken = [
        (arrow[0].name, arrow[1].name)
        for arrow in arrows()
        if arrow[0].package == "_anyfork_client" != arrow[1].package
    ]
    assert broken == [("_anyfork_client.__main__", "anyfork._cli.command_line")]


def test_no_modules_import_each_other():
    found = {described(circle) for circle in circles()}
    assert sorted(found) == [], "these modules import each other: move what both need into a module below"


def described(circle: list[str]) -> str:
    """Name the modules of a circle, each without what it has in common with the one before."""
    words, before = [], ""
    for name in sorted(circle):
        folder = name.rpartition(".")[0]
        words.append(
            name.removeprefix(f"{folder}.") if folder == before else name.removeprefix("_anyfork_child." * bool(words))
        )
        before = folder
    return " ".join(words)


def circles() -> list[list[str]]:
    """Find the modules that reach each other along imports, type-checking ones included."""
    after = {name: reachable(name) for name in modules()}
    groups: dict[frozenset[str], list[str]] = defaultdict(list)
    for name in modules():
        if name in after[name]:
            groups[frozenset(other for other in after[name] if name in after[other])].append(name)
    return [*groups.values()]


def reachable(name: str) -> set[str]:
    found: set[str] = set()
    ahead = [name]
    while ahead:
        new = {other for other in modules()[ahead.pop()].imports if other in modules()} - found
        found |= new
        ahead += new
    return found


def test_a_folder_has_at_most_twenty_entries():
    folders = [SRC, *(path for path in SRC.rglob("*") if path.is_dir() and path.name != "__pycache__")]
    entries = {str(folder.relative_to(SRC)): sum(map(counts, folder.iterdir())) for folder in folders}
    assert {folder: count for folder, count in entries.items() if count > MOST} == {}


def counts(path: Path) -> bool:
    """Return whether a reader of the sources sees this entry: it is not built, nor a folder left by another version."""
    if path.is_dir():
        return any(path.rglob("*.py"))
    return path.suffix not in (".so", ".pyd")


def test_a_file_has_at_most_four_hundred_lines_of_code():
    lengths = {module.name: code_lines(module.path) for module in modules().values()}
    assert {name: length for name, length in lengths.items() if length > LONGEST} == {}


def code_lines(path: Path) -> int:
    docstrings = {
        line
        for node in nodes(path)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        and ast.get_docstring(node) is not None
        for line in range(node.body[0].lineno, (node.body[0].end_lineno or 0) + 1)
    }
    lines = map(str.strip, path.read_text().splitlines())
    return sum(bool(line) and line[0] != "#" and number not in docstrings for number, line in enumerate(lines, 1))


def test_sub_packages_are_free_to_import():
    # Importing one module of a folder must not load the others.
    for path in [path for package in PACKAGES for path in (SRC / package).rglob("*/__init__.py")]:
        if path.parent.name not in ("aio", "_pyinstaller"):
            assert len(ast.parse(path.read_text()).body) == 1, f"{path} has more than its docstring"


def test_the_page_on_the_architecture_names_modules_that_are_there():
    page = (SRC.parent / "docs" / "architecture.md").read_text()
    named = re.findall(r"`((?:\w+/)+\w+)`", page)
    assert named
    places = [SRC, SRC / "anyfork", SRC / "_anyfork_child"]
    gone = [
        name
        for name in named
        if not any((place / name).is_dir() or (place / f"{name}.py").exists() for place in places)
    ]
    assert gone == []


PLATFORM = "_anyfork_child.wire.platform"
# Who else may ask what the system or this version of Python has, and why.
MAY_ASK = {
    "_anyfork_child": "asks before anything else is imported",
    "_anyfork_child.program.ending": "does what each version of the interpreter does",
    "_anyfork_child.program.execution": "does what each version of the interpreter does",
    "_anyfork_child.birth.lazy_imports": "lazy imports are its subject",
    "_anyfork_child.template.fork_hooks": "asks about a state of the program, which may change",
    "_anyfork_child.template.heap": "immortal objects are its subject",
    "_anyfork_child.template.program_start": "a function of CPython has other parameters in another version",
    "_anyfork_child.wire.memfd": "files in memory are its subject",
    "_anyfork_client.messages": "the client imports nothing of the library",
    "_anyfork_client.place": "the client imports nothing of the library",
    "anyfork": "asks before anything else is imported",
    "anyfork._cli.doctor": "tells users what their system has",
    "anyfork._processes.launch": "a fault of one version of the interpreter",
    "anyfork._system.interpreter": "the executable of a program is its subject",
    "anyfork._system.locks": "locks are its subject",
    "anyfork._system.polling": "asks what gevent and eventlet have left of the module, at each use",
}
SYSTEM_MODULES = {
    *("fcntl", "mmap", "os", "posix", "resource", "select", "signal", "socket", "sys", "thread", "threading", "time"),
    *("types", "RLock"),
}
EVERYWHERE = {"argv", "excepthook", "fsencode", "stderr", "stdout"}  # a program may delete them or misuse them


def probes(code: list[ast.AST]) -> Iterator[ast.AST]:
    """Find where a module asks for the system, for the version of Python, or for a name that not each of them has."""
    for node in code:
        match node:
            case ast.Attribute(ast.Name("sys"), "platform") | ast.Attribute(ast.Name("os"), "name" | "uname"):
                yield node
            case ast.Compare() if "sys.version_info" in ast.unparse(node):
                yield from (part for part in ast.walk(node) if isinstance(part, ast.Tuple))
            case ast.Call(ast.Name("hasattr" | "getattr"), [ast.Name(module), ast.Constant(name), *_]):
                if module.removeprefix("_") in SYSTEM_MODULES and name not in EVERYWHERE:
                    yield node
            case ast.Try(body, handlers) if any("AttributeError" in ast.unparse(handler) for handler in handlers):
                yield from (part for statement in body for part in ast.walk(statement) if is_of_system(part))


def is_of_system(node: ast.AST) -> bool:
    match node:
        case ast.Attribute(ast.Name(module), name):
            return module.removeprefix("_") in SYSTEM_MODULES and name not in EVERYWHERE
    return False


def test_only_the_platform_module_asks_what_the_system_has():
    ask = {module.name for module in modules().values() if any(probes(nodes(module.path)))}
    assert ask == {PLATFORM, *MAY_ASK}
