"""The dispatcher of an Executor, whose templates may be made again when they are stale: it moves to their latest."""

from __future__ import annotations

import threading
from _thread import RLock
from functools import partial

from .._blocking.waiting import run
from .._errors import AnyforkError
from .._pools.generations import Followed, FollowingPool, in_place, several
from .._processes.flows import why_gone
from .._processes.handles import TemplateSource
from .._system.locks import do_locked, try_locked
from .dispatcher import Dispatcher
from .interrupts import is_held

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .._blocking.generation import Generation
    from .._blocking.template import Template
    from .._pools.pool_options import PoolOptions
    from .._processes.handles import TemplateHandle


class WarmDispatcher(FollowingPool, Dispatcher):
    """A Dispatcher that takes Warms: no job runs in a worker with code older than the files at its submission."""

    def __init__(self, given: Any, options: PoolOptions, adaptive: bool) -> None:
        self._following = RLock()
        latest = {one: _latest(one, "Executor") for one in several(given) if isinstance(one, TemplateSource)}
        super().__init__(in_place(given, {warm: template for warm, (_, template) in latest.items()}), options, adaptive)
        for warm, (generation, template) in latest.items():
            self._follow_from(template, warm, generation)

    def follow(self) -> None:
        """Do the same as ``Dispatcher.follow``. Raises what prevents a template from being made."""
        if self._end_of_it() is None:
            if self._may_be_awaited:
                try_locked(self._following, self._follow)
            else:
                do_locked(self._following, self._follow)

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
        warms = [followed.warm for followed in [*self.followed]]
        return self.lock.held or any(map(is_in_use, warms)) or any(map(is_held, self.scheduler.sources))

    def _follow(self) -> None:
        for followed in [*self.followed]:
            if not _is_latest(followed):
                generation, template = _latest(followed.warm, "submit")
                self._check_new(template)
                self._change("submit", partial(self._take_over, followed, generation, template))

    def replace_template(self, new: Any, old: Any = None) -> None:
        """Do the same as ``Dispatcher.replace_template``; follow a Warm from now on.

        In the middle of another call, its template is made at the next submission.
        """
        if not isinstance(new, TemplateSource):
            super().replace_template(new, old)
            return
        source = self._source_for(new, old)
        latest = None
        if not (self._may_be_awaited or is_in_use(new)):
            latest = _latest(new, "replace_template")
            self._check_new(latest[1])
        self._change("replace_template", partial(self._replace_by_warm, source, new, latest))

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
        self.post(partial(self._take_next, followed, lost, *_latest(followed.warm, "submit")))

    def _take_next(self, followed: Followed, lost: TemplateHandle, generation: Generation, template: Template) -> None:
        """Move to another template. Runs in the dispatcher's thread, under the lock."""
        if followed.template is lost:
            self._take_over(followed, generation, template)

    def _no_next(self, followed: Followed, lost: TemplateHandle, error: BaseException) -> None:
        super()._no_next(followed, lost, error)
        if self.scheduler.hopeless and isinstance(error, AnyforkError):
            self.broken = error


def is_in_use(warm: Any) -> bool:
    """Return whether this thread was interrupted while it used a Warm or its template."""
    generation = warm._generation
    links = [] if generation is None else generation.template._link.line()
    return any(one._is_owned() for one in (warm._lock, *(link.lock for link in links)))


def _is_latest(followed: Followed) -> bool:
    """Return whether the pool's template may serve new jobs. Raises what prevents another one from being made."""
    if followed.warm._current("submit") is not followed.generation:
        return False
    template = followed.template
    return template is None or not has_ended(template)


def has_ended(template: TemplateHandle) -> bool:
    """Return whether a template can never be forked again."""
    return bool(run(why_gone(template._link)))


def _latest(warm: Any, call: str) -> tuple[Generation, Template]:
    """Return the present generation with a fork of it. Raises what prevents it from being made."""
    generation = warm._current(call)
    return generation, warm._fork_of(generation, {})
