"""The options that a worker is started with, the same for both faces."""

from __future__ import annotations

import os
import sys
from contextlib import contextmanager

from _anyfork_child.values.async_function import BACKENDS
from _anyfork_child.values.decode import Descriptor
from _anyfork_child.values.serializers import BY_NAME
from _anyfork_child.wire.call_messages import VERSION
from _anyfork_child.wire.frames import START

from .._errors import ArgumentError
from .._processes.arguments import check_function, encode_call, encode_for
from .._processes.start import take_over, warm_parent
from .._system import this_process
from .._system.import_path import ORDINARY
from .events import levels

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from typing import Any, Literal, TypedDict

    from _anyfork_child.values.functions_by_value import Receiver
    from _anyfork_child.values.serializers import Serializer

    from .._processes.handles import Backend, TemplateHandle
    from .._processes.link import Link
    from .call import Handler
    from .permits import Permits
    from .trace_file import TraceFile

    class WorkerOptions(TypedDict, total=False):
        """The options of a Worker, in both faces."""

        on_event: Handler | None
        serializer: str | Serializer
        initializer: Callable[..., object] | str | None
        initargs: Sequence[object]
        concurrency: int | None
        backend: Backend
        on_cancel: Literal["kill", "wait"]
        trace: str | os.PathLike[str] | None
        logs: bool


DEFAULTS: WorkerOptions = {
    "on_event": None,
    "serializer": "pickle",
    "initializer": None,
    "initargs": (),
    "concurrency": None,
    "backend": "asyncio",
    "on_cancel": "kill",
    "trace": None,
    "logs": False,
}
MODULE = "_anyfork_child.worker.loop"
LOGS_MODULE = "_anyfork_child.worker.logs"
TITLE_MODULE = "_anyfork_child.worker.title"
WINDOW = 64  # calls of a map that are under way to a worker at the same time


class Options:
    """The options of a Worker, checked. Raises ArgumentError."""

    def __init__(self, given: WorkerOptions) -> None:
        unknown = given.keys() - DEFAULTS.keys()
        if unknown:
            raise ArgumentError(f"Worker() has no option {min(unknown)!r}; there are {', '.join(DEFAULTS)}")
        options: Any = {**DEFAULTS, **given}
        self.on_event: Handler | None = options["on_event"]
        self.serializer = find_serializer(options["serializer"])
        self.initializer: Callable[..., object] | str | None = options["initializer"]
        self.initargs = tuple(options["initargs"])
        self.concurrency: int | None = options["concurrency"]
        self.backend: str = options["backend"]
        self.on_cancel: str = options["on_cancel"]
        self.trace: str | os.PathLike[str] | None = options["trace"]
        self.logs = bool(options["logs"])
        self.title: tuple[str, bool] | None = None  # the pool's name, and whether the running function is shown too
        self.in_pool = False  # SystemExit of a function ends only its call
        if self.concurrency is not None and self.concurrency < 1:
            raise ArgumentError(f"Worker(): concurrency must be 1 or more, not {self.concurrency}")
        if self.backend not in BACKENDS:
            raise ArgumentError(f"Worker() has no backend {self.backend!r}; there are {' and '.join(BACKENDS)}")
        if self.on_cancel not in ("kill", "wait"):
            raise ArgumentError(f"Worker(): on_cancel must be 'kill' or 'wait', not {self.on_cancel!r}")
        if self.initializer is not None:
            check_function("the initializer of Worker", self.initializer)

    def arguments(self, permits: Permits | None) -> tuple[object, ...]:
        """Return the arguments of ``_anyfork_child.worker.loop.serve``."""
        reading = None if permits is None else Descriptor(permits.reading)
        known_levels = levels() if self.logs else None
        title = None if self.title is None else (this_process.pid, *self.title)
        call = self.concurrency, self.backend, self.initializer, self.initargs
        return VERSION, self.serializer, *call, reading, known_levels, title, self.in_pool

    def check_descriptors_stay_here(self, call: str, link: Link | None) -> None:
        """Check that the initializer can travel to a worker of this template, or of the default template for None.

        Raises ArgumentError if it cannot, and HandleError for a template that is used up.
        """
        if link is not None:
            link.check(call)
        if self.initializer is not None:
            receiver = ORDINARY if link is None else link.receiver
            with new_process(receiver.started_with(self.initializer)) as inner:
                encoded = encode_call(f"the initializer of {call}", self.initializer, self.initargs, inner)
            if link is not None:
                link.check_descriptors_stay_here(call, encoded)

    def start(self, template: TemplateHandle, module: str = MODULE, permits: Permits | None = None) -> Link:
        """Start a worker that takes over the template and runs ``serve`` of this module.

        Raises ArgumentError for an initializer that cannot travel.
        """
        link = template._link
        link.check("Worker")
        with new_process(link.receiver.started_with(self.initializer)) as receiver:
            encoded = encode_for("Worker", (self.arguments(permits),), 1, receiver=receiver)
        encoded.name = f"{module}:serve".encode()
        warm_parent(link, module)
        if self.logs:
            warm_parent(link, LOGS_MODULE)
        if self.title is not None:
            warm_parent(link, TITLE_MODULE)
        return take_over(link, "Worker", START, encoded)


@contextmanager
def new_process(receiver: Receiver) -> Iterator[Receiver]:
    """Let locks and queues of multiprocessing travel, if the program uses it: they can travel to new processes only."""
    if "multiprocessing.context" not in sys.modules or receiver.remote:
        yield receiver
        return
    from .._processes.multiprocessing_inheritance import inheriting  # only now: it imports multiprocessing

    with inheriting(receiver) as inner:
        yield inner


def find_serializer(serializer: str | Serializer) -> Serializer | None:
    """Return the serializer of that name; None for pickle. Raises ArgumentError."""
    if not isinstance(serializer, str):
        return serializer
    if serializer == "pickle":
        return None
    if serializer not in BY_NAME:
        raise ArgumentError(
            f"there is no serializer {serializer!r}: use pickle, {', '.join(BY_NAME)}, or your own object"
        )
    return BY_NAME[serializer]()


def find_trace(call: str, path: str | os.PathLike[str] | None) -> TraceFile | None:
    """Return the file for a timeline, if there is to be one. Raises ArgumentError."""
    if path is None and "ANYFORK_TRACE" not in os.environ:
        return None
    from .trace_file import trace_file_at

    return trace_file_at(call, path)


def check_window(window: int) -> None:
    """Raise ArgumentError for a window of ``map`` that lets no item through."""
    if window < 1:
        raise ArgumentError(
            f"the window of map() must be 1 or more, not {window}: it is how many items are under way at once"
        )
