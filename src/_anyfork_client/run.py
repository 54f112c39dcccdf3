"""``anyfork run``: the client, which stands for its program.

It asks the keeper of its interpreter, environment and user for a process, hands over all that a program inherits,
passes signals on, and ends as the program ends. Where that is impossible, this process becomes a new interpreter with
the same command line. It may do so until the keeper has said that the program has begun. With ``--cold``, the new
interpreter is a child of this process, which tells how long it took.
"""

from __future__ import annotations

import os
import sys
from _signal import SIG_DFL, SIGPIPE, SIGXFSZ, signal
from resource import RLIMIT_NOFILE, getrlimit
from time import monotonic, process_time

from . import messages
from .arguments import USAGE, ArgumentsError, RunArguments, interpreter_options
from .place import O_PATH, UnusableError, connect, inheritance, key, name, open_directory, read_status

TYPE_CHECKING = False
if TYPE_CHECKING:
    from _socket import socket
    from collections.abc import Sequence
    from typing import Any, NoReturn

    from .signals import Signals
    from .terminal import Terminal

TIMEOUT = 1.0  # seconds until a keeper must have answered
STANDARD_STREAMS = (0, 1, 2)
LOST = 255  # the exit status of this process if that of the program is unknown, as ssh has it


class ColdError(Exception):
    """Raised when a new interpreter has to run the program; the text says why."""


def main(arguments: list[str]) -> NoReturn:
    """Run a program, and end as it ends. Raises SystemExit for wrong arguments."""
    if arguments[:1] in (["-h"], ["--help"]):
        sys.stdout.write(USAGE)
        raise SystemExit(0)
    try:
        wanted = RunArguments(arguments)
    except ArgumentsError as error:
        sys.stderr.write(f"anyfork: {error}\n\n{USAGE}")
        raise SystemExit(2) from None
    options = interpreter_options()
    if wanted.cold:
        _compare(wanted, options)
    else:
        try:
            _run_warm(wanted, options)
        except (ColdError, UnusableError, OSError) as why:
            if wanted.verbose:
                _say(f"the program starts cold: {why}")
    _become(options, wanted.program)


def _say(text: str) -> None:
    """Write a line to standard error, if there is one that takes it."""
    if sys.stderr is not None:
        try:
            sys.stderr.write(f"anyfork: {text}\n")
            sys.stderr.flush()
        except OSError:  # it is closed at its other end, or its disk is full
            pass


def _compare(wanted: RunArguments, options: Sequence[str]) -> None:
    """Run the program in a new interpreter, tell how long it took, and its last warm run, and end as it ends.

    Return if it cannot be run as a child of this process.
    """
    from .cold_run import ColdRun
    from .signals import end_as

    try:
        run = ColdRun(lambda: _become(options, wanted.program))
    except OSError:  # there can be no further process now, for example
        return
    try:
        _release_descriptors()
    except OSError:  # it has no descriptor left: pipes of the program end when this process does
        pass
    returncode, seconds = run.await_end()
    warm = _time_of_warm_run(wanted, options)
    known = "no warm run of this command is known" if warm is None else f"its last warm run took {_duration(warm)}"
    _say(f"the cold run took {_duration(seconds)}, and {known}")
    end_as(returncode)


def _duration(seconds: float) -> str:
    return f"{seconds * 1000:.0f} ms" if seconds < 10 else f"{seconds:.1f} s"


def _time_of_warm_run(wanted: RunArguments, options: Sequence[str]) -> float | None:
    """Return how many seconds the last warm run of the same command took, if a keeper knows it."""
    try:
        whole = _identify(options)[1]
        directory = open_directory()
        try:
            sock = connect(directory, name(whole), TIMEOUT)
        finally:
            os.close(directory)
        try:
            return _ask_time(sock, _command(whole, wanted, options))
        finally:
            sock.close()
    except (UnusableError, messages.LostError, OSError):  # there is no keeper, or it does not answer
        return None


