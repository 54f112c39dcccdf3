"""The global random generators of a template, whose processes must each draw other numbers.

``random`` renews itself in a fork. numpy's global generator does not, and its ``seed()`` costs a new process some 170
page faults. The state of its usual kind, MT19937, is 624 words, which are overwritten with random bytes instead.
"""

from __future__ import annotations

from os import urandom
from sys import modules

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

STATE_WORDS = 624  # of the state of MT19937
SIZE = STATE_WORDS * 4  # bytes
ALL_USED = STATE_WORDS.to_bytes(4, "little")  # the position in the state: the next draw makes new words


def numpy_reset() -> Callable[[], object] | None:
    """Return a function that reseeds numpy's global generator in a new process; None if numpy.random is not loaded."""
    random = modules.get("numpy.random")
    if random is None:
        return None
    generator: Any = random.mtrand._rand._bit_generator
    if type(generator).__name__ != "MT19937":  # set_bit_generator() has replaced it, and seed() refuses it
        return lambda: setattr(generator, "state", type(generator)().state)
    state = _state_in_memory(generator)
    if state is None:
        return random.seed  # type: ignore[no-any-return]  # numpy need not be there for the type checker
    if random.get_state(legacy=False)["has_gauss"]:
        return lambda: _overwrite(state, random.standard_normal)
    return lambda: _overwrite(state)


def _overwrite(state: memoryview, draw_stored: Callable[[], object] | None = None) -> None:
    """Give the generator a random state, then draw the normal number that the template may have left in it.

    If the number is gone already, the draw leaves another one, which comes from the new state.
    """
    state[:] = urandom(SIZE) + ALL_USED
    if draw_stored is not None:
        draw_stored()


def _state_in_memory(generator: Any) -> memoryview | None:
    """Return the memory of the generator's words and position, or None if they are not where they are expected."""
    try:
        from ctypes import c_ubyte

        memory = memoryview((c_ubyte * (SIZE + 4)).from_address(generator.ctypes.state_address)).cast("B")
    except (ImportError, AttributeError):  # an interpreter without ctypes, or another numpy
        return None
    state = generator.state["state"]
    expected = state["key"].astype("<u4").tobytes() + int(state["pos"]).to_bytes(4, "little")
    return memory if memory == expected else None
