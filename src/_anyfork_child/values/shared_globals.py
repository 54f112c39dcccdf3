"""Shared globals of functions by value: globals that one function assigns and others of its module see, as in the
program.

A function by value has globals of its own, with the values at the time of sending: no other function would see its
assignments. If a function of a module has a ``global`` statement, all functions that use the assigned names share one
namespace in each process instead. A value assigned in the process stays; other names have the value that the owner sent
last. The functions of a worker also share the globals that its initializer may change in place, as a cache that it
fills: after it has run, these stay.

The first half of this module runs where functions are sent, the second half where they arrive.
"""

from __future__ import annotations

import sys
from opcode import opmap
from types import BuiltinFunctionType, CodeType, FunctionType, ModuleType
from typing import TYPE_CHECKING

import cloudpickle

from .functions_by_value import ANY
from .global_names import globals_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

# Kinds of values that nobody changes, or that the owner redefines.
FIXED = (type(None), bool, int, float, complex, str, bytes, FunctionType, BuiltinFunctionType, type, ModuleType)
_STORES = ("STORE_GLOBAL", "DELETE_GLOBAL")
_OPCODES = frozenset(opmap[name] for name in _STORES)


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
        from dis import get_instructions  # only now: receiving processes do not need it

        yield from (step.argval for step in get_instructions(code) if step.opname in _STORES)
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


_namespaces: dict[str, dict[str, Any]] = {}  # of each module
_sent: dict[str, dict[str, Any]] = {}  # the values that the owner sent last, of each module


def keep_data() -> None:
    """Let the data that is here now stay, because an initializer may have changed it. Runs in a worker."""
    for module, namespace in _namespaces.items():
        sent = _sent.get(module, {})
        for name in [name for name in sent if _may_change(namespace.get(name))]:
            del sent[name]


def _make(code: CodeType, module: str, given: dict[str, Any], *rest: Any) -> FunctionType:
    namespace = _namespaces.setdefault(module, {**given})
    return cloudpickle.cloudpickle._make_function(code, namespace, *rest)  # type: ignore[no-any-return]  # no types


def _fill(function: FunctionType, state: tuple[dict[str, Any], dict[str, Any]]) -> None:
    attributes, parts = state
    there = function.__globals__
    sent = _sent.setdefault(there["__name__"], {})
    for name, value in parts["__globals__"].items():
        if name not in there or there[name] is sent.get(name, there):
            there[name] = sent[name] = value
    cloudpickle.cloudpickle._function_setstate(function, (attributes, {**parts, "__globals__": {}}))
