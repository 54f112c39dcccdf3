"""Differences between systems, for the owner and for its templates."""

from __future__ import annotations

import _signal
import os

from .. import HOST

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, MutableMapping
    from typing import Any

OLDEST = (3, 11)  # the first Python that can be a template
signal_pidfd: Any = vars(_signal).get("pidfd_send_signal")  # Linux alone has it
BIND_NOW, OURS = b"LD_BIND_NOW", b"anyfork"


def has_pidfds() -> bool:
    """Return whether pidfds can be used: the system has them, and the owner is on the same machine.

    ANYFORK_PIDFD=0 in the environment disables them, for tests.
    """
    return hasattr(os, "pidfd_open") and not HOST and os.environ.get("ANYFORK_PIDFD") != "0"


def bind_now(environ: Mapping[bytes, bytes]) -> Mapping[bytes, bytes]:
    """Return the environment for an interpreter that becomes a template: its dynamic linker binds all functions early.

    Otherwise each new process would look up the functions that its template never calls, os._exit first of all.
    """
    return environ if BIND_NOW in environ else {**environ, BIND_NOW: OURS}


def forget_bind_now(environ: MutableMapping[bytes, bytes]) -> None:
    """Undo ``bind_now`` in the environment of the started interpreter."""
    if environ.get(BIND_NOW) == OURS:
        del environ[BIND_NOW]