def _ask_time(sock: socket, command: dict[str, Any]) -> float | None:
    """Ask a keeper for the seconds that the last warm run of a command took. Raises LostError and OSError."""
    if messages.peer(sock)[1] != os.geteuid():
        return None
    messages.send(sock, ("time", command))
    seconds: float | None = messages.receive(sock)[1]
    return seconds


def _become(options: Sequence[str], program: Sequence[str]) -> NoReturn:
    """Replace this process by a new interpreter with the program."""
    for number in (SIGPIPE, SIGXFSZ):  # the interpreter ignores them
        signal(number, SIG_DFL)
    os.execve(sys.executable, [sys.executable, *options, *program], os.environ)


def _run_warm(wanted: RunArguments, options: Sequence[str]) -> NoReturn:
    """Run the program in a process of the keeper. Raises ColdError, UnusableError and OSError if it has not begun."""
    device = _check_streams()
    inherited, whole = _identify(options)
    directory = open_directory()
    try:
        sock = connect(directory, name(whole), TIMEOUT)
    except (FileNotFoundError, ConnectionRefusedError):
        from .launch import start_keeper

        raise ColdError(start_keeper(directory, name(whole), options, wanted)) from None
    except TimeoutError:
        raise ColdError(f"the keeper does not answer within {TIMEOUT:g} seconds") from None
    os.close(directory)
    try:
        _negotiate(sock, whole, wanted, options, inherited)
        _stand_for_program(sock, device, wanted.verbose)
    finally:
        sock.close()


def _identify(options: Sequence[str]) -> tuple[dict[str, Any], str]:
    """Return what a program inherits from this process, and what this process has in common with its keeper."""
    status = read_status()
    inherited = inheritance(status)
    return inherited, key(options, status, inherited)


def _command(whole: str, wanted: RunArguments, options: Sequence[str]) -> dict[str, Any]:
    """Return what tells a keeper which command is meant."""
    return {"key": whole, "line": [sys.executable, *options, *wanted.program], "directory": _directory()}


def _check_streams() -> int:
    """Return the device number of the terminal, 0 if there is none. Raises ColdError."""
    for fd in STANDARD_STREAMS:
        try:
            os.fstat(fd)
        except OSError:
            raise ColdError(f"descriptor {fd} is closed") from None
    if os.environ.get("LISTEN_PID") == str(os.getpid()):
        raise ColdError("LISTEN_PID has its number, by which systemd hands sockets over")
    with open("/proc/self/stat", encoding="utf-8", errors="replace") as file:
        _state, _parent, group, _session, number, foreground, *_ = file.read().rpartition(")")[2].split()
    terminal = int(number)
    if terminal and group != foreground:
        raise ColdError("it is in the background of its terminal")
    return os.makedev(terminal >> 8 & 0xFFF, terminal & 0xFF | terminal >> 12 & 0xFFF00) if terminal else 0


def _negotiate(
    sock: socket, whole: str, wanted: RunArguments, options: Sequence[str], inherited: dict[str, Any]
) -> None:
    """Ask the keeper for a template that is up to date. Raises ColdError and OSError.

    No descriptor goes with it: in the queue of a keeper that hangs, it would keep a pipe from ending.
    """
    if messages.peer(sock)[1] != os.geteuid():
        raise ColdError("the keeper belongs to another user")
    request = {
        **_command(whole, wanted, options),
        "began": monotonic() - process_time(),
        "options": [*options],
        "kind": wanted.kind,
        "target": wanted.target,
        "argv": wanted.argv,
        "preload": wanted.preload,
        "watch": wanted.watch,
        "idle": wanted.idle,
        **inherited,
    }
    end = monotonic() + TIMEOUT
    try:
        messages.send(sock, ("run", request))
        sock.settimeout(max(end - monotonic(), 0.001))
        _check_answer(messages.receive(sock))
    except TimeoutError:
        raise ColdError(f"the keeper does not answer within {TIMEOUT:g} seconds") from None
    except messages.LostError:
        raise ColdError("the keeper has ended") from None
    sock.settimeout(None)


def _directory() -> str:
    try:
        return os.getcwd()
    except OSError:  # it was removed
        return "/"


