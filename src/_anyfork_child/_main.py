"""What ``__main__`` of a process has in common with that of its owner, where the owner's was copied (fork_here).

Such a template has the functions and classes of the program itself. They go by name then, both ways, as those of any
module; in all other templates whatever belongs to ``__main__`` goes by value.
"""

from __future__ import annotations

import sys
from types import FunctionType

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any, TypeAlias

    Names: TypeAlias = Mapping[str, object]

NOTHING: Names = {}

# In a copy of a program and what is forked from it: what it has in common with its owner. Set once, at its birth.
inherited: dict[str, object] = {}


def defined() -> dict[str, object]:
    """The functions and classes that ``__main__`` has now, by their names there. Proxies, which answer for others when
    they are asked what they are, are not asked."""
    named: dict[str, Any] = vars(sys.modules["__main__"])
    kinds = (FunctionType, type)
    return {n: value for n, value in named.items() if issubclass(type(value), kinds) and value.__module__ == "__main__"}
