"""The ends of a template, and what each of them leaves running.

Runs in templates: those that have forked processes must reap them, and must end them at the owner's end.
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

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

    from .children import Children
    from .template import Template

GRACE = 0.05  # seconds from SIGTERM to SIGKILL after the owner's end, of the 0.1 that everything may take
JUST_BORN = 0.005  # seconds after which a process follows the owner by itself, at the latest when it does anything
TURN = 0.4  # seconds for a template that has forked to get its turn; one that is stopped or deaf never will
PATIENCE = 2.0  # seconds for a template that has answered: its own grace, on a machine that is very busy


def finish(template: Template, code: int) -> NoReturn:
    """Accept nothing more and end with the last process forked from here: somebody must reap it."""
    children = template.children
    if children is not None:
        children.forget(template.channel.fd)
        template.channel.close()
        while len(children):
            if template.lifeline in children.wait():
                owner_gone(template)
    end(code)


def close(template: Template) -> NoReturn:
    """The handle is gone. What failed and nobody has asked for is said where the owner's errors go."""
    if template.failure is not None and not template.told:
        print(f"anyfork: a template that nobody waited for failed: {template.failure.summary}", file=sys.stderr)
    finish(template, 0)


def fail(template: Template, failure: Failure) -> NoReturn:
    """Tell the owner why this process does not become what it was to become."""
    template.send(Frame(FAILED, 0, failure.pack()))
    finish(template, 1)


def reject(template: Template, error: Exception) -> NoReturn:
    """Report that what came is no frame, and end: nothing after it can be understood."""
    failure = Failure("protocol", "", error)
    print(f"anyfork: this template ends, its owner sent {failure.summary}", file=sys.stderr)
    fail(template, failure)


def end_without_descriptors(pid: int) -> NoReturn:
    """End a template whose code has closed its descriptors, or has opened others under their numbers: touch none."""
    print(
        f"anyfork: template {pid} ends: code that it ran has closed or replaced descriptors that it had not opened; "
        "look for os.closerange and os.close in what it preloads, executes and prepares",
        file=sys.stderr,
    )
    end_copy(1)


def owner_gone(template: Template) -> NoReturn:
    """The owner has ended, however: end all processes forked from here that are not detached, and this one."""
    _end_children(template)
    end(0)


def terminated(template: Template, number: int) -> None:
    """SIGTERM is how an owner's end reaches a template in the middle of a long step: pass it on, and die of it."""
    mine = os.getpid() == template.pid  # and not a new process that has not become itself
    if mine and template.forking:
        template.told_to_end = number  # by a handler between a fork and its bookkeeping: see template.fork_loop
        return
    signal(number, SIG_IGN)  # a second one must not begin anew in the middle of this
    if mine:
        _end_children(template)
    signal(number, SIG_DFL)
    os.kill(os.getpid(), number)


def _end_children(template: Template) -> None:
    """SIGTERM at once, SIGKILL after the grace; but a template that has forked, or has answered, is ending its own
    meanwhile, or will as soon as it gets a turn, and if it were killed nobody would."""
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


def _wait_for_ends(children: Children, seconds: float) -> None:
    now = monotonic()
    deadline = now + seconds
    while now < deadline and children.any_attached():
        children.wait(deadline - now)
        now = monotonic()
