"""The Popen object of a process of the multiprocessing context, with the interface that multiprocessing expects."""

from __future__ import annotations

import os
import sys
from multiprocessing import connection, popen_fork, process, resource_tracker, spawn, util

from _anyfork_child.values.decode import Descriptor, file_name
from _anyfork_child.values.multiprocessing_context import preload_found
from _anyfork_child.wire.descriptors import Owned, duplicates
from _anyfork_child.wire.frames import PREPARE

from ..._errors import HandleError, StatusUnknownError
from ..._processes.arguments import encode_call
from ..._processes.default_template import default_template
from ..._processes.handles import TemplateSource
from ..._processes.multiprocessing_inheritance import encode_inherited
from ..._processes.start import tell_path, warm_template
from ..._system.import_path import current_directory
from ..._system.timeouts import seconds
from ..template import Template
from .main_lookup import MOMENT, lookup

TYPE_CHECKING = False
if TYPE_CHECKING:
    from multiprocessing.process import BaseProcess
    from typing import Any

    from _anyfork_child.values.encode import Encoded
    from _anyfork_child.values.multiprocessing_context import AnyforkProcess

    from ..._processes.link import Link
    from ..process import Process
    from ..warm import Warm

MODULE = "_anyfork_child.multiprocessing.process"  # what such a process runs
GLANCE = 0.05  # seconds that a look may wait for a thread that ends at once: a closed Pool only looks at its processes
UNKNOWN = 255  # the exit code if it is unknown; forkserver says the same
BEFORE_UNLINKING = 1  # above the priority of the finalizer that removes the names of locks at the end of the program
OF_MODULE, OF_FILE = "init_main_from_name", "init_main_from_path"  # as multiprocessing.spawn names them
ORIGINS = frozenset({OF_MODULE, OF_FILE})
OF_POOLS = ("concurrent.futures.process", "multiprocessing.pool", "multiprocessing.managers")


class Popen(popen_fork.Popen):
    """A started process, with its handle.

    Made by ``Process.start``, which therefore returns when the process has begun, and raises the reason if it has not.
    The Process object is decoded afterwards, as with forkserver: many processes import their modules side by side.
    """

    method = "anyfork"
    _process: Process
    _at_exit: util.Finalize | None = None

    def __init__(self, process_obj: BaseProcess, process_class: type[AnyforkProcess]) -> None:
        self._class = process_class
        mine = vars(process_obj)
        self._held = [mine.get(name) for name in ("_target", "_args", "_kwargs")]  # see hand_over
        super().__init__(process_obj)

    def _launch(self, process_obj: BaseProcess) -> None:
        template, env = _present(self._class._template)
        preparation = _preparation(process_obj.name, self._class)
        encoded = encode_inherited((process_obj,), not ORIGINS.isdisjoint(preparation))
        _warm(default_template.get() if template is None else template._link, self._held[0], encoded.by_value)
        self._process = started = _run(template, preparation, env, encoded)
        try:
            # The handle closes its own when it has seen the end; and the garbage collector would warn of a socket.
            ends = Owned(duplicates((started.fileno(), started.channel.fileno())))
            started.channel.close()
            self.sentinel, self._channel = ends.fds
            self.finalizer = util.Finalize(self, ends.close)
            assert started.pid is not None  # the process has begun
            self.pid = started.pid
            if not process_obj.daemon:
                self._at_exit = util.Finalize(None, self.hand_over, (None,), exitpriority=BEFORE_UNLINKING)
        except BaseException:
            started.kill()
            raise

    def poll(self, flag: int = os.WNOHANG) -> int | None:
        """Return the exit code, or None while the process runs; wait for its end unless told not to."""
        return self.wait(0 if flag == os.WNOHANG else None)

    def wait(self, timeout: float | None = None) -> int | None:
        """Return the exit code, or None when the process still runs after the timeout, in seconds."""
        timeout = seconds(timeout)
        looks = timeout == 0
        if self.returncode is None:
            try:
                if not looks:
                    self._process.wait(timeout)
                self.returncode = self._process.poll()
            except StatusUnknownError:
                self.returncode = UNKNOWN
            except (TimeoutError, HandleError):  # it runs; or this is a forked copy of its owner, which cannot know
                return None
            lookup.join(GLANCE if looks else MOMENT)
        self.hand_over(0)  # again, if that was not possible when the end was seen
        return self.returncode

    def hand_over(self, timeout: float | None) -> None:
        """Release the objects that the process inherits as soon as the process has them, which it reports by closing
        its side of the channel.

        If this program dropped a lock, or ended, before that, multiprocessing would remove the lock.
        """
        if self._held and connection.wait([self._channel], timeout):
            self._held.clear()
            if self._at_exit is not None:
                self._at_exit.cancel()

    def _send_signal(self, sig: int) -> None:
        if self.returncode is None:
            self._process.send_signal(sig)

    def close(self) -> None:
        """Close the handle."""
        super().close()
        self._process.close()


