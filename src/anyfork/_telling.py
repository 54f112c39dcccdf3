"""Telling those who wait what has become of their jobs. Without any lock: callbacks and handlers are anybody's code."""

from __future__ import annotations

from ._pending import Event

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any


def tell(finished: Iterable[tuple[Any, Any]]) -> None:
    """Of each what there is: an answer, an error, or None for what is cancelled. Or an event, and None."""
    for who, what in finished:
        if type(what) is tuple:
            who.finish(what)
        elif type(who) is Event:
            _handle(who)
        elif what is None:
            who.cancel()
        else:
            who.fail(what)


def _handle(event: Event) -> None:
    """Give an event to who wants it."""
    if event.handler is None:
        event.drop()
        return
    try:
        event.handler(event.value())
    except Exception as error:
        log("anyfork", "the on_event of an Executor has raised", error)


def log(name: str, text: str, error: BaseException) -> None:
    """Say it where nobody waits for it."""
    import logging

    logging.getLogger(name).critical(text, exc_info=error)
