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

    For example::

        import anyfork

        try:
            anyfork.Template().preload("no_such_module").ready()
        except anyfork.AnyforkError as error:
            print(error, error.remote_traceback)
    """

    def __init__(self, message: str, *, remote_traceback: str = "", **details: object) -> None:
        super().__init__(message)
        self.remote_traceback = remote_traceback
        for name, value in details.items():
            setattr(self, name, value)
        if remote_traceback:
            self.add_note("In the other process:\n" + remote_traceback.rstrip("\n"))

    def __reduce__(self) -> tuple[object, ...]:
        return (_rebuild, (type(self), self.args, self._state()))

    def __copy__(self) -> AnyforkError:
        # Libraries that teach pickle the tracebacks of exceptions, as tblib does for Dask, teach copy them, too. A copy
        # is for another caller, and has no traceback: that would keep alive what its frames refer to.
        return _rebuild(type(self), self.args, self._state())

    def _state(self) -> dict[str, object]:
        state = self.__dict__.copy()
        if isinstance(self, OSError):
            state["errno"] = self.errno  # OSError does not keep it in __dict__
        return state


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
    """A value cannot be handed to another process. Raised by the call that got the value; nothing was sent.

    For example::

        import anyfork

        try:
            anyfork.call(print, (one for one in "ab"))
        except anyfork.ArgumentError as error:
            print(error)
    """


class HandleError(AnyforkError):
    """The handle cannot be used: it was closed, its process was taken over, or it belongs to another process.

    For example::

        import anyfork

        template = anyfork.Template()
        template.close()
        try:
            template.fork()
        except anyfork.HandleError as error:
            print(error)
    """


class TemplateError(AnyforkError):
    """A template could not be prepared. Every later use of the template and of its forks raises the same error.

    For example::

        import anyfork

        template = anyfork.Template().execute("1 / 0")
        try:
            template.fork().run_code("pass")
        except anyfork.TemplateError as error:
            print(error)
    """


class PreloadError(TemplateError):
    """A module could not be imported in the template; ``module`` is its name.

    For example::

        import anyfork

        try:
            anyfork.Template().preload("no_such_module").ready()
        except anyfork.PreloadError as error:
            assert error.module == "no_such_module"
    """

    module: str


class ExecuteError(TemplateError):
    """Code given to ``execute`` raised an exception or cannot be compiled.

    For example::

        import anyfork

        try:
            anyfork.Template().execute("1 / 0").ready()
        except anyfork.ExecuteError as error:
            assert "ZeroDivisionError" in error.remote_traceback
    """


class PrepareError(TemplateError):
    """A function given to ``prepare`` raised, was not found, or its arguments could not be decoded.

    For example::

        import anyfork

        try:
            anyfork.Template().prepare("math:sqrt", -1).ready()
        except anyfork.PrepareError as error:
            assert "ValueError" in error.remote_traceback
    """


class UnsafeTemplateError(TemplateError):
    """The template must not be forked: threads run in it, which ``threads`` names, or it has opened ``devices``.

    The devices are those of GPUs: what a library has set up on a GPU does not work in a forked process.

    For example::

        import anyfork

        start = "import threading; threading.Thread(target=threading.Event().wait, name='poller', daemon=True).start()"
        try:
            anyfork.Template().execute(start).fork().ready()
        except anyfork.UnsafeTemplateError as error:
            assert error.threads == "poller"
    """

    threads: str = ""
    devices: str = ""


class LaunchError(TemplateError):
    """An interpreter could not be found or started; ``stderr`` is its error output.

    For example::

        import anyfork

        try:
            anyfork.Template.new_exec(python="/no/such/python").ready()
        except anyfork.LaunchError as error:
            print(error)
    """

    stderr: str = ""


class TemplateDiedError(TemplateError):
    """The template ended before it had done what it was asked; ``status`` says how, ``stderr`` is the end of its error
    output.

    For example::

        import anyfork

        try:
            anyfork.Template().execute("import os; os._exit(7)").ready()
        except anyfork.TemplateDiedError as error:
            print(error)
    """

    status: ExitStatus
    stderr: str = ""


class RemoteTemplateError(TemplateError):
    """A template on another machine, ``host``, cannot be used.

    ``stderr`` is the end of the error output on the way there.

    For example::

        import anyfork

        try:
            anyfork.RemoteTemplate(["false"]).ready()
        except anyfork.RemoteTemplateError as error:
            print(error.host, error.stderr)
    """

    host: str
    stderr: str = ""


class ConnectError(RemoteTemplateError):
    """The command that should open the connection could not be executed, or has ended: a refused login, for instance.
    Nothing has run on the other machine.

    For example::

        import anyfork

        try:
            anyfork.RemoteTemplate(["false"]).ready()
        except anyfork.ConnectError as error:
            print(error)
    """


class RemotePythonError(RemoteTemplateError):
    """The command has led to no Python, or to one that is too old. Nothing has run there.

    For example::

        import anyfork

        try:
            anyfork.RemoteTemplate(["sh", "-c", "no-such-python"]).ready()
        except anyfork.RemotePythonError as error:
            print(error)
    """


class ConnectTimeoutError(RemoteTemplateError, TimeoutError):
    """The ``connect_timeout`` passed before a Python answered. The command was killed; nothing has run there.

    For example::

        import anyfork

        try:
            anyfork.RemoteTemplate(["sh", "-c", "sleep 60; python3"], connect_timeout=0.1).ready()
        except anyfork.ConnectTimeoutError as error:
            print(error)
    """


class ConnectionLostError(RemoteTemplateError):
    """The connection to a remote template is lost. Everything there ends; processes started there may have run.

    For example::

        import os
        import signal
        import sys
        import anyfork

        command = ["sh", "-c", f"echo $$ > connection.pid; exec {sys.executable}"]      # in place of ssh
        template = anyfork.RemoteTemplate(command).ready()
        with open("connection.pid") as file:
            os.kill(int(file.read()), signal.SIGKILL)
        try:
            template.execute("pass").ready()
        except anyfork.ConnectionLostError as error:
            print(error)
    """


class StartError(AnyforkError):
    """A process was not started. Nothing of its function has run, and nothing of the process is left.

    For example::

        import anyfork

        try:
            anyfork.Template().run("no_such_module:function")
        except anyfork.StartError as error:
            print(error)
    """


class ForkError(StartError, OSError):
    """The system refused a fork or a resource for it; ``errno`` is the reason. Trying again later may help.

    For example::

        import errno
        import anyfork

        template = anyfork.Template().execute("import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (3, 3))")
        try:
            template.fork().run_code("pass")
        except anyfork.ForkError as error:
            assert error.errno == errno.EMFILE          # too many open files
    """


class HookError(StartError):
    """A hook of ``os.register_at_fork`` raised in the new process.

    For example::

        import anyfork

        hook = "import os; os.register_at_fork(after_in_child=lambda: 1 / 0)"
        try:
            anyfork.Template().execute(hook).fork().ready()
        except anyfork.HookError as error:
            print(error)
    """


class AttributeRefusedError(StartError):
    """An attribute could not be given to the new process; ``attribute`` is its name, ``errno`` the reason or 0.

    For example::

        import anyfork

        try:
            anyfork.Template().fork(cwd="/no/such/directory").ready()
        except anyfork.AttributeRefusedError as error:
            assert error.attribute == "cwd"
    """

    attribute: str
    errno: int


class FunctionNotFoundError(StartError):
    """The function to run is not where its name says.

    For example::

        import anyfork

        try:
            anyfork.Template().run("math:no_such_function")
        except anyfork.FunctionNotFoundError as error:
            print(error)
    """


class ArgumentDecodeError(StartError):
    """The function or its arguments could not be decoded in the new process.

    For example::

        import anyfork

        class Unloadable:
            def __reduce__(self):
                return int, ("no number",)

        try:
            anyfork.Template().run(print, Unloadable())
        except anyfork.ArgumentDecodeError as error:
            print(error)
    """


class ProgramError(StartError):
    """A program could not be executed; ``program`` is its name, ``errno`` the reason.

    For example::

        import anyfork

        try:
            anyfork.Template().run_program(["no-such-program"])
        except anyfork.ProgramError as error:
            assert error.program == "no-such-program"
    """

    program: str
    errno: int


class DiedBeforeReadyError(StartError):
    """The process ended before it entered its function; ``status`` says how, ``stderr`` is the end of its
    error output.

    For example::

        import anyfork

        class Deadly:
            def __reduce__(self):
                return __import__("os")._exit, (7,)

        try:
            anyfork.Template().run(print, Deadly())
        except anyfork.DiedBeforeReadyError as error:
            assert error.status.code == 7
    """

    status: ExitStatus
    stderr: str = ""


class NotReadyError(StartError, TimeoutError):
    """The process did not enter its function before the deadline. It was killed.

    ``may_have_run`` is True for a process on another machine: it may have entered its function while the report of that
    was on its way here.

    For example::

        import anyfork

        class Slow:
            def __reduce__(self):
                return __import__("time").sleep, (60,)

        try:
            anyfork.Template().run(print, Slow(), timeout=0.1)
        except anyfork.NotReadyError as error:
            assert not error.may_have_run
    """

    may_have_run: bool = False


class CallError(AnyforkError):
    """A call has no result. ``may_have_run`` says whether anything of the function may have run.

    For example::

        import anyfork

        try:
            anyfork.call("os:_exit", 7)
        except anyfork.CallError as error:
            assert error.may_have_run
    """

    may_have_run: bool = True


class WorkerDiedError(CallError):
    """The worker ended before it had answered; ``pid`` is its process id, and ``status`` says how it ended. ``stderr``
    is the end of its error output if that is known (with exec'ed templates).

    For example::

        import anyfork

        with anyfork.Executor(max_workers=1) as executor:
            error = executor.submit(eval, "__import__('os')._exit(7)").exception()
            assert isinstance(error, anyfork.WorkerDiedError)
            assert error.status.code == 7
    """

    pid: int | None
    status: ExitStatus
    stderr: str = ""


class CallTimeoutError(CallError, TimeoutError):
    """The deadline of a call passed. A running call has ended its worker, unless the worker runs several: then it goes
    on.

    For example::

        import anyfork

        with anyfork.Worker() as worker:
            worker.ready()
            try:
                worker.call("time:sleep", 60, timeout=0.1)
            except anyfork.CallTimeoutError as error:
                assert error.may_have_run
    """


class CallCancelledError(CallError):
    """The call was given up before it had a result.

    For example::

        import anyfork

        executor = anyfork.Executor(max_workers=1)
        future = executor.submit(eval, "__import__('time').sleep(60)")
        executor.kill()
        assert isinstance(future.exception(), anyfork.CallCancelledError)
    """


class QueueFullError(CallError):
    """The pool's queue is full, and it accepts no job now. Nothing of the call has run.

    For example::

        import anyfork

        with anyfork.Executor(max_workers=1, max_queued=1, load=1, when_full="raise") as executor:
            try:
                for _ in range(100):
                    executor.submit(eval, "__import__('time').sleep(0.01)")
            except anyfork.QueueFullError as error:
                assert not error.may_have_run
    """


class RemoteError(CallError):
    """The function raised an exception that cannot be rebuilt here; ``type_name`` and ``text`` describe it.

    For example::

        import anyfork

        class Stubborn(Exception):
            def __reduce__(self):
                return int, ("no number",)

        def fail():
            raise Stubborn("cannot travel")

        try:
            anyfork.call(fail)
        except anyfork.RemoteError as error:
            print(error.type_name, error.text)
    """

    type_name: str
    text: str


class ResultError(CallError):
    """The function has returned, but its result cannot travel or cannot be decoded here.

    For example::

        import anyfork

        try:
            anyfork.call("threading:Lock")
        except anyfork.ResultError as error:
            print(error)
    """


class InitializerError(CallError):
    """The initializer of a worker raised. No call of this worker runs.

    For example::

        import anyfork

        class Unknown(Exception):
            def __reduce__(self):
                return int, ("no number",)

        def initialize():
            raise Unknown

        try:
            with anyfork.Worker(initializer=initialize) as worker:
                worker.call(abs, -1)
        except anyfork.InitializerError as error:
            print(error)
    """


class OutputLimitError(AnyforkError):
    """Raised by ``communicate`` when a process has written more than its ``limit`` of bytes; the process goes on.

    ``stream`` is "stdout" or "stderr". The output so far is kept for the next ``communicate``.

    For example::

        import anyfork

        with anyfork.Template().fork(stdout=anyfork.PIPE).run_code("print('x' * 10_000)") as process:
            try:
                process.communicate(limit=100)
            except anyfork.OutputLimitError as error:
                assert error.stream == "stdout"
            process.kill()
    """

    stream: str


class StatusUnknownError(AnyforkError):
    """The process has ended, and its template was gone before it could learn how.

    For example::

        import os
        import signal
        import anyfork

        template = anyfork.Template().ready()
        process = template.fork().run_code("import signal; signal.pause()")
        os.kill(template.pid, signal.SIGKILL)
        process.kill()
        process.wait()
        try:
            process.poll()
        except anyfork.StatusUnknownError as error:
            print(error)
    """


class PeerError(AnyforkError):
    """A process sent data that is not anyfork's protocol, and was killed.

    For a call, ``may_have_run`` says whether anything of its function may have run.

    For example::

        import socket
        import anyfork

        ours, theirs = socket.socketpair()
        theirs.sendall(b"HTTP/1.1 400 Bad Request")
        try:
            anyfork.Template.from_socket(ours).ready()
        except anyfork.PeerError as error:
            print(error)
    """

    may_have_run: bool = True
