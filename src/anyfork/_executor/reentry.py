"""Refusals for a signal handler or a destructor that uses an Executor in the middle of another call of it."""

from __future__ import annotations

from .._errors import HandleError
from .._processes.default_template import default_template

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .._pools.records import TemplateRecord
    from .._processes.link import Link


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


def is_held(source: TemplateRecord) -> bool:
    """Return whether this thread was interrupted while it used the source's template, which a new worker needs."""
    link: Link | None = default_template._link if source.key is None else source.key._link
    return link is not None and any(one.lock._is_owned() for one in link.line())  # type: ignore[attr-defined]  # see _system.locks
