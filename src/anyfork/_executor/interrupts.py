"""Interrupts of an Executor's calls: what is refused in the middle of another call."""

from __future__ import annotations

from .._errors import HandleError
from .._processes.default_template import default_template

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Protocol

    from .._pools.pooled_worker import PooledWorker
    from .._pools.records import TemplateRecord
    from .._pools.scheduler import Scheduler
    from .._processes.link import Link

    class Interrupted(Protocol):
        """The dispatcher, as this module sees it."""

        scheduler: Scheduler
        pooled_workers: set[PooledWorker]


def cannot_put_off(call: str) -> HandleError:
    """Return the error for a call that cannot be left to the Executor's thread, because there is none yet."""
    return HandleError(
        f"{call}() in a signal handler or a destructor, in the middle of the first use of the Executor: it does "
        "not work yet; use the Executor once before, or call this later"
    )


def cannot_wait(call: str) -> HandleError:
    """Return the error for a wait that would never end."""
    return HandleError(
        f"{call} in a signal handler or a destructor that has interrupted another call: the Executor cannot go on "
        "before that call does; wait later, and use shutdown(wait=False) here"
    )


def holds_link_of(dispatcher: Interrupted) -> bool:
    """Return whether this thread was interrupted while it used a template that the dispatcher's thread may need now:
    for a new worker, or for one that starts.
    """
    workers = [*dispatcher.pooled_workers]
    processes = [getattr(one.channel, "process", None) for one in workers]  # there is none any more after the end
    links = [process._link for process in processes if process is not None]
    return any(map(is_held, dispatcher.scheduler.sources)) or any(map(_is_held, links))


def is_held(source: TemplateRecord) -> bool:
    """Return whether this thread was interrupted while it used the source's template, which a new worker needs."""
    link: Link | None = default_template._link if source.key is None else source.key._link
    return link is not None and _is_held(link)


def _is_held(link: Link) -> bool:
    return any(one.lock._is_owned() for one in link.line())  # type: ignore[attr-defined]  # see _system.locks
