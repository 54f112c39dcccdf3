"""The kernel provisioner for Jupyter: each kernel runs in a process that is forked from a template.

A kernel specification names it as ``"anyfork"``, with the modules that the template loads.
"""

from __future__ import annotations

import asyncio
import atexit
import os
import pathlib
import sys
from subprocess import PIPE

from .._blocking.generation import NotWarmError
from .._errors import ArgumentError
from .._programs.command_line import NotAProgramError, take_apart
from .._programs.kept_templates import KeptTemplates, Recipe
from .._programs.owned_program import OwnedProgram, start_kept
from ._engine import require

require("jupyter_client", "8.6", "jupyter")

from jupyter_client.provisioning import LocalProvisioner
from traitlets import List, Unicode
from traitlets.config import SingletonConfigurable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any


NEEDED = (
    "ipykernel.kernelapp", "ipykernel.zmqshell", "ipykernel.debugger", "tornado.platform.asyncio", "sqlite3", "psutil",
    "IPython.core.debugger", "IPython.core.completerlib", "IPython.core.oinspect", "IPython.extensions.storemagic",
)  # fmt: skip
# ipykernel reads this variable when it is imported. With the number of init, it does not watch its parent, which is the
# template here: a kernel must outlive that, and ends with this process, as OwnedProgram sees to.
WITHOUT_POLLER = {"JPY_PARENT_PID": "1"}
# Variables for modules that read them when they are imported, which happens in the template.
DEFAULTS = {
    "MPLBACKEND": "module://matplotlib_inline.backend_inline",  # ipykernel sets it before a cell can import matplotlib
    "PYDEVD_DISABLE_FILE_VALIDATION": "1",  # otherwise the debugger prints a warning, which kernels do not show
}
UNKNOWN = 255  # for Jupyter, which only asks whether a kernel has ended: its template was killed first


class Provisioner(LocalProvisioner):  # type: ignore[misc]  # the checker does not look into Jupyter
    """A provisioner whose kernels are forked from a template that has ipykernel and the modules of ``preload`` loaded.

    A template is made for the first kernel that needs it. It is made again when it was killed, or when a file of its
    modules has changed. A kernel that a template cannot run starts as with Jupyter's own provisioner; the log says why,
    once for each reason.
    """

    preload: Any = List(Unicode(), help="The modules that the template imports.").tag(config=True)

    async def launch_kernel(self, cmd: list[str], **kwargs: Any) -> dict[str, Any]:
        """Start a kernel. Jupyter calls this."""
        templates = Templates.instance()
        try:
            kernel = await asyncio.to_thread(self._start, templates, cmd, self._scrub_kwargs(kwargs))
        except (NotWarmError, NotAProgramError, ArgumentError) as why:
            self._tell_cold(templates, str(why))
            connection: dict[str, Any] = await super().launch_kernel(cmd, **kwargs)
            return connection
        self._tell_cold(templates, kernel.cold or "")
        self.cwd: Any = kwargs.get("cwd", pathlib.Path.cwd())
        return self.connection_info  # type: ignore[no-any-return]  # of the base class

    def _start(self, templates: Templates, cmd: Sequence[str], keywords: dict[str, Any]) -> Kernel:
        """Start a kernel in a template. Runs in a thread of its own. Raises what ``start_kept`` raises."""
        command = [*map(os.path.expanduser, cmd)]
        if command[0] != sys.executable:
            raise NotAProgramError(f"its interpreter, {command[0]!r}, is not that of this server")
        options = take_apart(command).options
        outlives = keywords.pop("independent", False)
        env = DEFAULTS | keywords.pop("env", os.environ) | ({} if outlives else WITHOUT_POLLER)
        found = {os.fsencode(name): os.fsencode(value) for name, value in env.items()}
        kept = templates.kept.get(Recipe((*NEEDED, *self.preload), ()), options, found)
        stdin = keywords.pop("stdin", None)
        keywords = {**keywords, "stdin": PIPE if stdin is None else stdin, "start_new_session": True}
        kernel = start_kept(Kernel, kept, command, found, outlives=outlives, **keywords)
        if stdin is None and kernel.stdin is not None:
            kernel.stdin.close()
        self.process: Kernel | None = kernel  # here, for the caller may have given up
        self.pid: int | None = kernel.pid
        self.pgid: int | None = kernel.pid  # it leads a session
        return kernel

    def _tell_cold(self, templates: Templates, why: str) -> None:
        """Log why a kernel starts cold, the first time for each reason."""
        if why and why not in templates.told:
            templates.told.add(why)
            self.log.warning("A kernel of %r starts without a template: %s", self.kernel_spec.display_name, why)


class Templates(SingletonConfigurable):  # type: ignore[misc]  # as above
    """The templates of this process, and the reasons for cold starts that were logged."""

    def __init__(self, **keywords: Any) -> None:
        super().__init__(**keywords)
        self.kept: KeptTemplates = KeptTemplates()
        self.told: set[str] = set()
        atexit.register(self.kept.close)


class Kernel(OwnedProgram):
    """A kernel in a process of a template, as Jupyter expects it."""

    def _internal_poll(self, _deadstate: int | None = UNKNOWN, **others: Any) -> int | None:
        return super()._internal_poll(_deadstate, **others)
