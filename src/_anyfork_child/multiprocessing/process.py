"""The beginning of a process of the multiprocessing context, with the data that multiprocessing sends from its parent.

Runs in the process. Templates load this module, and with it the modules that most of these processes need.
"""

from __future__ import annotations

import _socket
import atexit
import os
import sys
from multiprocessing import process, spawn, util
from multiprocessing import queues as queues  # most processes get a queue
from multiprocessing import resource_tracker as resource_tracker  # the same
from types import FunctionType

from ..values import multiprocessing_context
from ..values.decode import Descriptor, keep_shared_data, load_values
from ..wire.resource_tracker import use as use_tracker
from .main_lookup import ask_owner

OF_POOLS = ("multiprocessing.pool", "concurrent.futures.process")

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
    from collections.abc import Sequence
    from typing import Any, NoReturn


def main(
    channel: socket.socket,
    preparation: dict[str, Any],
    environment: dict[bytes, bytes] | None,
    tracker: Descriptor,
    questions: Descriptor,
    body: bytes,
    descriptors: Sequence[Descriptor],
) -> NoReturn:
    """Run one process of a context, as multiprocessing.spawn._main does for forkserver, without running ``__main__``.

    Nothing is sent on the channel. The end of this side tells the parent process that everything inherited has arrived;
    the end of the other side tells this process that the parent process has ended.
    """
    multiprocessing_context.known_context()  # registers the method even if the import above was lazy
    atexit.register(util._exit_function)  # type: ignore[attr-defined]  # the template's exit handlers do not run here
    use_tracker(tracker.detach())
    ask_owner(questions.detach())
    if environment is not None and environment != os.environb:
        os.environb.clear()
        os.environb.update(environment)
    current: Any = process.current_process()
    current._inheriting = True
    try:
        spawn.prepare(preparation)
        (started,) = load_values(body, -1, [descriptor.detach() for descriptor in descriptors], ())
        keep_shared_data()
        if type(started._target) is FunctionType and started._target.__module__ in OF_POOLS:
            from .tasks import take_tasks  # only now: most processes are not workers of pools

            take_tasks(started)
    finally:
        del current._inheriting
    try:
        channel.shutdown(_socket.SHUT_WR)
    except OSError:  # the parent process has closed its side
        pass
    sys.exit(started._bootstrap(parent_sentinel=channel.detach()))
