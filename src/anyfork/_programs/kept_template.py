"""A template of the keeper: made in the background, and made again when it is stale."""

from __future__ import annotations

import marshal
import os
import sys
import threading
import time
from dataclasses import dataclass

from _anyfork_child.wire.memfd import new_file
from _anyfork_child.wire.program_reports import VOLATILE

from .._blocking.template import Template
from .._errors import AnyforkError, PreloadError
from .sources import UNSETTLED, Sources, expand

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence
    from typing import Any, TypeAlias

    Variable: TypeAlias = tuple[bytes, bytes | None]
    # Modules, files, directories, variables that were read, variables that were set, and whether all were read.
    Report: TypeAlias = tuple[list[str], list[str], list[str], list[Variable], list[Variable], bool]

MAKING_TIMEOUT = 600.0  # seconds
COOL_DOWN = 10.0  # seconds until what failed is tried again
LONG_COOL_DOWN = 600.0  # seconds, for what nobody has asked for
ATTEMPTS = 5  # to make a template from files that go on changing, or without modules that cannot be loaded


class NotWarmError(Exception):
    """Raised when a program cannot start from a template; the text says why."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """What a template is made of: modules to load, and paths to watch beside their files.

    ``learned`` modules are those that a program imported before; they are loaded in its ``directory``, and without
    those that are ``refused``.
    """

    preload: tuple[str, ...]
    watch: tuple[str, ...]
    learned: bool = False
    directory: str = "/"
    refused: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Made:
    """A template that is ready, and what it depends on.

    ``variables`` are those that its modules have read, with their values then, ``settings`` those that they have set.
    ``read_all`` says that a module has read the whole environment, where a further variable counts as well.
    """

    template: Template
    modules: Sequence[str]
    sources: Sources
    variables: Sequence[tuple[bytes, bytes | None]]
    settings: Sequence[tuple[bytes, bytes | None]]
    read_all: bool
    seconds: float
    since: float

    def outdated(self, env: Mapping[bytes, bytes]) -> str:
        """Return why a program with this environment cannot use the template; empty if it can."""
        changed = self.sources.changed()
        if changed:
            return f"{changed} has changed since the template was made"
        for name, value in self.variables:
            if env.get(name) != value:
                return f"{os.fsdecode(name)} differs from the template's, and a module has read it"
        further = env.keys() - VOLATILE - {name for name, _ in self.variables} if self.read_all else ()
        if further:
            return f"{os.fsdecode(min(further))} is new, and a module has read all variables"
        return ""

    def environment(self, env: Mapping[bytes, bytes]) -> dict[bytes, bytes]:
        """Return the environment of a program: with the variables that its modules set when they are loaded."""
        changed = dict(env)
        for name, value in self.settings:
            if value is None:
                changed.pop(name, None)
            else:
                changed[name] = value
        return changed


class KeptTemplate:
    """A template by its recipe: there is none, one is being made, or one is ready."""

    def __init__(self, recipe: Recipe, options: Sequence[str]) -> None:
        self.recipe = recipe
        self.starts: int = 0
        self.last_use: float = time.monotonic()
        self._options = options
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._made: Made | None = None
        self._maker: threading.Thread | None = None
        self._why = ""
        self._not_before = 0.0
        self._left_out: set[str] = set()  # learned modules that cannot be loaded

    def use(self) -> None:
        """Note that somebody needs this template now."""
        self.last_use = time.monotonic()

    def get(self, env: Mapping[bytes, bytes]) -> Made:
        """Return a template that is up to date. Raises NotWarmError, and has one made if there is none."""
        with self._lock:
            self.use()
            made = self._made
            why = self._why or "the template is being made"
            if made is not None:
                why = made.outdated(env)
                if not why:
                    self.starts += 1
                    return made
                self._drop()
            self._make(env)
            raise NotWarmError(why)

    def await_made(self, env: Mapping[bytes, bytes]) -> Made:
        """Return a template that is up to date, after it was made if there is none. Raises NotWarmError."""
        for _ in range(ATTEMPTS):  # others may need it for another environment at the same time
            try:
                return self.get(env)
            except NotWarmError:
                with self._lock:
                    maker = self._maker
            if maker is not None:
                maker.join()
        return self.get(env)

    def prepare(self, env: Mapping[bytes, bytes]) -> None:
        """Have the template made."""
        with self._lock:
            self._make(env)

    def discard(self, made: Made) -> None:
        """Let go of a template that does not work."""
        with self._lock:
            if self._made is made:
                self._drop()

    def close(self) -> None:
        """Let the template end, or that which is being made; processes that were forked from it go on."""
        self._closed.set()
        with self._lock:
            self._drop()

    def status(self, now: float) -> dict[str, Any]:
        """Return what ``anyfork status`` shows, as plain values."""
        made = self._made
        preload = sorted({*self.recipe.preload} - self._left_out)
        facts = {
            "preload": preload,
            "learned": self.recipe.learned,
            "watch": [*self.recipe.watch],
            "starts": self.starts,
        }
        if made is None:
            return {**facts, "state": self._why or "being made"}
        age, pid = now - made.since, made.template.pid
        return {**facts, "state": "ready", "pid": pid, "modules": [*made.modules], "age": age, "seconds": made.seconds}

    def _drop(self) -> None:
        if self._made is not None:
            self._made.template.close()
        self._made = None

    def _make(self, env: Mapping[bytes, bytes]) -> None:
        if self._maker is None and not self._closed.is_set() and time.monotonic() >= self._not_before:
            self._why = ""
            maker = threading.Thread(target=self._run, args=(dict(env),), name="anyfork maker")
            try:
                maker.start()
            except RuntimeError as error:  # there can be no more threads now
                self._why = f"the template cannot be made: {error}"
            else:
                self._maker = maker

    def _run(self, env: Mapping[bytes, bytes]) -> None:
        """Make a template from files that do not change meanwhile. Runs in a thread of its own."""
        made, why = None, ""
        for _ in range(ATTEMPTS):
            try:
                made = make(self.recipe, self._left_out, self._options, env)
            except PreloadError as error:
                why = f"the template cannot be made: {error}"
                if not self.recipe.learned:
                    break
                self._left_out.add(error.module)
                continue
            except (AnyforkError, OSError) as error:
                why = f"the template cannot be made: {error}"
                break
            late = made.sources.unsettled()
            if not late:
                break
            made.template.close()
            made, why = None, f"{late} has just changed"
            if self._closed.wait(UNSETTLED / 1e9):
                break
        with self._lock:
            self._maker, self._made, self._why = None, made, "" if made else why
            pause = LONG_COOL_DOWN if self.recipe.learned else COOL_DOWN
            self._not_before = 0.0 if made else time.monotonic() + pause
            if self._closed.is_set():
                self._drop()


def make(recipe: Recipe, left_out: Collection[str], options: Sequence[str], env: Mapping[bytes, bytes]) -> Made:
    """Return a template, ready. Raises AnyforkError and OSError."""
    began, at = time.time_ns(), time.monotonic()
    output = new_file()
    try:
        template = Template.new_exec(
            python=sys.executable, flags=options, env=env, cwd=recipe.directory, stdout=output.fd, stderr=output.fd
        )
        modules, files, directories, variables, settings, read_all = _load(template, recipe, left_out)
        if os.fstat(output.fd).st_size:
            template.close()
            raise OSError("a module wrote something when it was loaded, which programs would not show")
    finally:
        output.close()
    watched = expand(recipe.watch)
    sources = Sources([*files, *watched[0]], [*directories, *watched[1]], began)
    now = time.monotonic()
    return Made(template, modules, sources, variables, settings, read_all, now - at, now)


LOADED = "_anyfork_child.program.loaded"


def _load(template: Template, recipe: Recipe, left_out: Collection[str]) -> Report:
    """Load the modules of a recipe; return what the template has to say. Raises AnyforkError and OSError."""
    try:
        names = [name for name in recipe.preload if name not in left_out]
        template.prepare(f"{LOADED}:use_path_of_start")
        if recipe.learned:
            failed = _ask(template, "try_loading", names, recipe.refused)
            names = [name for name in names if name not in failed]
        template.prepare(f"{LOADED}:note_variables").preload(*names).prepare(f"{LOADED}:stop_noting")
        template.ready(MAKING_TIMEOUT)
        report: Report = _ask(template, "report")
        return report
    except BaseException:
        template.close()
        raise


def _ask(template: Template, function: str, *args: object) -> Any:
    """Return what a function finds out in a fork of a template. Raises AnyforkError and OSError."""
    with template.fork().run(f"{LOADED}:{function}", *args, timeout=MAKING_TIMEOUT) as process:
        process.channel.settimeout(MAKING_TIMEOUT)
        data = b""
        while piece := process.channel.recv(1 << 16):
            data += piece
    try:
        return marshal.loads(data)
    except (EOFError, ValueError, TypeError) as error:
        raise OSError(f"the template did not say what it has loaded: {error}") from error
