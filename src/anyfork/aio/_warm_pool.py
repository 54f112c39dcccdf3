"""An async pool, whose templates may be made again when they are stale: it moves to their latest."""

from __future__ import annotations

import warnings
from copy import copy
from functools import partial

from anyio import Event

from .._errors import AnyforkError, ArgumentError, CallCancelledError
from .._pools.generations import FollowingPool, in_place, several
from .._processes.flows import why_gone
from ._pool_loop import PoolLoop
from ._template import Template
from ._waiting import run
from ._warm import Warm, receiver_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, TypeAlias

    from .._blocking.generation import Generation
    from .._blocking.template import Template as BlockingTemplate
    from .._blocking.warm import Warm as BlockingWarm
    from .._pools.generations import Followed
    from .._pools.pool_options import PoolOptions
    from .._processes.handles import TemplateHandle
    from ._loop import FutureLike, Loop

    Made: TypeAlias = tuple[Generation, BlockingTemplate]


class _Asking:
    """A task that waits until the pool has looked at its templates, and why that has failed."""

    __slots__ = ("error", "waiting")

    def __init__(self, waiting: FutureLike) -> None:
        self.waiting = waiting
        self.error: Exception | None = None

    def answer(self, error: Exception | None) -> None:
        if not self.waiting.done():  # or it was cancelled
            self.error = copy(error) if isinstance(error, AnyforkError) else error
            self.waiting.set_result(None)


class WarmPoolLoop(FollowingPool, PoolLoop):
    """A PoolLoop that takes Warms: no call runs in a worker with code older than the files at the call.

    It looks in a thread, while the event loop goes on. One look serves all calls that were made before it began.
    """

    def __init__(self, given: Any, options: PoolOptions) -> None:
        unmade = {one: Template._unmade(receiver_of(one)) for one in several(given) if isinstance(one, Warm)}
        self._asking: list[_Asking] = []
        self._asked = 0  # calls that wait for a look, or have just got its answer
        self._ends: list[Event] = []  # for tasks that wait for these calls
        self._looks = False  # a task looks at the templates
        super().__init__(in_place(given, unmade), options)
        for warm, template in unmade.items():
            self._follow_from(template, warm)
        self.bounded = self.bounded or bool(unmade)  # so each call enters the queue by ``enter_queue``, which looks
        for source in self.scheduler.sources:
            source.awaited = self._followed_by(source) is not None

    def templates(self, call: str) -> list[TemplateHandle]:
        """Do the same as ``PoolHandle.templates``. Raises ArgumentError, too, before the first call with a Warm."""
        if any(followed.generation is None for followed in self.followed):
            raise ArgumentError(
                f"{call}(): the pool makes the template of its Warm at the next call: call a function before"
            )
        return super().templates(call)

    def replace_template(self, new: Any, old: Any = None) -> None:
        """Do the same as ``PoolLoop.replace_template``; follow a Warm from the next call on."""
        if not isinstance(new, Warm):
            super().replace_template(new, old)
            return
        source = self._source_for(new, old)
        self._check("replace_template")
        new._warm._check("replace_template")
        self.bounded = True
        self.change(partial(self._replace_by_warm, source, new))

    async def follow(self) -> None:
        """Wait for a look at the templates that begins after this call. Raises what prevents a template."""
        if not self.followed:
            return
        loop = self.here("call")
        asking = _Asking(loop.waiting())
        self._asking.append(asking)
        self._asked += 1
        try:
            if not self._looks:
                self._begin_to_look(loop)
            await asking.waiting
        finally:
            self._asked -= 1
            if not self._asked:
                self._wake_ends()
        if asking.error is not None:
            raise asking.error

    def _begin_to_look(self, loop: Loop) -> None:
        try:
            self._looks = True  # before: the task may have looked when ``spawn`` returns
            loop.spawn(self._look)
        except BaseException:  # an interrupt, above all
            self._looks = False
            raise

    def _wake_ends(self) -> None:
        for event in self._ends:
            event.set()

    async def end(self) -> None:
        """Do the same as ``PoolLoop.end``, also for the calls that wait for a look: they are made before."""
        self._closed = True
        while self._asked and self._loop is not None and self._loop.runs and not self.scheduler.killed:
            event = Event()
            self._ends.append(event)
            await event.wait()
            self._ends.remove(event)
        await super().end()
        self._close_templates()

    def kill(self) -> None:
        """Do the same as ``PoolLoop.kill``. Nobody waits for calls that wait for a look."""
        super().kill()
        if self._closed:  # not in a forked copy of the owner
            self._close_templates()
        self.later(self._wake_ends)

    def leave(self) -> None:
        """Close the pool's own templates if nobody can use it any more, and it was not closed; warn then.

        Workers that still live are killed at the end of the loop, and the templates are closed with them.
        """
        in_use = self.pooled_workers or self.works or self.open or self._asked
        if self._closed or self.foreign or in_use or not any(one.generation for one in self.followed):
            return
        self._closed = True
        self._close_templates()
        warnings.warn(f"{self.what} of a Warm was not closed: await its aclose()", ResourceWarning, stacklevel=3)

    async def _look(self) -> None:
        """Look at the templates as long as somebody asks for it."""
        asking: list[_Asking] = []
        try:
            while self._asking:
                asking, self._asking = self._asking, []
                error = await self._move_on()
                for one in asking:
                    one.answer(error)
            self._looks = False
        except BaseException:  # this task is cancelled only when the loop ends
            self._looks = False
            why = "the pool was interrupted when it looked at its templates; nothing of the call has run"
            for one in (*asking, *self._asking):
                one.answer(CallCancelledError(why, may_have_run=False))
            raise

    async def _move_on(self) -> Exception | None:
        """Move to the latest templates; return what prevents that."""
        try:
            for followed in [*self.followed]:
                made = await self._find_newer(followed)
                if made is not None:
                    self._take(followed, made)
        except Exception as error:  # a function that makes templates may raise anything
            return error
        return None

    async def _find_newer(self, followed: Followed) -> Made | None:
        """Return the latest generation with a fork of it; None if the pool has it. Raises what prevents one."""
        known, source = followed.generation, followed.source
        if source is not None and known is not None:
            gone = await run(why_gone(source.key._link))
            known = None if gone else known
        if followed.source is None:  # another template has taken its place, maybe during the wait
            return None
        found: Made | None = await followed.warm._in_thread(_newer_than, known, followed.warm._warm)
        return found

    def _take(self, followed: Followed, made: Made) -> None:
        generation, template = made
        if template._link.receiver.remote is not self.remote and len(self.scheduler.sources) == 1:
            raise ArgumentError(
                "the pool could not know that its Warm makes templates on another machine: "
                "make the pool with it after await warm.template()"
            )
        new = Template.from_blocking(template)
        self._check_new(new)
        self.change(partial(self._take_over, followed, generation, new))

    def _make_next(self, followed: Followed, lost: TemplateHandle, error: BaseException) -> None:
        assert self._loop is not None
        self._loop.spawn(self._replace_lost, followed, lost, error)

    async def _replace_lost(self, followed: Followed, lost: TemplateHandle, error: BaseException) -> None:
        """Move to a template in place of one that has ended."""
        made = None
        try:
            made = await self._find_newer(followed)
            if made is not None and followed.template is lost:
                self._take(followed, made)
        except Exception as failure:  # as in ``_move_on``
            made, error = None, failure
        if made is None:
            self.request(partial(self._no_next, followed, lost, error))


def _newer_than(known: object, warm: BlockingWarm) -> Made | None:
    generation = warm._current("Pool")
    return None if generation is known else (generation, warm._fork_of(generation, {}))