def _check_answer(answer: Any) -> None:
    if answer[0] != "ready":
        raise ColdError(answer[1])


def _stand_for_program(sock: socket, device: int, verbose: bool) -> NoReturn:
    """Have the keeper start the program, and end as it ends. Raises ColdError and OSError if it has not begun."""
    from .signals import Signals, end_as

    further = _further_descriptors()
    if len(further) + len(STANDARD_STREAMS) + 2 > messages.MOST_DESCRIPTORS:
        raise ColdError(f"it inherits {len(further)} descriptors")
    if further and max(further) + len(further) + 2 > getrlimit(RLIMIT_NOFILE)[0]:
        raise ColdError(f"it inherits descriptor {max(further)}, near its limit or above")
    terminal = _terminal(device)
    signals = Signals()
    try:
        _go(sock, further, terminal)
    except OSError:
        signals.restore()
        raise
    try:
        end_as(_accompany(sock, signals, terminal, verbose))
    except ColdError:
        signals.restore()
        raise
    except messages.LostError:
        _lose(terminal, "the keeper has ended, and the program with it")
    except Exception as error:  # whatever it is: a program that may have begun must not run again
        _lose(terminal, f"the program cannot be followed: {error}")


def _accompany(sock: socket, signals: Signals, terminal: Terminal | None, verbose: bool) -> int:
    """Return the program's exit code when it has ended, or minus the signal that has ended it.

    Raises ColdError if the keeper says that it has not begun. Any other exception does not mean that.
    """
    kind, value = _answer(sock, signals, terminal)
    if kind == "cold":
        raise ColdError(value)
    pid, why = value
    if why and verbose:
        _say(f"a new interpreter runs the program: {why}")
    _release_descriptors()
    if terminal is not None:
        terminal.begin(pid)
    returncode: int = _answer(sock, signals, terminal)[1]
    if terminal is not None:
        terminal.end()
    return returncode


def _lose(terminal: Terminal | None, why: str) -> NoReturn:
    """End this process without the exit status of the program, which the keeper kills then."""
    try:
        if terminal is not None:
            terminal.end()
    except Exception as error:  # nothing can be done about a terminal that is gone
        why = f"{why} ({error})"
    _say(f"{why}: its exit status is unknown")
    os._exit(LOST)


def _terminal(device: int) -> Terminal | None:
    if not device:
        return None
    from .terminal import Terminal

    return Terminal(device)


def _go(sock: socket, further: list[int], terminal: Terminal | None) -> None:
    """Send all descriptors of the program. Raises OSError."""
    cwd = os.open(".", O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    streams = STANDARD_STREAMS if terminal is None else terminal.streams
    slaves = () if terminal is None else (terminal.slave,)
    try:
        messages.send(sock, ("go", further), (cwd, *streams, *further, *slaves))
    finally:
        os.close(cwd)


def _answer(sock: socket, signals: Signals, terminal: Terminal | None) -> tuple[str, Any]:
    """Return the next answer of the keeper; pass on signals meanwhile. Raises LostError and OSError."""
    while not signals.has_answer:
        for message in signals.wait(sock, terminal):
            try:
                messages.send(sock, message)
            except ConnectionError:  # the program has ended: the keeper's last answer is there
                pass
    signals.has_answer = False
    try:
        kind, value = messages.receive(sock)
    except ConnectionError as error:
        raise messages.LostError(str(error)) from error
    return kind, value


def _release_descriptors() -> None:
    """Let go of what the program has got: only its end, or its closing them, is the end of a pipe.

    Standard error stays, for a last word of this process.
    """
    null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    for fd in (0, 1):
        os.dup2(null, fd)
    for fd in (null, *_further_descriptors()):  # some may be above the limit, where nothing can be opened
        os.close(fd)


def _further_descriptors() -> list[int]:
    """Return the descriptors beside the standard streams that a program inherits."""
    return [fd for fd in map(int, os.listdir("/proc/self/fd")) if fd > 2 and _is_inherited(fd)]


def _is_inherited(fd: int) -> bool:
    try:
        return os.get_inheritable(fd)
    except OSError:  # that of the listing itself
        return False
