"""Descriptors among values for another machine: they are refused, because they do not travel. Used by both sides."""

from __future__ import annotations

from .reduce import CannotTravelError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .encode import Encoded


def check_none(encoded: Encoded) -> None:
    """Raise CannotTravelError for a descriptor in a message to another machine."""
    if encoded.fds:
        raise CannotTravelError("a descriptor cannot go to another machine")


def refusal(call: str, encoded: Encoded, host: str) -> str:
    """Return why a request cannot go to a remote template on this host: empty if no descriptor is in it."""
    if not encoded.fds:
        return ""
    held = encoded.holders[0] if encoded.holders else f"descriptor {encoded.fds[0]}"
    return f"{call}() cannot take {held!r} to {host}: descriptors do not travel to another machine"
