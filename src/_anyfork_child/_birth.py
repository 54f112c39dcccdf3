"""What a new process does before user code, and how it ends.

Everything here runs in a template or in a process forked from one.
"""

from __future__ import annotations

import _signal
import atexit
import gc
import os
import sys
from _thread import _count as count_threads  # Python threads beside the main one; threading need not be loaded

from ._children import say
from ._failure import Failure, failure_of, format_error

TYPE_CHECKING = False
if TYPE_CHECKING:
    import _socket
    from collections.abc import Callable, Sequence
    from typing import Any, NoReturn

    from ._title import Title

CHANNEL = "channel"  # as stdin, stdout or stderr: the process's channel, connected when the function is entered
STDIO = ("stdin", "stdout", "stderr")
INHERITED = ("affinity", "limits", "priority")  # what an exec'ed template takes from its owner without being asked


# --- Before the first fork after user code has run in a template -----------------------------------------------


def settle() -> tuple[list[Callable[[], object]], list[int]]:
    """Make this template cheap and safe to fork.

    Return what each new process has to do to differ from it, and the signals for which it has handlers.

    Raises Failure when a native thread runs that does not stop for a fork.
    """
    flush_stdio()
    _check_native_threads()
    gc.collect()
    gc.freeze()
    resets: list[Callable[[], object]] = [atexit._clear] if atexit._ncallbacks() else []
    modules = sys.modules
    if "numpy.random" in modules:
        resets.append(modules["numpy.random"].seed)
    if "multiprocessing.process" in modules:
        resets.append(_reset_multiprocessing)
    if "uuid" in modules:
        resets.append(_reset_uuid)
    if "weakref" in modules and modules["weakref"].finalize._registered_with_atexit:
        resets.append(_reset_finalizers)
    wakeup = _signal.set_wakeup_fd(-1)
    if wakeup >= 0:
        _signal.set_wakeup_fd(wakeup)
        resets.append(_reset_wakeup)
    return resets, handled_signals()


def check_threads() -> None:
    """Raise Failure when a Python thread runs beside the main one: a fork would copy its locks without it."""
    if count_threads():
        threading = sys.modules.get("threading")
        others = [t.name for t in threading.enumerate() if t is not threading.main_thread()] if threading else []
        raise Failure("threads", ", ".join(others) or "unknown", "threads run in the template, and a fork copies none")


def _check_native_threads() -> None:
    """Judge threads that Python does not know after a probe fork: OpenBLAS stops its own for it and restarts them."""
    if len(_tasks()) <= 1:
        return
    _probe_fork()
    tasks = _tasks()
    if len(tasks) > 1:
        names = ", ".join(_task_name(task) for task in tasks if task != str(os.getpid()))
        raise Failure("threads", names, "native threads run in the template and do not stop for a fork")


def _probe_fork() -> None:
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)


def _tasks() -> list[str]:
    try:
        return os.listdir("/proc/self/task")
    except OSError:  # no /proc: nothing can be said about native threads
        return []


def _task_name(task: str) -> str:
    try:
        with open(f"/proc/self/task/{task}/comm") as file:
            return file.read().strip()
    except OSError:  # it has ended meanwhile
        return task


def _reset_wakeup() -> None:
    _signal.set_wakeup_fd(-1)


def _reset_multiprocessing() -> None:
    process = sys.modules["multiprocessing.process"]
    process.current_process().authkey = os.urandom(32)


def _reset_uuid() -> None:
    # The node, the clock sequence and libuuid's own state are the same in every fork; without them uuid1 draws anew.
    uuid: Any = sys.modules["uuid"]
    uuid._node = uuid._last_timestamp = uuid._generate_time_safe = None


def _reset_finalizers() -> None:
    # weakref.finalize hooks into atexit once, in the template; and what it would finalize is the template's.
    finalize = sys.modules["weakref"].finalize
    for info in finalize._registry.values():
        info.atexit = False
    finalize._registered_with_atexit = False


# --- Attributes -------------------------------------------------------------------------------------------------


def _rlimits(limits: dict[int, tuple[int, int]]) -> None:
    import resource

    for limit, values in limits.items():
        resource.setrlimit(limit, values)


def _priority(value: int) -> None:
    if os.getpriority(os.PRIO_PROCESS, 0) != value:
        os.setpriority(os.PRIO_PROCESS, 0, value)


def _cwd(where: int | str | bytes) -> None:
    os.chdir(where)


def _user(user: int | str) -> None:
    if isinstance(user, str):
        import pwd

        user = pwd.getpwnam(user).pw_uid
    os.setuid(user)


def _group_id(group: int | str) -> int:
    if isinstance(group, str):
        import grp

        return grp.getgrnam(group).gr_gid
    return group


def _group(group: int | str) -> None:
    os.setgid(_group_id(group))


def _extra_groups(groups: Sequence[int | str]) -> None:
    os.setgroups([_group_id(group) for group in groups])


def _environment(env: dict[bytes, bytes]) -> None:
    os.environb.clear()
    os.environb.update(env)


