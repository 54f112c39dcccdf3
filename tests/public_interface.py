"""The public interface as text, a line for each name: ``python tests/public_interface.py`` writes it down."""

from __future__ import annotations

import ast
import inspect
import re
from pathlib import Path
from typing import TYPE_CHECKING, Generic

import anyfork
import anyfork.context
import anyfork.subprocess

if TYPE_CHECKING:
    from collections.abc import Iterator

WRITTEN = Path(__file__).with_suffix(".txt")
OURS = ("anyfork", "_anyfork_child")
PRIVATE = re.compile(r"\._")


def lines() -> list[str]:
    """Describe all public names. What a class inherits from the standard library is not ours to promise."""
    return [*(line for name, found in sorted(public().items()) for line in describe(name, found)), *options()]


def public() -> dict[str, object]:
    """Return the public names of the package, and those of its public modules that are defined there."""
    found = {f"anyfork.{name}": getattr(anyfork, name) for name in anyfork.__all__}
    for module in (anyfork.aio, anyfork.context, anyfork.subprocess):
        del found[module.__name__]
        for name, value in vars(module).items():
            if not name.startswith("_") and getattr(value, "__module__", "") == module.__name__:
                found[f"{module.__name__}.{name}"] = value
    return found


def describe(name: str, found: object) -> Iterator[str]:
    """Yield a line for a name, and one for each member of a class."""
    if isinstance(found, type):
        yield f"{name}{parameters(found)}: {', '.join(bases(found)) or 'class'}"
        yield from members(name, found)
    elif callable(found):
        yield f"{name}{parameters(found)}"
    else:
        yield f"{name} = {found!r}"


def bases(kind: type) -> Iterator[str]:
    """Yield the names of the classes that one may ask for instead, in except clauses for instance."""
    for base in kind.__mro__[1:-1]:
        ours = base.__module__.split(".")[0] in OURS
        if base is not Generic and not (ours and PRIVATE.search(f".{base.__module__}.{base.__name__}")):
            yield base.__name__


def options() -> Iterator[str]:
    """Yield a line for each keyword argument whose name and type a class of options has, for type checkers alone."""
    for path in sorted(Path(anyfork.__file__).parent.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ClassDef) and any(keyword.arg == "total" for keyword in node.keywords):
                known = ", ".join(ast.unparse(base) for base in node.bases)
                yield f"options {path.parent.name}.{node.name} ({known})"
                yield from (
                    f"  {node.name}.{ast.unparse(each)}" for each in node.body if isinstance(each, ast.AnnAssign)
                )


def members(name: str, kind: type) -> Iterator[str]:
    """Yield a line for each public member of a class that comes from one of our classes."""
    own = [each for each in kind.__mro__ if each.__module__.split(".")[0] in OURS]
    names = {member for each in own for member in (*vars(each), *inspect.get_annotations(each))}
    for member in sorted(member for member in names if not member.startswith("_")):
        value = getattr(kind, member, None)
        yield f"  {name}.{member}{parameters(value) if inspect.isroutine(value) else ''}"


def parameters(function: object) -> str:
    """Return the signature, or nothing for what has none."""
    try:
        return str(inspect.signature(function))  # type: ignore[arg-type]  # a ValueError says so
    except (TypeError, ValueError):
        return ""


if __name__ == "__main__":
    WRITTEN.write_text("".join(f"{line}\n" for line in lines()))
    print(f"written: {WRITTEN}")
