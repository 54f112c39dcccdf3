"""The select module in its original state, also in a program that gevent or eventlet patches. Used by both sides."""

from __future__ import annotations

import select

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import ModuleType


def original_select() -> ModuleType:
    """Return the select module with all its functions; a second copy of it if the program's module was patched."""
    spec = select.__spec__
    if hasattr(select, "epoll") or spec is None or spec.loader is None:
        return select
    from importlib.util import module_from_spec  # only now: few programs are patched

    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