def _stdio(fd: int) -> Callable[[int | str], None]:
    def redirect(source: int | str) -> None:
        stream = getattr(sys, STDIO[fd])
        if stream is not None and fd:
            stream.flush()
        if isinstance(source, str):
            source = os.open(source, os.O_RDWR | os.O_CLOEXEC)
        os.dup2(source, fd)
        if stream is None:
            setattr(sys, STDIO[fd], open(fd, "w" if fd else "r", closefd=False))

    return redirect


# In the order in which they are applied; the documentation carries the same order. What needs privileges comes
# before user, and user before env, which cannot fail.
APPLY: dict[str, Callable[[Any], object]] = {
    "new_session": lambda wanted: os.setsid() if wanted else None,
    "affinity": lambda cpus: os.sched_setaffinity(0, cpus),
    "priority": _priority,
    "nice": os.nice,
    "limits": _rlimits,
    "rlimits": _rlimits,
    "umask": os.umask,
    "cwd": _cwd,
    "stdin": _stdio(0),
    "stdout": _stdio(1),
    "stderr": _stdio(2),
    "title": lambda title: title,  # set by apply, which knows where
    "extra_groups": _extra_groups,
    "group": _group,
    "user": _user,
    "env": _environment,
}
DESCRIPTOR_ATTRIBUTES = frozenset((*STDIO, "cwd"))


def apply(attributes: dict[str, Any], fds: Sequence[int], title: Title) -> None:
    """Apply the attributes of fork in their fixed order; ``fds`` are the descriptors that some of them index.

    Raises Failure, which names the attribute that was refused.
    """
    for name, action in APPLY.items():
        if name not in attributes or (name in STDIO and attributes[name] == CHANNEL):
            continue
        value = attributes[name]
        try:
            action(fds[value] if name in DESCRIPTOR_ATTRIBUTES and isinstance(value, int) else value)
            if name == "title":
                title.set(value)
        except Exception as error:  # whatever it is, the owner must learn which attribute it was
            raise failure_of("attribute", name, error) from error


# --- The end ----------------------------------------------------------------------------------------------------


def flush_stdio() -> None:
    """Flush stdout and stderr; what cannot be written (a closed pipe, a full disk) is lost as at any exit."""
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream is not None:
                stream.flush()
        except (OSError, ValueError):
            pass


def run(call: list[Any], reports: _socket.socket | None) -> NoReturn:
    """Call the function that takes this process over, and end the process as an interpreter ends.

    ``call`` is the function and its arguments, and is emptied: files among the arguments are flushed and closed with
    the last reference, before the process ends. ``reports`` takes the traceback of an exception, for the owner.
    """
    code = 0
    channel = call[1]  # left to the end of the process: taking a socket apart that is open costs 50 page faults
    try:
        call.pop(0)(*_emptied(call))
    except SystemExit as stop:
        code = exit_code(stop)
    except BaseException as error:
        # Runs in the process, at the boundary where an interpreter would print it too.
        error.__traceback__ = error.__traceback__ and error.__traceback__.tb_next
        code = 1
        _print_error(error)
        say(reports, format_error(error))
    end(code)
    del channel


def _print_error(error: BaseException) -> None:
    """Show an error as the interpreter does: by the hook of the program, and by its own where that one fails."""
    try:
        sys.excepthook(type(error), error, error.__traceback__)
    except BaseException:
        sys.__excepthook__(type(error), error, error.__traceback__)


def _emptied(values: list[Any]) -> list[Any]:
    copy = values[:]
    values.clear()
    return copy


def exit_code(stop: SystemExit) -> int:
    """The exit code a SystemExit asks for, as the interpreter sees it: a text is printed and means 1."""
    if stop.code is None:
        return 0
    if isinstance(stop.code, int):
        return stop.code & 0xFF
    print(stop.code, file=sys.stderr)
    return 1


def end(code: int) -> NoReturn:
    """End this process: threads joined, exit handlers run, output flushed; nothing is torn down (it costs 100 ms)."""
    try:
        if "threading" in sys.modules:
            sys.modules["threading"]._shutdown()
        if atexit._ncallbacks():
            atexit._run_exitfuncs()
    except BaseException as error:
        _print_error(error)
    finally:
        flush_stdio()
        os._exit(code)


# --- Signals ----------------------------------------------------------------------------------------------------


def handled_signals() -> list[int]:
    """The signals for which this process has handlers in Python."""
    getsignal = _signal.getsignal
    return [number for number in _signal.valid_signals() if callable(getsignal(number))]


def default_handlers(numbers: Sequence[int]) -> None:
    """Give signals back their default action."""
    for number in numbers:
        _signal.signal(number, _signal.SIG_DFL)


def user_signals(changed: bool) -> None:
    """Give this process the handlers of a fresh interpreter, without those of the template, and an empty mask.

    ``changed`` says that user code has run in it, which may have changed any of them.
    """
    signal = _signal.signal
    if changed:
        default_handlers(handled_signals())
        _signal.pthread_sigmask(_signal.SIG_SETMASK, ())
    signal(_signal.SIGTERM, _signal.SIG_DFL)
    signal(_signal.SIGINT, _signal.default_int_handler)


def program_signals() -> None:
    """Give this process the signals that a program expects: default actions, also where Python ignores, no mask."""
    default_handlers((*handled_signals(), _signal.SIGINT, _signal.SIGPIPE, _signal.SIGXFSZ))
    _signal.pthread_sigmask(_signal.SIG_SETMASK, ())
