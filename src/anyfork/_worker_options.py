"""What a worker is started with: the same for both faces."""

from __future__ import annotations

from _anyfork_child._call_wire import VERSION
from _anyfork_child._serializers import BY_NAME
from _anyfork_child._wire import START

from ._arguments import check_function, encode_for
from ._errors import ArgumentError
from ._forks import take_over, warm_parent

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Literal

    from _anyfork_child._serializers import Serializer

    from ._handles import TemplateHandle
    from ._link import Link

    OnCancel = Literal["kill", "wait"]

MODULE = "_anyfork_child._worker"
WINDOW = 64  # calls of a map that are on their way to a worker at the same time


class Options:
    """The options of a Worker, checked. Raises ArgumentError."""

    __slots__ = ("backend", "concurrency", "initargs", "initializer", "on_cancel", "serializer")

    def __init__(
        self,
        serializer: str | Serializer,
        concurrency: int | None,
        backend: str,
        initializer: Callable[..., object] | str | None,
        initargs: Sequence[object],
        on_cancel: str,
    ) -> None:
        if concurrency is not None and concurrency < 1:
            raise ArgumentError(f"a worker's concurrency must be 1 or more, not {concurrency}")
        if backend not in ("asyncio", "trio"):
            raise ArgumentError(f"a worker has no backend {backend!r}; there are asyncio and trio")
        if on_cancel not in ("kill", "wait"):
            raise ArgumentError(f"on_cancel must be 'kill' or 'wait', not {on_cancel!r}")
        if initializer is not None:
            check_function("the initializer of Worker", initializer)
        self.serializer = find_serializer(serializer)
        self.concurrency = concurrency
        self.backend = backend
        self.initializer = initializer
        self.initargs = tuple(initargs)
        self.on_cancel = on_cancel

    def arguments(self) -> tuple[object, ...]:
        """What _anyfork_child._worker.serve gets."""
        return VERSION, self.serializer, self.concurrency, self.backend, self.initializer, self.initargs

    def start(self, template: TemplateHandle) -> Link:
        """Let a worker take the template over. Raises ArgumentError for an initializer that cannot travel."""
        link = template._link
        link.check("Worker")
        encoded = encode_for("Worker", (self.arguments(),), 1)
        encoded.name = f"{MODULE}:serve".encode()
        warm_parent(link, MODULE)
        return take_over(link, "Worker", START, encoded)


def find_serializer(serializer: str | Serializer) -> Serializer | None:
    """The object of that name; None for pickle. Raises ArgumentError."""
    if not isinstance(serializer, str):
        return serializer
    if serializer == "pickle":
        return None
    if serializer not in BY_NAME:
        raise ArgumentError(f"there is no serializer {serializer!r}, but pickle, {', '.join(BY_NAME)}")
    return BY_NAME[serializer]()
