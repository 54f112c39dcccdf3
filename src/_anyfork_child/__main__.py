"""Entry of an exec'ed template: an interpreter that anyfork has started, with its descriptors as arguments."""

from __future__ import annotations

import _signal
import _socket
import os
import sys

# isort: off
# In this order, the objects that a start touches lie on the fewest pages (python -m bench create --only parts).
from .birth import exit as exit  # noqa: A004  # the module
from .template import shutdown as shutdown
from .wire import channel as channel
from .wire.platform import forget_bind_now
from .birth import attributes as attributes
from .template import entry as entry
from .template.fork_check import note_threads
from .template import fork_loop as fork_loop
from .birth.inherited_descriptors import close_all_but
from .wire.descriptors import open_stdio
from .template.compiled import use_compiled
from .template.template import Template
from .birth.last_words import to_nobody
from .birth.title import Title
from .wire import resource_tracker as resource_tracker
from .template.top_frame import run
# isort: on

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn


def main(*arguments: str) -> NoReturn:
    """Serve as a template on the control socket until a function or program takes over this process, then run that.

    The arguments are the owner's pid, the descriptors of the control socket, the lifeline, the pipe for reports
    and the real standard error, flags as of a FORK frame, and attributes as ``name=value``. Up to this point,
    descriptor 2 is a file of the owner's, so that the owner can tell why an interpreter did not get this far.
    """
    note_threads()
    forget_bind_now(os.environb)
    owner, control, lifeline, reports, stderr, flags = map(int, arguments[:6])
    os.dup2(stderr, 2)
    close_all_but(0, 1, 2, control, lifeline, reports)
    open_stdio()
    _signal.pthread_sigmask(_signal.SIG_SETMASK, ())
    _signal.signal(_signal.SIGCHLD, _signal.SIG_DFL)  # if it is inherited as ignored, no child can be waited for
    for fd in (control, lifeline, reports):
        if fd >= 0:
            os.set_inheritable(fd, False)
    sock = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM, 0, control)
    template = Template(sock, lifeline, flags, reports if reports >= 0 else to_nobody(), Title(owner))
    use_compiled(template)
    template.keep(dict(part.split("=", 1) for part in arguments[6:]))
    if "title" in template.attributes:
        template.title.set(template.attributes["title"])
    sys.argv[:] = [""]
    run(template)
