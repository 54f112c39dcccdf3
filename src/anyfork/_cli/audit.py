"""``anyfork audit``: what of a program's imports a template should load, and what it must not."""

from __future__ import annotations

import json
import sys
from shlex import join

from _anyfork_client.arguments import interpreter_options

from .. import AnyforkError
from .._programs.import_audit import UnreadableError, audit_imports

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from typing import NoReturn

    from .._processes.arguments import Kind
    from .._programs.import_audit import ImportAudit, ImportedModule

MEGABYTE = 1 << 20
SHOWN = 0.001  # seconds: safe modules that take less are only counted


def run(arguments: Sequence[str], fail: Callable[[str], NoReturn]) -> None:
    """Print the audit of a program. Raises SystemExit: with status 1 if there is no such program."""
    rest = [*arguments]
    as_json = rest[:1] == ["--json"]
    if as_json:
        del rest[0]
    kind: Kind = "-m" if rest[:1] == ["-m"] else "-c" if rest[:1] == ["-c"] else ""
    if kind:
        del rest[0]
    if not rest or (not kind and rest[0].startswith("-")):
        fail("audit needs a script, -m and a module, or -c and code")
    target = rest[0]
    try:
        found = audit_imports(kind, target, interpreter_options())
    except (UnreadableError, AnyforkError, OSError) as error:
        print(f"anyfork: the imports of {target} cannot be examined: {error}", file=sys.stderr)
        raise SystemExit(1) from None
    lines = [json.dumps(found.plain(), indent=1)] if as_json else _text(found, [kind, target] if kind else [target])
    print("\n".join(lines))


def _text(found: ImportAudit, program: Sequence[str]) -> Iterator[str]:
    seconds, memory = sum(one.seconds for one in found.modules), sum(one.memory for one in found.modules)
    yield f"imports: {seconds * 1000:.0f} ms, {memory / MEGABYTE:.1f} MB"
    rows = [*_rows(found.modules)]
    if rows:
        yield f"{'ms':>9} {'MB':>7}  module"
    yield from map(_row, rows)
    small = sum(1 for one in found.modules if one not in rows)
    if small:
        yield f"{'':>9} {'':>7}  {small} more, each below {SHOWN * 1000:g} ms"
    modules = found.all_modules
    yield from _section("unsafe to preload:", [f"{one.name} {text}" for one in modules for text in one.unsafe])
    yield from _section(
        "safe to preload, but not to use in a template:",
        [f"{one.name}: {text}" for one in modules for text in one.notes],
    )
    yield from _section("cannot be imported:", [f"{name}: {text}" for name, text in found.failed.items()])
    yield from _section("a template cannot load:", [f"{name}: {text}" for name, text in found.refused.items()])
    yield from _advice(found, program)


def _rows(modules: Sequence[ImportedModule]) -> Iterator[ImportedModule]:
    """Yield the modules to show: below a safe and installed one, none."""
    for one in modules:
        if one.seconds >= SHOWN or not one.is_safe:
            yield one
            if not one.is_safe or not one.installed:
                yield from _rows(one.imports)


def _row(one: ImportedModule) -> str:
    remark = ("" if one.installed else " (of the project)") + (" UNSAFE" if one.unsafe else "")
    return f"{one.seconds * 1000:9.1f} {max(one.memory, 0) / MEGABYTE:7.1f}  {'  ' * one.depth}{one.name}{remark}"


def _section(title: str, lines: Sequence[str]) -> list[str]:
    return ["", title, *(f"  {line}" for line in lines)] if lines else []


def _advice(found: ImportAudit, program: Sequence[str]) -> Iterator[str]:
    if found.template is None:
        yield "\nworth preloading: nothing"
        return
    options = [part for name in found.preload for part in ("--preload", name)]
    yield f"\nworth preloading (a template with it was made in {found.template:.1f} s):"
    yield f"  {join(['anyfork', 'run', *options, *program])}"
