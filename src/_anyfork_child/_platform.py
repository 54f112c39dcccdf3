"""What differs between systems for a template: chosen once, when its interpreter starts."""

from __future__ import annotations

import os

from . import HOST

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from ._children import Children


def has_pidfds() -> bool:
    """True where the system has pidfds, and the owner is on the same. ANYFORK_PIDFD=0 in the environment forgoes them,
    for tests."""
    return hasattr(os, "pidfd_open") and not HOST and os.environ.get("ANYFORK_PIDFD") != "0"


def children_class() -> Callable[..., Children]:
    """How a template notices the ends of its processes."""
    if has_pidfds() and os.getpid() != 1:
        from ._children_by_pidfd import PidfdChildren

        return PidfdChildren
    from ._children_by_signal import SignalChildren

    return SignalChildren