def _present(given: Template | Warm | None) -> tuple[Template | None, dict[bytes, bytes] | None]:
    """Return the template to use now, and the environment to set in the process: that of this program, but in a
    template of its own, that template's.
    """
    if isinstance(given, TemplateSource):
        return given._present("Process")
    return given, dict(os.environb) if given is None else None


def _warm(template: Link, target: object, by_value: bool) -> None:
    """Have the template load, once, what every process needs, and what processes of pools or with functions by value
    need.
    """
    warm_template(template, MODULE)
    module = getattr(target, "__module__", None)
    if module in OF_POOLS:
        warm_template(template, module)
    if by_value:
        warm_template(template, "cloudpickle.cloudpickle")


def preload_by_default(names: list[str], warns: bool) -> None:
    """Import those of these modules that can be imported in the default template, and in each that replaces it."""
    call = encode_call("prepare", preload_found, (names, warns))

    def step(link: Link) -> None:
        tell_path(link)
        link.post(PREPARE, call)

    default_template.begin_with(step)


def _preparation(name: str, process_class: type[AnyforkProcess]) -> dict[str, Any]:
    """Collect what multiprocessing tells a new process about its parent, with ``__main__`` only if it is to import it.

    The function of the standard library asks ``__main__`` for its origin, which is missing under debuggers and
    profilers that run a program, and the system for the directory, which may be gone.
    """
    data: dict[str, Any] = {
        "name": name,
        "log_to_stderr": util._log_to_stderr,  # type: ignore[attr-defined]  # as it is used there
        "authkey": bytes(process.current_process().authkey),
        "sys_path": [file_name(entry or process.ORIGINAL_DIR or "") for entry in sys.path],  # type: ignore[attr-defined]
        "sys_argv": [*map(file_name, sys.argv)],
        "orig_dir": file_name(process.ORIGINAL_DIR),  # type: ignore[attr-defined]  # as it is used there
        "start_method": process_class._start_method,
    }
    if process_class._main == "import":
        spawn._check_not_importing_main()  # type: ignore[attr-defined]  # a program without a guard starts itself for ever
        data |= _origin_of_main()
    if util._logger is not None:  # type: ignore[attr-defined]  # as it is used there
        data["log_level"] = util._logger.getEffectiveLevel()  # type: ignore[attr-defined]
    directory = current_directory()
    if process_class._template is None and directory:
        data["dir"] = file_name(directory)
    return data


def _origin_of_main() -> dict[str, str]:
    """Return where a process finds ``__main__``.

    Return nothing for one that was typed in or given as text, and for a file ``__main__.py``, which usually has no
    guard and which multiprocessing never imports.
    """
    main = sys.modules["__main__"]
    name = getattr(getattr(main, "__spec__", None), "name", None)
    if name is not None:
        return {} if name.rpartition(".")[2] == "__main__" else {OF_MODULE: name}
    path = getattr(main, "__file__", None)
    if path is None:
        return {}
    return {OF_FILE: file_name(os.path.normpath(os.path.join(process.ORIGINAL_DIR or "", path)))}  # type: ignore[attr-defined]  # as above


def _run(
    template: Template | None, preparation: dict[str, Any], env: dict[bytes, bytes] | None, encoded: Encoded
) -> Process:
    """Start the process. From the default template it gets this program's directory, from another template that
    template's.
    """
    tracker = resource_tracker.getfd()
    assert tracker is not None  # it has been started just now
    new = Template() if template is None else template.fork()
    asking = lookup.open()
    try:
        return new.run(
            f"{MODULE}:main",
            preparation,
            env,
            Descriptor(tracker),
            Descriptor(asking.fileno()),
            b"".join(encoded.pieces),
            [Descriptor(fd) for fd in encoded.fds],
        )
    finally:
        asking.close()
