"""The debugger that this program runs under, if it is debugpy, which follows into other processes.

It would enter every interpreter that is started, with its threads. Templates are therefore started past it, and it is
led into the functions that take templates over: see _anyfork_child.birth.debugger.
"""

from __future__ import annotations

import os
import sys

from _anyfork_child.wire.frames import PREPARE

from .arguments import encode_call

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .link import Link


def is_debugged() -> bool:
    """Return whether a debugger runs this program."""
    pydevd: Any = sys.modules.get("pydevd")
    return pydevd is not None and "debugpy" in sys.modules and pydevd.get_global_debugger() is not None


def lead_debugger(link: Link) -> None:
    """Have a process that is about to be taken over connect to the debugger, if the debugger wants to follow."""
    pydevd: Any = sys.modules["pydevd"]
    setup = pydevd.SetupHolder.setup if is_debugged() else None
    if not setup or not setup.get("multiprocess"):
        return
    host, port = pydevd.dispatch()
    settings = {
        "host": host,
        "port": port,
        "access_token": setup.get("access-token"),
        "client_access_token": setup.get("client-access-token"),
        "ppid": os.getpid(),
    }
    constants, chosen = pydevd.pydevd_constants, pydevd.PydevdCustomization
    directory = os.path.dirname(os.path.abspath(pydevd.__file__))
    told = directory, constants.get_protocol(), chosen.DEBUG_MODE, settings
    link.post(PREPARE, encode_call("prepare", "_anyfork_child.birth.debugger:follow", told))
