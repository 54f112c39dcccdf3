"""The compiled part of a template: the one place that decides whether it is used, or its twin in Python.

It is there if a C compiler was when anyfork was built. ANYFORK_COMPILED=0 in the environment of a template forbids it;
ANYFORK_COMPILED=1 demands it.
"""

from __future__ import annotations

import os

from .compiled_loop import CompiledLoop
from .fork_hooks import choose_fork, find_lists
from .template import children_class

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import ModuleType

    from .template import Template

INTERFACE = 6  # of the compiled part that fits these modules: one of another state of the sources may lie beside them
VARIABLE = "ANYFORK_COMPILED"


def use_compiled(template: Template) -> None:
    """Have the compiled part serve this template, if it is there and finds the interpreter's lists of its hooks.

    Raises ImportError if it is demanded and cannot be used.
    """
    fast = _load()
    template.hooks = lists = find_lists()
    if fast is None:
        return
    if lists is not None:
        template.choose_fork = lambda: choose_fork(fast, lists)
        template.compiled = CompiledLoop(fast)
        template.new_children = children_class(fast.ChildTable)
    elif os.environ.get(VARIABLE) == "1":
        raise ImportError(f"{VARIABLE}=1, but this interpreter does not show its lists of fork hooks: unset {VARIABLE}")


def _load() -> ModuleType | None:
    """Return the compiled part, or None if it is not there, does not fit, or is forbidden.

    Raises ImportError if it is demanded and cannot be used.
    """
    wish = os.environ.get(VARIABLE)
    if wish == "0":
        return None
    try:
        from . import _fast
    except ImportError as error:
        if wish == "1":
            raise ImportError(f"{VARIABLE}=1, but anyfork was built without its compiled part: {error}") from error
        return None
    if _fast.INTERFACE == INTERFACE:
        return _fast
    if wish == "1":
        raise ImportError(f"{VARIABLE}=1, but {_fast.__file__} is of another version: build anyfork anew")
    return None
