"""The errors of anyfork. All survive pickle; all say who is to blame and whether anything may have run.

AnyforkError
├── ArgumentError            you: a value, function or attribute that cannot be handed over; raised at the call
├── HandleError              you: this handle was closed, used up, or belongs to another process
├── TemplateError            a template could not be prepared; all its later uses and its forks raise this
│   ├── PreloadError         a module that cannot be imported
│   ├── ExecuteError         code that raised or cannot be compiled
│   ├── PrepareError         a function that raised, was not found, or whose arguments cannot be decoded
│   ├── UnsafeTemplateError  threads run in the template, or it has opened a GPU
│   ├── LaunchError          no interpreter was found, or it did not start
│   ├── TemplateDiedError    the template ended before it had done what it was asked
│   └── RemoteTemplateError  the template was to run on another machine
│       ├── ConnectError         the command that connects failed: no such command, a refused login
│       ├── RemotePythonError    that machine has no Python, or one that is too old
│       ├── ConnectTimeoutError  no answer in time (also a TimeoutError)
│       └── ConnectionLostError  the connection was lost; processes started there may have run
├── StartError               a process was not started; nothing of its function has run
│   ├── ForkError            the system refused: out of processes, memory or descriptors
│   ├── HookError            a hook of os.register_at_fork raised in the new process
│   ├── AttributeRefusedError
│   ├── FunctionNotFoundError
│   ├── ArgumentDecodeError
│   ├── ProgramError         run_program: the program does not exist or cannot be executed
│   ├── DiedBeforeReadyError the process ended before it entered its function
│   └── NotReadyError        the deadline passed; the process was killed (also a TimeoutError)
├── CallError                a call has no result; ``may_have_run`` says whether anything of the function may have run
│   ├── WorkerDiedError      the worker ended before it had answered
│   ├── CallTimeoutError     the deadline passed (also a TimeoutError)
│   ├── CallCancelledError   the call was given up: its map or stream was closed, or its pool killed
│   ├── QueueFullError       the pool's queue is full, with when_full="raise"; nothing of the call has run
│   ├── RemoteError          the function raised an exception that cannot be rebuilt here
│   ├── ResultError          the result cannot travel
│   └── InitializerError     the worker's initializer raised, so the worker cannot be used
├── OutputLimitError         communicate: the process has written more than its limit
├── StatusUnknownError       the process has ended, and its exit status is unknown
└── PeerError                a process sent data that is not anyfork's protocol
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ._status import ExitStatus


class AnyforkError(Exception):
    """The base class of all errors of anyfork.

    ``remote_traceback`` is the text of the traceback in the other process, or empty. It is also a note of the error,
    so it is printed with the error.
    """

    def __init__(self, message: str, *, remote_traceback: str = "", **details: object) -> None:
        super().__init__(message)
        self.remote_traceback = remote_traceback
        for name, value in details.items():
            setattr(self, name, value)
        if remote_traceback:
            self.add_note("In the other process:\n" + remote_traceback.rstrip("\n"))

    def __reduce__(self) -> tuple[object, ...]:
        state = self.__dict__.copy()
        if isinstance(self, OSError):
            state["errno"] = self.errno  # OSError does not keep it in __dict__
        return (_rebuild, (type(self), self.args, state))


def rebuild(cls: type[AnyforkError], error: BaseException) -> AnyforkError:
    """Return the same error as an instance of another class."""
    return _rebuild(cls, error.args, error.__dict__.copy())


def _rebuild(cls: type[AnyforkError], args: tuple[object, ...], state: dict[str, object]) -> AnyforkError:
    error = cls.__new__(cls, *args)
    error.args = args
    for name, value in state.items():
        setattr(error, name, value)
    return error


class ArgumentError(AnyforkError, TypeError):
    """A value cannot be handed to another process. Raised by the call that got the value; nothing was sent."""


class HandleError(AnyforkError):
    """The handle cannot be used: it was closed, its process was taken over, or it belongs to another process."""


class TemplateError(AnyforkError):
    """A template could not be prepared. Every later use of the template and of its forks raises the same error."""


class PreloadError(TemplateError):
    """A module could not be imported in the template; ``module`` is its name."""

    module: str


class ExecuteError(TemplateError):
    """Code given to ``execute`` raised an exception or cannot be compiled."""


class PrepareError(TemplateError):
    """A function given to ``prepare`` raised, was not found, or its arguments could not be decoded."""


class UnsafeTemplateError(TemplateError):
    """The template must not be forked: threads run in it, which ``threads`` names, or it has opened ``devices``.

    The devices are those of GPUs: what a library has set up on a GPU does not work in a forked process.
    """

    threads: str = ""
    devices: str = ""


class LaunchError(TemplateError):
    """An interpreter could not be found or started; ``stderr`` is its error output."""

    stderr: str = ""


class TemplateDiedError(TemplateError):
    """The template ended before it had done what it was asked; ``status`` says how, ``stderr`` is the end of its error
    output.
    """

    status: ExitStatus
    stderr: str = ""


class RemoteTemplateError(TemplateError):
    """A template on another machine, ``host``, cannot be used.

    ``stderr`` is the end of the error output on the way there."""

    host: str
    stderr: str = ""


class ConnectError(RemoteTemplateError):
    """The command that should open the connection could not be executed, or has ended: a refused login, for instance.
    Nothing has run on the other machine.
    """


class RemotePythonError(RemoteTemplateError):
    """The command has led to no Python, or to one that is too old. Nothing has run there."""


class ConnectTimeoutError(RemoteTemplateError, TimeoutError):
    """The ``connect_timeout`` passed before a Python answered. The command was killed; nothing has run there."""


class ConnectionLostError(RemoteTemplateError):
    """The connection to a remote template is lost. Everything there ends; processes started there may have run."""


class StartError(AnyforkError):
    """A process was not started. Nothing of its function has run, and nothing of the process is left."""


class ForkError(StartError, OSError):
    """The system refused a fork or a resource for it; ``errno`` is the reason. Trying again later may help."""


class HookError(StartError):
    """A hook of ``os.register_at_fork`` raised in the new process."""


class AttributeRefusedError(StartError):
    """An attribute could not be given to the new process; ``attribute`` is its name, ``errno`` the reason or 0."""

    attribute: str
    errno: int


class FunctionNotFoundError(StartError):
    """The function to run is not where its name says."""


class ArgumentDecodeError(StartError):
    """The function or its arguments could not be decoded in the new process."""


class ProgramError(StartError):
    """A program could not be executed; ``program`` is its name, ``errno`` the reason."""

    program: str
    errno: int


class DiedBeforeReadyError(StartError):
    """The process ended before it entered its function; ``status`` says how, ``stderr`` is the end of its
    error output.
    """

    status: ExitStatus
    stderr: str = ""


class NotReadyError(StartError, TimeoutError):
    """The process did not enter its function before the deadline. It was killed.

    ``may_have_run`` is True for a process on another machine: it may have entered its function while the report of that
    was on its way here.
    """

    may_have_run: bool = False


class CallError(AnyforkError):
    """A call has no result. ``may_have_run`` says whether anything of the function may have run."""

    may_have_run: bool = True


class WorkerDiedError(CallError):
    """The worker ended before it had answered; ``pid`` is its process id, and ``status`` says how it ended. ``stderr``
    is the end of its error output if that is known (with exec'ed templates).
    """

    pid: int | None
    status: ExitStatus
    stderr: str = ""


class CallTimeoutError(CallError, TimeoutError):
    """The deadline of a call passed. A running call has ended its worker, unless the worker runs several: then it goes
    on.
    """


class CallCancelledError(CallError):
    """The call was given up before it had a result."""


class QueueFullError(CallError):
    """The pool's queue is full, and it accepts no job now. Nothing of the call has run."""


class RemoteError(CallError):
    """The function raised an exception that cannot be rebuilt here; ``type_name`` and ``text`` describe it."""

    type_name: str
    text: str


class ResultError(CallError):
    """The function has returned, but its result cannot travel or cannot be decoded here."""


class InitializerError(CallError):
    """The initializer of a worker raised. No call of this worker runs."""


class OutputLimitError(AnyforkError):
    """Raised by ``communicate`` when a process has written more than its ``limit`` of bytes; the process goes on.

    ``stream`` is "stdout" or "stderr". The output so far is kept for the next ``communicate``.
    """

    stream: str


class StatusUnknownError(AnyforkError):
    """The process has ended, and its template was gone before it could learn how."""


class PeerError(AnyforkError):
    """A process sent data that is not anyfork's protocol, and was killed.

    For a call, ``may_have_run`` says whether anything of its function may have run.
    """

    may_have_run: bool = True
