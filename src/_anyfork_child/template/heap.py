"""The heap of a template: its huge pages, and its immortal objects. Both make forks cheaper. Runs in templates.

With huge pages, a fork copies one entry of the page tables for 2 MB, instead of 512. The kernel copies the heap into
huge pages, which costs more than a second for a gigabyte, so it is done once, for a large heap, when the template has
been forked several times. Pages that other processes share would be copied, and then exist twice: so it is done while
the template has no processes, and only for ranges of which it has all pages alone. The heap of an ancestor, which a
forked template shares, stays as it is.

CPython 3.12 and newer does not count the references to immortal objects, so that using them copies no page. All objects
that a template has when it is about to be forked become immortal: by the compiled part, or here, by ctypes.
"""

from __future__ import annotations

import gc
import sys
from time import monotonic
from types import CodeType

from ..wire.own_imports import import_own
from ..wire.platform import FREE_THREADED

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from typing import Any

    Collapse = Callable[[int, int], int]
    MakeImmortal = Callable[[list[object]], object]


PAGE = 4096
HUGE = 2 << 20
PAGES = HUGE // PAGE
ENTRY = 8  # bytes of /proc/self/pagemap for each page
# The highest byte of an entry: present, and mapped by this process alone; the pages of files have another bit.
ALONE, ABSENT = b"\x81", b"\0"
SPARSE = PAGES // 4  # most absent pages of a range: they become present
REACH = 16  # a heap that has grown fills at least this part of its mapping, from its beginning
LARGE = 16 << 20  # bytes: 8 MB more than a bare template has
SEVERAL = 8  # forks: by then, forks of a large template have taken a third of the time that is spent once
MADV_COLLAPSE = 25  # since Linux 6.1
TRANSPARENT = "/sys/kernel/mm/transparent_hugepage/enabled"
# The low half of the reference count of an immortal object, and the lowest that counts as such: see PEP 683. Since
# Python 3.14, the count changes if it is less than 3 << 30, and references from the stack, which were counted before,
# are dropped without a look at it: so it is a million higher.
IMMORTAL = (3 << 30) + (1 << 20) if sys.version_info >= (3, 14) else (1 << 32) - 1
LOWEST = 1 << 31
HAS_FLAGS = sys.version_info >= (3, 14)  # in the highest two bytes of the word of the reference count
FLAGS, IMMORTAL_FLAG = 6, 1
PARTS_OF_CODE = (
    "co_consts",
    "co_exceptiontable",
    "co_filename",
    "co_linetable",
    "co_name",
    "co_names",
    "co_qualname",
)  # code objects do not show them to the garbage collector


def has_large_heap() -> bool:
    """Return whether the heap of this process is large enough for huge pages, and the system has them."""
    try:
        with open("/proc/self/statm", encoding="ascii") as file:
            _, resident, of_files, *_ = map(int, file.read().split())
        with open(TRANSPARENT, encoding="ascii") as file:
            return (resident - of_files) * PAGE >= LARGE and "[never]" not in file.read()
    except OSError:  # no Linux, or no huge pages
        return False


def collapse_heap(collapse: Collapse) -> str:
    """Move the heap into huge pages; return a sentence that says how much, and how long it took; "" if nothing.

    ``collapse`` is ``madvise(MADV_COLLAPSE)`` for a range of addresses; it returns an error number, or 0.
    """
    began, before = monotonic(), _huge()
    for start in [*_own_ranges()]:
        collapse(start, start + HUGE)
    moved, duration = (_huge() - before) // 1024, monotonic() - began
    if not moved:
        return ""
    return f"moved {moved} MB of its memory to huge pages in {duration:.2f} s, once: this makes forks faster"


def collapse_by_ctypes() -> Collapse:
    """Return ``madvise(MADV_COLLAPSE)`` for where the compiled part is not in use."""
    ctypes: Any = import_own("ctypes")
    madvise = ctypes.CDLL(None, use_errno=True).madvise
    madvise.argtypes = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int
    return lambda start, end: madvise(start, end - start, MADV_COLLAPSE) and ctypes.get_errno()


