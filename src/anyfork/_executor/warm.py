"""The dispatcher of an Executor with templates that are made again when they are stale: it moves to their latest."""

from __future__ import annotations

from _thread import RLock
from dataclasses import replace

from .._blocking.generation import why_gone
from .._blocking.warm import Warm
from .._system.locks import do_locked
from .dispatcher import Dispatcher

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    from .._blocking.generation import Generation
    from .._blocking.template import Template
    from .._pools.pool_options import NewLimits, PoolOptions
    from .._processes.handles import TemplateHandle
    from .jobs import AnyJob
    from .map import ExecutorMap


class Followed:
    """A Warm, its generation that the pool has moved to, and the fork of that which is the pool's template."""

    def __init__(self, warm: Warm) -> None:
        self.warm = warm
        self.generation, self.template = self.latest()

    def latest(self) -> tuple[Generation, Template]:
        """Return the present generation with a fork of it. Raises what prevents it from being made."""
        generation = self.warm._current("Executor")
        return generation, self.warm._fork_of(generation, {})

    def is_latest(self) -> bool:
        """Return whether the pool's template may serve new jobs."""
        return self.warm._current("submit") is self.generation and not why_gone(self.template)


class WarmDispatcher(Dispatcher):
    """A Dispatcher that sees to it that no job runs in a worker with code older than the files at its submission."""

    def __init__(self, given: Any, options: PoolOptions, adaptive: bool) -> None:
        self._following = RLock()
        several: Mapping[Any, int] = given if hasattr(given, "items") else {given: 0}
        self._followed = {one: Followed(one) for one in several if isinstance(one, Warm)}
        present = {self._present(one): limit for one, limit in several.items()}
        super().__init__(present if several is given else next(iter(present)), options, adaptive)

    def _present(self, template: Any) -> Any:
        followed = self._followed.get(template)
        return template if followed is None else followed.template

    def _accept(self, action: Callable[[Any], None], who: AnyJob | ExecutorMap) -> None:
        if self._end_of_it() is None:
            do_locked(self._following, self._follow)
        super()._accept(action, who)

    def _follow(self) -> None:
        for followed in self._followed.values():
            if not followed.is_latest():
                generation, template = followed.latest()
                super().replace_template(template, followed.template)
                followed.generation, followed.template = generation, template

    def resize(self, new: NewLimits) -> None:
        """Do the same as ``Dispatcher.resize``; the limits may be those of a Warm."""
        if new.limits is not None:
            new = replace(new, limits={self._present(one): limit for one, limit in new.limits.items()})
        super().resize(new)

    def replace_template(self, new: TemplateHandle, old: Any = None) -> None:
        """Do the same as ``Dispatcher.replace_template``, and do not follow the Warm that is replaced any longer."""
        super().replace_template(new, self._present(old))
        for warm in [*self._followed]:
            if old is None or old is warm:
                del self._followed[warm]
