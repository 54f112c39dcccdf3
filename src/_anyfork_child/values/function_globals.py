"""Globals of functions by value: which ones travel, and which ones the functions of a module share in a process.

cloudpickle takes along the globals that the code of a function loads. A class body in a function, a type hint that is
text, ``@name`` in a query of pandas, ``globals()``, ``eval``, ``sys.modules["__main__"]`` and ``pickle.loads`` find
globals in another way, only at run time. These must be found before a definition is sent.

A function by value has globals of its own, with the values at the time of sending: no other function would see its
assignments. If a function of a module has a ``global`` statement, all functions that use the assigned names share one
namespace in each process instead, as in the program. A value assigned in the process stays; other names have the value
that the owner sent last. The functions of a worker also share the globals that its initializer may change in place, as
a cache that it fills: after it has run, these stay.
"""

from __future__ import annotations

import dis
import re
import sys
from importlib import import_module
from opcode import opmap
from types import BuiltinFunctionType, CodeType, FunctionType, ModuleType
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from .functions_by_value import ANY

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from typing import Any

LARGE = 1 << 20  # bytes: limit for a global that is taken along only because the code may look up any name
_OF_CLASS_BODIES = frozenset({"LOAD_NAME", "LOAD_FROM_DICT_OR_GLOBALS", "LOAD_FROM_DICT_OR_DEREF"})
_LOOK_UP_ANYTHING = frozenset({"globals", "eval", "exec", "vars"})
_PICKLERS = frozenset({"_pickle", "cloudpickle", "dill", "joblib", "pickle", "shelve"})  # modules that look names up
_OPTIMIZED = 1  # the flag of the code of functions; class bodies do not have it
_WORD = re.compile(r"[^\W\d]\w*")
_IN_QUERIES = re.compile(r"@([^\W\d]\w*)")

# Kinds of values that nobody changes, or that the owner redefines.
FIXED = (type(None), bool, int, float, complex, str, bytes, FunctionType, BuiltinFunctionType, type, ModuleType)
_STORES = ("STORE_GLOBAL", "DELETE_GLOBAL")
_OPCODES = frozenset(opmap[name] for name in _STORES)


class Mentions:
    """The global names that code looks up.

    ``needs`` are looked up for certain, ``may_need`` possibly; ``anything`` is True if the code may look up any name,
    and ``definitions`` if it may look up any function or class.
    """

    def __init__(self, code: CodeType) -> None:
        self.needs: set[str] = set()
        self.may_need: set[str] = set()
        self.anything = self.definitions = False
        self._read(code)

    def _read(self, code: CodeType) -> None:
        in_class = not code.co_flags & _OPTIMIZED
        stored = set()
        for instruction in dis.get_instructions(code):
            name = instruction.argval
            if instruction.opname == "STORE_NAME":
                stored.add(name)
            elif instruction.opname in _OF_CLASS_BODIES:
                (self.may_need if name in stored else self.needs).add(name)
            if isinstance(name, str) and instruction.opname in ("LOAD_GLOBAL", "LOAD_NAME"):
                self.anything |= name in _LOOK_UP_ANYTHING
                self.definitions |= name in _PICKLERS
            elif instruction.opname == "IMPORT_NAME":
                self.anything |= name == "__main__"
                self.definitions |= name in _PICKLERS
        for constant in code.co_consts:
            if isinstance(constant, CodeType):
                self._read(constant)
            elif isinstance(constant, str):
                self.anything |= constant == "__main__"
                self.may_need.update((_WORD if in_class else _IN_QUERIES).findall(constant))


_read: WeakKeyDictionary[CodeType, Mentions] = WeakKeyDictionary()


def mentions(code: CodeType) -> Mentions:
    """Return the names that code looks up, including the code of functions and classes inside it."""
    found = _read.get(code)
    if found is None:
        found = _read[code] = Mentions(code)
    return found


def globals_of(function: FunctionType) -> dict[str, Any]:
    """Return the globals that the code of a function, and of definitions inside it, loads by name."""
    there = function.__globals__
    return {name: there[name] for name in sorted(_loaded(function.__code__)) if name in there}


def all_names(code: CodeType) -> set[str]:
    """Return all names of globals, attributes and modules in the code of a function and of definitions inside it."""
    inner = [all_names(constant) for constant in code.co_consts if isinstance(constant, CodeType)]
    return {*code.co_names}.union(*inner)


def _loaded(code: CodeType) -> set[str]:
    found = {step.argval for step in dis.get_instructions(code) if step.opname in ("LOAD_GLOBAL", *_OF_CLASS_BODIES)}
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            found |= _loaded(constant)
    return found


def needed(function: FunctionType) -> dict[str, Any]:
    """Return the globals that a function certainly looks up, but that cloudpickle does not see."""
    there = function.__globals__
    return {name: there[name] for name in sorted(mentions(function.__code__).needs) if name in there}


