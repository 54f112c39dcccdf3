"""The multiprocessing context whose processes come from a template.

Importing this module makes the name ``"anyfork"`` known to multiprocessing, for APIs that take a start method by name.
"""

from __future__ import annotations

from _anyfork_child.values.multiprocessing_context import AnyforkContext as AnyforkContext
from _anyfork_child.values.multiprocessing_context import AnyforkProcess as AnyforkProcess
from _anyfork_child.values.multiprocessing_context import install as _install
from _anyfork_child.values.multiprocessing_context import known_context

from ._blocking.multiprocessing import (
    popen as popen,  # starts processes: loaded here, once, and not by several threads at their first process
)
from ._blocking.template import Template, is_template
from ._errors import ArgumentError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Literal

    from ._blocking.warm import Warm

REPLACEABLE = ("forkserver", "spawn")


def get_context(template: Template | Warm | None = None, *, main: Literal["import"] | None = None) -> AnyforkContext:
    """Return a multiprocessing context whose processes are forked from ``template``, by default the default template.

    It has everything that ``multiprocessing.get_context()`` has: Process, Queue, Lock, Pool, Manager and so on. The
    template stays usable and stays the caller's; its processes have its environment and directory, while processes of
    the default template have the program's present ones.

    Functions and classes of ``__main__`` travel by value: it is never imported or run again. With ``main="import"``,
    each process imports the program's file or module as ``__mp_main__``, as under forkserver and spawn: for programs
    that need their top level in every process, and have ``if __name__ == "__main__":``. Code that was typed in or given
    with ``-c`` cannot be imported, and travels by value even then.

    Raises ArgumentError for anything but a blocking Template, and for any other ``main``.

    For example::

        import anyfork

        ctx = anyfork.get_context()
        with ctx.Pool(2) as pool:
            assert pool.map(abs, [-1, -2]) == [1, 2]
    """
    _check("get_context", template, main)
    if template is None and main is None:
        return known_context()
    return AnyforkContext(template, main=main)


def install(
    method: Literal["forkserver", "spawn"] = "forkserver",
    template: Template | Warm | None = None,
    *,
    main: Literal["import"] | None = None,
) -> AnyforkContext:
    """Let a start method of multiprocessing start processes from a template. Return the context that now has its name.

    For libraries that only take a name, and for code that uses multiprocessing's default: from now on
    ``multiprocessing.get_context("forkserver")`` is a context of anyfork, in this program and in its processes, and so
    is the default context where that is forkserver, as it is since Python 3.14. Contexts that were made before stay
    what they are, so install first. ``template`` and ``main`` mean what they mean for ``get_context``. To install again
    replaces the context.

    ``multiprocessing.set_forkserver_preload`` then loads modules in the template; in the default template, unless one
    was given.

    Raises ArgumentError for other start methods and for wrong arguments.

    >>> import anyfork.context, multiprocessing
    >>> anyfork.context.install("forkserver")
    <AnyforkContext of the default template>
    >>> with multiprocessing.get_context("forkserver").Pool(1) as pool:
    ...     pool.map(abs, [-1, 2])
    [1, 2]

    For example::

        import multiprocessing
        import anyfork.context

        anyfork.context.install("forkserver")
        with multiprocessing.get_context("forkserver").Pool(1) as pool:
            assert pool.apply(abs, (-1,)) == 1
    """
    _check("install", template, main)
    if method not in REPLACEABLE:
        raise ArgumentError(f"install() replaces the start methods forkserver and spawn, not {method!r}")
    return _install(AnyforkContext(template, name=method, main=main))


def _check(call: str, template: object, main: object) -> None:
    if template is not None and not is_template(template):
        raise ArgumentError(f"{call}() needs a Template of the blocking face, not {type(template).__name__}")
    if main not in (None, "import"):
        raise ArgumentError(f"{call}(main={main!r}): pass 'import', or nothing for a __main__ that is not run again")
