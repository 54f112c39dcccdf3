"""The multiprocessing context whose processes come from a template.

Importing this module makes the name ``"anyfork"`` known to multiprocessing, for APIs that take a start method by name.
"""

from __future__ import annotations

from _anyfork_child.values.multiprocessing_context import AnyforkContext as AnyforkContext
from _anyfork_child.values.multiprocessing_context import AnyforkProcess as AnyforkProcess
from _anyfork_child.values.multiprocessing_context import default_context

from ._blocking.template import Template
from ._errors import ArgumentError
from ._multiprocessing import (
    popen as popen,  # starts processes: loaded here, once, and not by several threads at their first process
)


def get_context(template: Template | None = None) -> AnyforkContext:
    """Return a multiprocessing context whose processes are forked from ``template``, by default the default template.

    It has everything that ``multiprocessing.get_context()`` has: Process, Queue, Lock, Pool, Manager and so on. The
    template stays usable and stays the caller's; its processes have its environment and directory, while processes of
    the default template have the program's present ones. Functions and classes of ``__main__`` travel by value: it is
    never imported or run again. Raises ArgumentError for anything but a blocking Template.
    """
    if template is None:
        return default_context()
    if not isinstance(template, Template):
        raise ArgumentError(f"get_context() needs a Template of the blocking face, not {type(template).__name__}")
    return AnyforkContext(template)