def looked_up(function: FunctionType) -> Iterator[tuple[str, Any, float]]:
    """Yield the names and values that a function may look up, and the most bytes that each may take."""
    found, there = mentions(function.__code__), function.__globals__
    named = found.may_need | words_of(hints_of(function)[0])
    for name in sorted(named):
        if name in there:
            yield name, there[name], float("inf")
    if found.anything or found.definitions or _unpickles(function):
        for name, value in [*there.items()]:
            definition = isinstance(value, FunctionType | type)
            wanted = definition or (found.anything and not isinstance(value, ModuleType))
            if wanted and name not in named and not name.startswith("__"):
                yield name, value, LARGE


def _unpickles(function: FunctionType) -> bool:
    """Return whether a function uses one that its module has imported from pickle or a library like it."""
    there, names = function.__globals__, function.__code__.co_names
    return any(getattr(there.get(name), "__module__", None) in _PICKLERS for name in names)


def hints_of(function: FunctionType) -> tuple[Mapping[str, object], bool]:
    """Return the type hints of a function, as text if they cannot be evaluated; and whether they can.

    Since Python 3.14 they are evaluated at the first access, and may name what only a type checker imports.
    """
    try:
        return function.__annotations__, True
    except Exception:  # a hint may be any expression
        annotationlib: Any = import_module("annotationlib")
        return annotationlib.get_annotations(function, format=annotationlib.Format.STRING), False


def words_of(annotations: Mapping[str, object]) -> set[str]:
    """Return the names in type hints that are text."""
    return {word for hint in annotations.values() if isinstance(hint, str) for word in _WORD.findall(hint)}


def assigned_in(namespace: dict[str, Any]) -> frozenset[str]:
    """Return the names that functions and methods of a module assign by a ``global`` statement."""
    return frozenset(name for code in _codes_in(namespace) for name in _assigned_by(code))


def _codes_in(namespace: dict[str, Any]) -> Iterator[CodeType]:
    for value in [*namespace.values()]:
        members = [*vars(value).values()] if isinstance(value, type) else (value,)
        for member in members:
            function = getattr(member, "__func__", member) if isinstance(member, staticmethod | classmethod) else member
            if isinstance(function, FunctionType) and function.__globals__ is namespace:
                yield function.__code__


def _assigned_by(code: CodeType) -> Iterator[str]:
    if not _OPCODES.isdisjoint(code.co_code[::2]):  # quicker than looking at each instruction
        yield from (step.argval for step in dis.get_instructions(code) if step.opname in _STORES)
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _assigned_by(constant)


def changed_by(initializer: Any, namespace: dict[str, Any]) -> frozenset[str]:
    """Return the names of the globals in this namespace that an initializer, or what it calls, may change in place."""
    found: dict[str, object] = {**namespace} if initializer is ANY else {}
    ahead = [getattr(initializer, "func", initializer)]  # of a partial
    while ahead:
        value = ahead.pop()
        function = getattr(value, "__func__", value)
        if isinstance(function, FunctionType) and function.__globals__ is namespace:
            new = {name: one for name, one in globals_of(function).items() if name not in found}
            found.update(new)
            ahead += new.values()
    return frozenset(name for name, value in found.items() if _may_change(value))


def _may_change(value: object) -> bool:
    return not isinstance(value, FIXED)


def is_of_module(function: FunctionType) -> bool:
    """Return whether the globals of a function are those of a module."""
    module = sys.modules.get(function.__module__)
    return module is not None and vars(module) is function.__globals__


def share(reduced: Any) -> Any:
    """Turn the reduction of a function into one whose copy shares its globals with its module."""
    _, (code, namespace, *rest), state, *_ = reduced
    return _make, (code, namespace.get("__name__"), namespace, *rest), state, None, None, _fill


# --- Where functions arrive ---

_namespaces: dict[str, dict[str, Any]] = {}  # of each module
_sent: dict[str, dict[str, Any]] = {}  # the values that the owner sent last, of each module


def keep_data() -> None:
    """Let the data that is here now stay, because an initializer may have changed it. Runs in a worker."""
    for module, namespace in _namespaces.items():
        sent = _sent.get(module, {})
        for name in [name for name in sent if _may_change(namespace.get(name))]:
            del sent[name]


def _make(code: CodeType, module: str, given: dict[str, Any], *rest: Any) -> FunctionType:
    from cloudpickle import cloudpickle  # only now: owners that send nothing by value do not need it

    namespace = _namespaces.setdefault(module, {**given})
    return cloudpickle._make_function(code, namespace, *rest)  # type: ignore[no-any-return]  # no types


def _fill(function: FunctionType, state: tuple[dict[str, Any], dict[str, Any]]) -> None:
    from cloudpickle import cloudpickle

    attributes, parts = state
    there = function.__globals__
    sent = _sent.setdefault(there["__name__"], {})
    for name, value in parts["__globals__"].items():
        if name not in there or there[name] is sent.get(name, there):
            there[name] = sent[name] = value
    cloudpickle._function_setstate(function, (attributes, {**parts, "__globals__": {}}))