def _huge() -> int:
    """Return how much memory of this process is in huge pages, in kB."""
    with open("/proc/self/smaps_rollup", encoding="utf-8", errors="replace") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("AnonHugePages"))


def _own_ranges() -> Iterator[int]:
    """Yield the addresses of ranges that can become huge pages: nearly full, writable, of this process alone."""
    with open("/proc/self/pagemap", "rb", buffering=0) as pagemap:
        for start, end in _dense(_writable()):
            pagemap.seek(start // PAGE * ENTRY)
            for address in range(start, end, HUGE):
                state = pagemap.read(PAGES * ENTRY)[ENTRY - 1 :: ENTRY]
                absent = state.count(ABSENT)
                if absent <= SPARSE and state.count(ALONE) + absent == PAGES:
                    yield address


def _dense(mappings: Iterable[tuple[int, int, int]]) -> Iterator[tuple[int, int]]:
    """Yield the part of each mapping to look at, in whole huge pages: at most REACH times what is resident of it.

    Programs reserve terabytes of which they use the beginning, and a look at a page costs the same if it is absent.
    """
    for start, end, resident in mappings:
        first = -(-start // HUGE) * HUGE
        yield first, min(end // HUGE * HUGE, first + resident * REACH // HUGE * HUGE)


def _writable() -> Iterator[tuple[int, int, int]]:
    """Yield start, end and resident bytes of each writable, private mapping without a file."""
    with open("/proc/self/smaps", encoding="utf-8", errors="replace") as file:
        for line in file:
            first, *rest = line.split()
            if not first.endswith(":"):
                addresses, (permissions, _, _, inode, *name) = first, rest
                wanted = permissions == "rw-p" and inode == "0" and (not name or name == ["[heap]"])
            elif first == "Rss:" and wanted:
                start, end = (int(address, 16) for address in addresses.split("-"))
                yield start, end, int(rest[0]) << 10


def why_not_immortal() -> str:
    """Return why this interpreter cannot have further immortal objects, or "" if it can."""
    version = "Python {}.{}".format(*sys.version_info)
    if sys.version_info < (3, 12):
        return f"{version} counts the references to all objects; use Python 3.12 or newer"
    if sys.version_info[:2] == (3, 14):  # LOAD_CONST_MORTAL: the count of a constant overflows after long loops
        return f"{version} goes on counting references to constants of code that has run before; use another version"
    if FREE_THREADED:
        return f"this {version} is free-threaded; use one with a GIL"
    if sys.maxsize < 1 << 32 or sys.byteorder != "little":
        return f"this {version} is not for a 64-bit, little-endian machine"
    return ""


def immortalize(make_immortal: MakeImmortal) -> None:
    """Make all objects of this process immortal that the garbage collector finds. It is to be frozen afterwards."""
    gc.unfreeze()  # the objects of a template that was forked before
    make_immortal(gc.get_objects())


def make_immortal_by_ctypes(objects: list[object]) -> None:
    """Make objects, and all that they hold, immortal."""
    ctypes: Any = import_own("ctypes")
    word, flags = ctypes.c_uint32.from_address, ctypes.c_uint16.from_address
    while objects:
        holder = objects.pop()
        for one in (holder, *_held(holder)):
            count = word(id(one))
            if count.value < LOWEST:
                count.value = IMMORTAL
                if HAS_FLAGS:
                    flags(id(one) + FLAGS).value |= IMMORTAL_FLAG
                # Containers that the garbage collector does not look at, and so not among the objects.
                if type(one) is CodeType or (isinstance(one, tuple | dict) and not gc.is_tracked(one)):
                    objects.append(one)


def _held(holder: object) -> Iterable[Any]:
    if type(holder) is CodeType:
        return [getattr(holder, name) for name in PARTS_OF_CODE]
    held = gc.get_referents(holder)
    return [*held, *dict.keys(holder)] if isinstance(holder, dict) else held  # it shows only keys that are no strings
