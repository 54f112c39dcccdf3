"""The kept templates of one process: made in the background, and made again when they are stale."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from functools import partial

from _anyfork_client.place import START_VARIABLES

from .._blocking.generation import WROTE, NotWarmError, make, settled, split_installed
from .._blocking.sources import Sources, snapshot_after
from .._errors import AnyforkError, PreloadError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any, TypeAlias

    from .._blocking.generation import Generation

    Kind: TypeAlias = "tuple[Recipe, tuple[str, ...], tuple[tuple[bytes, bytes], ...]]"


COOL_DOWN = 10.0  # seconds until what failed is tried again
ATTEMPTS = 5  # to find a template that is up to date
LONG_COOL_DOWN = 600.0  # seconds, for what nobody has asked for
MOST_TEMPLATES = 8  # those that were not used for the longest time end first
AT_START = tuple(name.encode() for name in START_VARIABLES)


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


class KeptTemplate:
    """A template by its recipe: there is none, one is being made, or one is ready."""

    def __init__(self, recipe: Recipe, options: Sequence[str]) -> None:
        self.recipe = recipe
        self.starts: int = 0
        self.last_use: float = time.monotonic()
        self._options = options
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._made: Generation | None = None
        self._base: Generation | None = None  # with the installed modules alone, if there are others; of the maker
        self._maker: threading.Thread | None = None
        self._why = ""
        self._not_before = 0.0
        self._sources_of_failure = Sources((), (), 0)
        self._left_out: set[str] = set()  # learned modules that cannot be loaded
        self._distrusted: set[str] = set()  # files that have changed, whose byte code may be older

    def use(self) -> None:
        """Note that somebody needs this template now."""
        self.last_use = time.monotonic()

    def get(self, env: Mapping[bytes, bytes]) -> Generation:
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
                self._distrusted.update(made.sources.changes())
                self._drop()
            self._make(env)
            raise NotWarmError(why)

    def await_made(self, env: Mapping[bytes, bytes]) -> Generation:
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

    def discard(self, made: Generation) -> None:
        """Let go of a template that does not work."""
        with self._lock:
            if self._made is made:
                self._drop()
                self._drop_base()

    def close(self) -> None:
        """Let the template end, or that which is being made; processes that were forked from it go on."""
        self._closed.set()
        with self._lock:
            self._drop()
            self._drop_base()

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
        base, facts["state"] = self._base, "ready"
        facts |= {"pid": made.template.pid, "base": None if base is None else base.template.pid}
        return {**facts, "modules": [*made.modules], "age": now - made.since, "seconds": made.seconds}

    def _drop(self) -> None:
        if self._made is not None:
            self._made.template.close()
        self._made = None

    def _drop_base(self) -> None:
        base, self._base = self._base, None
        if base is not None:
            base.template.close()

    def _make(self, env: Mapping[bytes, bytes]) -> None:
        if self._maker is None and not self._closed.is_set() and self._may_try():
            self._why = ""
            maker = threading.Thread(target=self._run, args=(dict(env),), name="anyfork maker")
            try:
                maker.start()
            except RuntimeError as error:  # there can be no more threads now
                self._why = f"the template cannot be made: {error}"
            else:
                self._maker = maker

    def _may_try(self) -> bool:
        return time.monotonic() >= self._not_before or bool(self._sources_of_failure.changed())

    def _run(self, env: Mapping[bytes, bytes]) -> None:
        """Make a template from files that do not change meanwhile. Runs in a thread of its own."""
        made, why = None, ""
        try:
            made = settled(partial(self._attempt, env), self._closed.wait)
        except (AnyforkError, OSError) as error:
            why, self._sources_of_failure = f"the template cannot be made: {error}", snapshot_after(error)
        with self._lock:
            self._maker, self._made, self._why = None, made, why
            pause = LONG_COOL_DOWN if self.recipe.learned else COOL_DOWN
            self._not_before = 0.0 if made else time.monotonic() + pause
            if self._closed.is_set():
                self._drop()
                self._drop_base()

    def _attempt(self, env: Mapping[bytes, bytes]) -> Generation:
        """Make a template; leave out learned modules that cannot be loaded. Raises AnyforkError and OSError."""
        recipe = self.recipe
        while True:
            names = [name for name in recipe.preload if name not in self._left_out]
            try:
                made = self._load(names, env)
            except PreloadError as error:
                if not recipe.learned or error.module in self._left_out:
                    raise
                self._left_out.add(error.module)
                continue
            if made.wrote:
                made.template.close()
                raise OSError(WROTE)
            return made

    def _load(self, names: Sequence[str], env: Mapping[bytes, bytes]) -> Generation:
        """Make a template; from one that still has the installed modules, if only others may have changed."""
        load = partial(
            make, watch=self.recipe.watch, flags=self._options, env=env, cwd=self.recipe.directory,
            distrusted=self._distrusted, for_programs=True,
        )  # fmt: skip
        if self.recipe.learned:
            return load(names, refused=self.recipe.refused)
        installed, rest = split_installed(names)
        if not (installed and rest):
            self._drop_base()
            return load(names)
        base = self._base
        if base is None or not base.serves(env):
            self._drop_base()
            base = self._base = settled(partial(load, installed), self._closed.wait)
        return load(rest, base=base)


class KeptTemplates:
    """Templates by their recipe, the options of their interpreter, and the variables that only its start reads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._templates: dict[Kind, KeptTemplate] = {}

    def get(self, recipe: Recipe, options: Sequence[str], env: Mapping[bytes, bytes]) -> KeptTemplate:
        """Return the template for programs with these options and this environment. It may not be made yet."""
        kind = recipe, tuple(options), tuple(sorted(item for item in env.items() if item[0].startswith(AT_START)))
        with self._lock:
            kept = self._templates.setdefault(kind, KeptTemplate(recipe, options))
            kept.use()
            by_use = sorted(self._templates, key=lambda kind: -self._templates[kind].last_use)
            surplus = [self._templates.pop(kind) for kind in by_use[MOST_TEMPLATES:]]
        for one in surplus:
            one.close()
        return kept

    def all(self) -> list[KeptTemplate]:
        """Return the templates of now."""
        with self._lock:
            return [*self._templates.values()]

    def close(self) -> None:
        """Let all templates end; processes that were forked from them go on."""
        for kept in self.all():
            kept.close()
