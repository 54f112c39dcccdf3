"""Serializers, which turn the values of calls into bytes: pickle, which takes everything, or safe alternatives.

All but pickle are small objects: ``name``, ``dumps`` of a sequence of values into bytes, ``loads`` of bytes into a
sequence. They import their modules when they are used, in the owner and in the worker.
"""

from __future__ import annotations

from ..wire.failure import pack_parts, unpack_parts

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any, Protocol

    class Decoder(Protocol):
        """The interface of what reads the bytes of a serializer."""

        name: str

        def loads(self, data: bytes, /) -> Sequence[Any]:
            """Return the values. Raises any exception for bytes that are not from ``dumps``; must be safe for any."""

    class Serializer(Decoder, Protocol):
        """The interface of a serializer other than pickle."""

        def dumps(self, values: Sequence[Any], /) -> bytes:
            """Return the bytes for these values. Raises any exception for values that it cannot express."""


class Json:
    """A serializer of JSON: None, booleans, numbers, text, lists, mappings with text as keys. Tuples become lists."""

    name = "json"

    def dumps(self, values: Sequence[Any], /) -> bytes:
        """Return the values as one JSON array."""
        import json

        return json.dumps(values, separators=(",", ":"), ensure_ascii=False).encode("utf-8", "surrogatepass")

    def loads(self, data: bytes, /) -> Sequence[Any]:
        """Return the elements of a JSON array. Raises ValueError."""
        import json

        return _sequence(json.loads(data.decode("utf-8", "surrogatepass")))


class Msgpack:
    """A serializer of MessagePack: JSON's values, bytes and dates. It needs msgspec, installed on both sides."""

    name = "msgpack"

    def dumps(self, values: Sequence[Any], /) -> bytes:
        """Return the values as one MessagePack array."""
        import msgspec

        data: bytes = msgspec.msgpack.encode(values)
        return data

    def loads(self, data: bytes, /) -> Sequence[Any]:
        """Return the elements of a MessagePack array. Raises ValueError (msgspec.DecodeError)."""
        import msgspec

        return _sequence(msgspec.msgpack.decode(data))


class Raw:
    """A serializer of bytes alone: each argument and each result is a bytes-like object, and arrives as bytes."""

    name = "raw"

    def dumps(self, values: Sequence[Any], /) -> bytes:
        """Return the values, each after its length (u32, little endian). Raises TypeError for anything but bytes."""
        for value in values:
            if not isinstance(value, bytes | bytearray | memoryview):
                raise TypeError(f"the raw serializer takes bytes, not {type(value).__name__}")
        return pack_parts([bytes(value) for value in values])

    def loads(self, data: bytes, /) -> Sequence[Any]:
        """Return the values. Raises ValueError."""
        return unpack_parts(data)


def _sequence(values: Any) -> Sequence[Any]:
    if not isinstance(values, list):
        raise ValueError(f"received a {type(values).__name__} instead of an array of values")
    return values


BY_NAME: dict[str, Callable[[], Serializer]] = {"json": Json, "msgpack": Msgpack, "raw": Raw}
