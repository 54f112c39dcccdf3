"""How the values of calls become bytes: pickle, which knows everything, or something that can do no harm.

All but pickle are small objects: ``name``, ``dumps`` of a sequence of values into bytes, ``loads`` of bytes into a
sequence. They import what they need when they are used, in the owner and in the worker.
"""

from __future__ import annotations

from ..wire.failure import pack_parts, unpack_parts

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any, Protocol

    class Serializer(Protocol):
        """What a serializer other than pickle has to be."""

        name: str

        def dumps(self, values: Sequence[Any], /) -> bytes:
            """The bytes for these values. Raises any exception for what it cannot express."""

        def loads(self, data: bytes, /) -> Sequence[Any]:
            """The values. Raises any exception for what is not from ``dumps``; must be safe for any bytes."""


class Json:
    """What JSON has: None, booleans, numbers, text, lists, and mappings whose keys are text. Tuples become lists."""

    name = "json"

    def dumps(self, values: Sequence[Any], /) -> bytes:
        """One JSON array."""
        import json

        return json.dumps(values, separators=(",", ":"), ensure_ascii=False).encode("utf-8", "surrogatepass")

    def loads(self, data: bytes, /) -> Sequence[Any]:
        """Its elements. Raises ValueError."""
        import json

        return _sequence(json.loads(data.decode("utf-8", "surrogatepass")))


class Msgpack:
    """What MessagePack has: JSON's values, bytes and dates, by msgspec, which must be installed on both sides."""

    name = "msgpack"

    def dumps(self, values: Sequence[Any], /) -> bytes:
        """One MessagePack array."""
        import msgspec

        data: bytes = msgspec.msgpack.encode(values)
        return data

    def loads(self, data: bytes, /) -> Sequence[Any]:
        """Its elements. Raises ValueError (msgspec.DecodeError)."""
        import msgspec

        return _sequence(msgspec.msgpack.decode(data))


class Raw:
    """Bytes, and nothing else: each argument and each result is a bytes-like object, and arrives as bytes."""

    name = "raw"

    def dumps(self, values: Sequence[Any], /) -> bytes:
        """Each behind its length (u32, little endian). Raises TypeError for anything but bytes."""
        for value in values:
            if not isinstance(value, bytes | bytearray | memoryview):
                raise TypeError(f"the raw serializer takes bytes, not {type(value).__name__}")
        return pack_parts([bytes(value) for value in values])

    def loads(self, data: bytes, /) -> Sequence[Any]:
        """The parts. Raises ValueError."""
        return unpack_parts(data)


def _sequence(values: Any) -> Sequence[Any]:
    if not isinstance(values, list):
        raise ValueError(f"a {type(values).__name__} came where an array of values should be")
    return values


BY_NAME: dict[str, Callable[[], Serializer]] = {"json": Json, "msgpack": Msgpack, "raw": Raw}
