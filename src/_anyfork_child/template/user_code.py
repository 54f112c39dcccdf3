"""User code in a template: the steps that prepare it, and the function of the attribute ``before``.

Whatever such code does, there is one template afterwards, with its own descriptors and signal handlers.
"""

from __future__ import annotations

import os
import sys

from ..birth.preparation import run_step
from ..values.decode import Payload
from ..wire.channel import close_all
from ..wire.descriptors import open_stdio
from ..wire.failure import Failure
from . import shutdown
from .fork_check import check_threads

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..wire.frames import Frame
    from .state import TemplateState

    Files = list[tuple[int, int]]


def prepare(template: TemplateState, kind: int, frame: Frame) -> None:
    """Run a step that prepares the template. Its failure is kept, for requests and for later forks."""
    if template.failure is not None:
        close_all(frame.fds)
        return
    payload = Payload(frame)
    before = _begin(template)
    try:
        run_step(kind, payload)
        _end_copy(template, 0)
        check_threads()
    except Failure as failure:
        if os.getpid() != template.pid:
            print(failure.traceback or failure.summary, end="", file=sys.stderr)
        _end_copy(template, 1)
        template.failure = failure
    except SystemExit as stop:
        code = shutdown.exit_code(stop)
        _end_copy(template, code)
        shutdown.finish(template, code)
    finally:
        _end(template, before)


def call(template: TemplateState, payload: Payload) -> None:
    """Call the function of the attribute ``before``. Raises Failure, and what the function raises.

    Runs in the new process.
    """
    before = _begin(template)
    try:
        function, *args = payload.load_call()
        function(*args)
        check_threads()
    finally:
        _end_copy(template, 0)
        _end(template, before)


def expect(template: TemplateState) -> None:
    """Restore the interpreter's state for user code: its unraisablehook. The next fork needs preparation."""
    if not template.changed:
        sys.unraisablehook = template.user_hook
    template.changed = True
    template.settled = False


def _begin(template: TemplateState) -> Files:
    expect(template)
    return _own_files(template)


def _end(template: TemplateState, before: Files) -> None:
    if before != _own_files(template):
        shutdown.end_without_descriptors(template.pid)
    template.take_signals()
    open_stdio()


def _own_files(template: TemplateState) -> Files:
    """Return the device and inode of each of the template's own descriptors that is open."""
    found = []
    for fd in (template.channel.fd, template.lifeline, template.reports):
        try:
            status = os.fstat(fd)
        except OSError:  # user code has closed it
            continue
        found.append((status.st_dev, status.st_ino))
    return found


def _end_copy(template: TemplateState, code: int) -> None:
    """End this process if user code has forked it and let it return: there must be only one template."""
    if os.getpid() != template.pid:
        shutdown.end_copy(code)
