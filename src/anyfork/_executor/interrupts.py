"""Interrupts of an Executor's calls: what is refused in the middle of another call, and recovery of a torn decision.

The scheduler's state is rebuilt as _pools.recovery says. The jobs of each worker are recorded in steps that no
interrupt splits (see _system.locks). So no worker ends, and no job is lost.
"""

from __future__ import annotations

from time import monotonic

from .._errors import HandleError
from .._pools.records import WorkerState
from .._pools.recovery import adopt_all, complete_maps
from .._processes.default_template import default_template

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Protocol

    from .._pools.admission import Admission
    from .._pools.jobs import AnyJob
    from .._pools.map import MapItems
    from .._pools.records import TemplateRecord
    from .._pools.scheduler import Scheduler
    from .._processes.link import Link
    from .workers import Workers

    class Torn(Protocol):
        """The dispatcher whose decision was interrupted."""

        scheduler: Scheduler

        @property
        def admission(self) -> Admission: ...

        workers: Workers
        open: dict[AnyJob, None]
        works: set[MapItems]


def recover(dispatcher: Torn) -> None:
    """Rebuild the scheduler's state. Runs in the dispatcher's thread, under its lock, where no interrupt comes."""
    dispatcher.scheduler = scheduler = dispatcher.scheduler.anew()
    dispatcher.admission.count()
    workers = dispatcher.workers.pooled_workers
    present = [pooled_worker for pooled_worker in workers if pooled_worker.worker.state is not WorkerState.GONE]
    adopt_all(scheduler, present, dispatcher.open, monotonic())
    complete_maps(dispatcher.works, dispatcher.open)


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


def holds_link_of(dispatcher: Torn) -> bool:
    """Return whether this thread was interrupted while it used a template that the dispatcher's thread may need now:
    for a new worker, or for one that starts.
    """
    workers = [*dispatcher.workers.pooled_workers]
    processes = [getattr(one.channel, "process", None) for one in workers]  # there is none any more after the end
    links = [process._link for process in processes if process is not None]
    return any(map(is_held, dispatcher.scheduler.sources)) or any(map(_is_held, links))


def is_held(source: TemplateRecord) -> bool:
    """Return whether this thread was interrupted while it used the source's template, which a new worker needs."""
    link: Link | None = default_template._link if source.key is None else source.key._link
    return link is not None and _is_held(link)


def _is_held(link: Link) -> bool:
    return any(one.lock._is_owned() for one in link.line())  # type: ignore[attr-defined]  # see _system.locks
