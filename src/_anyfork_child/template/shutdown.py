"""The shutdown of a template, for each reason, and the processes that each leaves running.

Runs in templates. A template that has forked processes must reap them, and must end them when the owner ends.
"""

from __future__ import annotations

import os
import sys
from _signal import SIG_DFL, SIG_IGN, SIGKILL, SIGTERM, signal
from time import monotonic

from ..birth.exit import end as end
from ..birth.exit import end_copy as end_copy
from ..birth.exit import exit_code as exit_code
from ..birth.last_words import ENDING, report
from ..wire.failure import Failure
from ..wire.frames import FAILED, Frame
from ..wire.lifeline import has_ended
from ..wire.own_imports import import_own

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

    from .children import Children
    from .state import TemplateState

GRACE = 0.05  # seconds from SIGTERM to SIGKILL after the owner's end, of the 0.1 that everything may take
JUST_BORN = 0.005  # seconds after which a process follows the owner by itself, at the latest when it does anything
TURN = 0.4  # seconds for a template that has forked to be scheduled; one that is stopped or stuck never is
LAST_CLOSE = 0.2  # seconds from the end of one descriptor of a process that ends to that of another
PATIENCE = 2.0  # seconds for a template that has reported ENDING: its own grace, on a very busy machine


def finish(template: TemplateState, code: int) -> NoReturn:
    """Accept no more requests, reap all processes forked from here, and end with the last one."""
    children = template.children
    if children is not None:
        children.forget(template.channel.fd)
        template.channel.close()
        while len(children):
            if template.lifeline in children.wait():
                owner_gone(template)
    end(code)


def close(template: TemplateState) -> NoReturn:
    """End the template because its handle is gone. Print to standard error a failure that was not reported yet, unless
    the owner ends.
    """
    if template.failure is not None and not template.told and not _owner_ends(template):
        print(f"anyfork: a template that nobody waited for failed: {template.failure.summary}", file=sys.stderr)
    finish(template, 0)


def _owner_ends(template: TemplateState) -> bool:
    """Return whether the owner ends now: the system closes its sockets one after the other, and the lifeline too."""
    poller = import_own("select").poll()
    poller.register(template.lifeline)
    return bool(poller.poll(LAST_CLOSE * 1000))


def fail(template: TemplateState, failure: Failure) -> NoReturn:
    """Report to the owner why this process cannot do its task, and end."""
    template.send(Frame(FAILED, 0, failure.pack()))
    finish(template, 1)


def reject(template: TemplateState, error: Exception) -> NoReturn:
    """Report that the received bytes are not a valid frame, and end: the rest of the stream cannot be parsed."""
    failure = Failure("protocol", "", error)
    print(f"anyfork: this template ends, its owner sent {failure.summary}", file=sys.stderr)
    fail(template, failure)


def end_without_descriptors(pid: int) -> NoReturn:
    """End a template in which user code has closed its descriptors or reused their numbers; use none of them."""
    print(
        f"anyfork: template {pid} ends: code that it ran has closed or replaced descriptors that it had not opened; "
        "look for os.closerange and os.close in what it preloads, executes and prepares",
        file=sys.stderr,
    )
    end_copy(1)


def owner_gone(template: TemplateState) -> NoReturn:
    """End all processes forked from here that are not detached, and this one, because the owner has ended."""
    _end_children(template)
    _end_contained(template)
    end(0)


def terminated(template: TemplateState, number: int) -> None:
    """Handle SIGTERM, which tells a template in a long step of the owner's end: end its processes, then die of it.

    If the owner goes on, the signal may have been for the process group. Then a template whose processes may have left
    the group goes on, too.
    """
    mine = os.getpid() == template.pid  # False in a new process that is not complete yet
    if mine and template.forking:
        template.told_to_end = number  # the signal came between a fork and its bookkeeping: see template.fork_loop
        return
    template.told_to_end = 0
    if mine and not _has_ended(template.lifeline) and _goes_on(template):
        return
    signal(number, SIG_IGN)  # a second signal must not start this again
    if mine:
        _end_children(template)
        _end_contained(template)
    signal(number, SIG_DFL)
    os.kill(os.getpid(), number)


def _has_ended(lifeline: int) -> bool:
    try:
        return has_ended(lifeline)
    except OSError:  # user code has closed it
        return True


def _goes_on(template: TemplateState) -> bool:
    """Return whether processes of other groups may need this template; pass SIGTERM on to the processes of its group.

    It is handled in the middle of anything, so no process is reaped here. Templates below may have processes of other
    groups, and decide about these themselves.
    """
    children = template.children
    if children is None:
        return False
    others = children.in_other_groups()
    if not (others or children.parents()):
        return False
    children.kill_attached(SIGTERM, spare=others)
    return True


def _end_children(template: TemplateState) -> None:
    """End all processes that are not detached: by SIGTERM at once, by SIGKILL after the grace.

    Templates that have forked, or that have reported ENDING, get more time: they are ending their own processes, or
    will as soon as they are scheduled, and no other process could.
    """
    children = template.children
    if children is None or not children.any_attached():
        return
    told = set[int]() if template.relay else children.followers(monotonic() - JUST_BORN)
    children.kill_attached(SIGTERM, spare=told)
    report(template.reports, ENDING)
    children.forget_own()
    _wait_for_ends(children, GRACE)
    children.kill_attached(SIGKILL, spare=children.ending() | children.parents())
    _wait_for_ends(children, TURN)
    children.kill_attached(SIGKILL, spare=children.ending())
    _wait_for_ends(children, PATIENCE)
    children.kill_attached(SIGKILL)


def _end_contained(template: TemplateState) -> None:
    if template.container == template.pid:
        from ..birth.container import end_contained

        end_contained()


def _wait_for_ends(children: Children, seconds: float) -> None:
    now = monotonic()
    deadline = now + seconds
    while now < deadline and children.any_attached():
        children.wait(deadline - now)
        now = monotonic()
