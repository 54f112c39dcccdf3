"""What a program inherits from the process that starts it: collected by the client, applied by the template."""

from __future__ import annotations

import os
import resource

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

LIMITS = [getattr(resource, name) for name in dir(resource) if name.startswith("RLIMIT_")]


def inheritance(status: dict[str, str]) -> dict[str, Any]:
    """Return the attributes of this process that its programs have too. ``status`` is that of /proc/self/status."""
    return {
        "env": dict(os.environb),
        "umask": int(status["Umask:"], 8),
        "limits": {number: resource.getrlimit(number) for number in LIMITS},
        "priority": os.getpriority(os.PRIO_PROCESS, 0),
        "affinity": [*os.sched_getaffinity(0)],
        "ignored": _numbers(status["SigIgn:"]),
        "blocked": _numbers(status["SigBlk:"]),
    }


def _numbers(mask: str) -> list[int]:
    """Return the signals of a mask, a hexadecimal number."""
    bits = int(mask, 16)
    return [at + 1 for at in range(bits.bit_length()) if bits >> at & 1]
