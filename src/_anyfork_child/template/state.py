"""The state of a template, as the modules below template.template see it. Nothing of this is there at run time."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any, Protocol

    from ..birth.title import Title
    from ..values.decode import Payload
    from ..wire.channel import Channel
    from ..wire.failure import Failure
    from ..wire.frames import Frame
    from .children import Children
    from .fork_hooks import Lists

    class Loop(Protocol):
        """The compiled loop: see template.compiled."""

        collapse: Callable[[int, int], int]
        make_immortal: Callable[[list[object]], None] | None

        def fits(self, template: TemplateState) -> bool:
            """Return whether it can serve a template that has just been settled."""

        def serve(self, template: TemplateState) -> list[Any] | None:
            """Serve a template until something unusual has been dealt with."""

    class TemplateState(Protocol):
        """A Template, whose class says what each attribute and method is."""

        arguments: tuple[Payload, ...]
        attributes: dict[str, Any]
        changed: bool
        channel: Channel
        collapses: bool
        container: int
        children: Children | None
        failure: Failure | None
        flags: int
        forking: bool
        forks: int
        generation: int
        hooks: Lists | None
        handler: Callable[[int, Any], None]
        immortal: bool
        hook_errors: tuple[Any, ...]
        ignored: Sequence[int]
        lifeline: int
        new_children: Callable[..., Children]
        past: list[object]
        pid: int
        relay: bool
        reports: int
        resets: Sequence[Callable[[], object]]
        settled: bool
        shows_function: bool
        signals: Sequence[int]
        stdio: Sequence[int]
        title: Title
        titled: bool
        told: bool
        told_to_end: int
        user_hook: Callable[[Any], Any]
        fork: Callable[[], int]
        choose_fork: Callable[[], Callable[[], int]]
        compiled: Loop | None
        loop: Loop | None
        note: str

        def collapse_heap(self) -> None: ...
        def differ(self, body: bytes, fds: Sequence[int]) -> None: ...
        def find_function(self, name: str, values: Sequence[object]) -> Callable[..., object]: ...
        def hear(self, data: bytes, fds: Sequence[int], got: int) -> list[Any] | None: ...
        def immortalize(self) -> None: ...
        def idle(self) -> None: ...
        def keep_signals(self) -> None: ...
        def make_children(self) -> None: ...
        def send(self, frame: Frame) -> None: ...
        def show_idle(self) -> None: ...
        def take_signals(self) -> None: ...
        def tell_hook_errors(self) -> None: ...
        def unraisable(self, error: Any) -> None: ...
        def warm_up(self) -> None: ...
