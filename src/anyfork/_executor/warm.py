"""The dispatcher of an Executor with templates that are made again when they are stale: it moves to their latest."""

from __future__ import annotations

import threading
from _thread import RLock
from functools import partial

from .._blocking.generation import why_gone
from .._blocking.warm import Warm
from .._errors import AnyforkError
from .._pools.following import Followed, FollowingPool
from .._system.locks import do_locked, try_locked
from .dispatcher import Dispatcher
from .interrupts import is_held

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    from .._blocking.generation import Generation
    from .._blocking.template import Template
    from .._pools.pool_options import PoolOptions
    from .._processes.handles import TemplateHandle
    from .jobs import AnyJob
    from .map import ExecutorMap


class WarmDispatcher(FollowingPool, Dispatcher):
    """A Dispatcher that sees to it that no job runs in a worker with code older than the files at its submission."""

    def __init__(self, given: Any, options: PoolOptions, adaptive: bool) -> None:
        self._following = RLock()
        several: Mapping[Any, int] = given if hasattr(given, "items") else {given: 0}
        self.followed = {one: Followed(one, *_latest(one)) for one in several if isinstance(one, Warm)}
        present = {self._present(one): limit for one, limit in several.items()}
        super().__init__(present if several is given else next(iter(present)), options, adaptive)
        self._follow_sources()

    def _accept(self, action: Callable[[Any], None], who: AnyJob | ExecutorMap) -> None:
        if self._end_of_it() is None:
            if self._may_be_awaited:
                try_locked(self._following, self._follow)
            else:
                do_locked(self._following, self._follow)
        super()._accept(action, who)

    def _run(self) -> None:
        try:
            super()._run()
        finally:
            if self.over:
                self._close_templates()

    def close(self, cancel: bool) -> None:
        """Do the same as ``Dispatcher.close``."""
        super().close(cancel)
        if not self.started:
            self._close_templates()

    @property
    def _may_be_awaited(self) -> bool:
        """True if another thread that follows may wait for this one.

        This one was interrupted, by a signal handler or a destructor, in the middle of a decision, or while it used one
        of the Warms or a template.
        """
        warms = [followed.warm for followed in [*self.followed.values()]]
        return self.lock.held or any(map(is_in_use, warms)) or any(map(is_held, self.scheduler.sources))

    def _follow(self) -> None:
        for followed in [*self.followed.values()]:
            if not _is_latest(followed):
                generation, template = _latest(followed.warm)
                self._check_new(template)
                self._change("submit", partial(self._take_over, followed, generation, template))

    def _make_next(self, followed: Followed, lost: TemplateHandle, error: BaseException) -> None:
        maker = threading.Thread(target=self._run_maker, args=(followed, lost, error), name="anyfork maker")
        try:
            maker.start()
        except RuntimeError:  # there can be no more threads now
            self._no_next(followed, lost, error)

    def _run_maker(self, followed: Followed, lost: TemplateHandle, error: BaseException) -> None:
        """Have a template made in place of one that has ended. Runs in a thread of its own: that may take long."""
        try:
            do_locked(self._following, self._make, followed, lost, error)
        except Exception as failure:  # a function that makes templates may raise anything
            self.post(partial(self._no_next, followed, lost, failure))

    def _make(self, followed: Followed, lost: TemplateHandle, error: BaseException) -> None:
        if _is_latest(followed):  # a submission was faster, or there is another reason
            raise error
        self.post(partial(self._take_next, followed, lost, *_latest(followed.warm)))

    def _take_next(self, followed: Followed, lost: TemplateHandle, generation: Generation, template: Template) -> None:
        """Move to another template. Runs in the dispatcher's thread, under the lock."""
        if followed.template is lost:
            self._take_over(followed, generation, template)

    def _no_next(self, followed: Followed, lost: TemplateHandle, error: BaseException) -> None:
        super()._no_next(followed, lost, error)
        if self.scheduler.hopeless and isinstance(error, AnyforkError):
            self.broken = error


def is_in_use(warm: Warm) -> bool:
    """Return whether this thread was interrupted while it used a Warm or its template."""
    generation = warm._generation
    links = [] if generation is None else generation.template._link.line()
    return any(one._is_owned() for one in (warm._lock, *(link.lock for link in links)))  # type: ignore[attr-defined]  # see _system.locks


def _is_latest(followed: Followed) -> bool:
    """Return whether the pool's template may serve new jobs. Raises what prevents another one from being made."""
    return followed.warm._current("submit") is followed.generation and not why_gone(followed.template)


def _latest(warm: Warm) -> tuple[Generation, Template]:
    """Return the present generation with a fork of it. Raises what prevents it from being made."""
    generation = warm._current("Executor")
    return generation, warm._fork_of(generation, {})
