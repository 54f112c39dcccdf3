"""The public operations that campaigns strike at, one scene for each, grouped by face.

A scene is a generator. It prepares what the operation needs and yields a function that does the operation and checks its
result: this is where the strike comes. What follows the ``yield`` is the next operation on the same handle. It must work
or raise an AnyforkError; in a scene that is ``strict`` it must work. Scenes of the async faces are async generators.
"""

from __future__ import annotations

import contextlib
import operator
import os
import signal
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyfork
from anyfork import Executor, RemoteTemplate, Template, Worker
from anyfork._blocking.multiprocessing.popen import UNKNOWN

from . import deeds, state

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from anyfork import Process, aio

SECONDS = 20.0  # for anything that is waited for; a deadline that passes is a failure
HERE = Path(__file__).parent
RELAYS = {"near": "local_relay:relay", "far": "anyfork/relay"}  # what their command lines have
REMOTE = ["env", f"PYTHONPATH={HERE.parent}", sys.executable, "-"]


@dataclass(frozen=True, slots=True)
class Scene:
    """One operation. A ``slow`` one starts interpreters; ``strict`` says that the next operation must work."""

    name: str
    play: Callable[[World], Any]
    slow: bool = False
    strict: bool = False
    endures: bool = True  # the template that serves it works afterwards, also when a system call has failed


class World:
    """What all scenes of a program share, and what must be untouched after each: a template, a worker and an executor.

    ``serving`` is the pid of the template that does what the present operation asks for.
    """

    def __init__(self) -> None:
        self.template = (
            Template().preload(deeds.__name__, "_anyfork_child.worker.loop", "_anyfork_child.worker.job_loop").ready()
        )
        self.worker = Worker(self.template.fork()).ready()
        self.executor = Executor(self.template, 1)
        assert self.executor.submit(operator.neg, 1).result(SECONDS) == -1
        self.serving = 0
        self.remote = False  # it is on another machine
        self.before: Mapping[int, str] = {}  # processes from before the present operation
        self.harm = ""  # what is done during the present operation, where processes are harmed: role and action
        self.handle: Template | aio.Template | None = None  # of that template, if the scene has one
        self._pids = self._bystanders()

    def _bystanders(self) -> list[int | None]:
        with Template().ready() as default:
            assert default.pid is not None
            parent = int(Path(f"/proc/{default.pid}/stat").read_text().rpartition(")")[2].split()[1])
        return [parent, self.template.ready(SECONDS).pid, self.worker.pid, *self.executor.pids]

    def served(self) -> Template:
        """Return a template of its own for a scene, which does what the scene asks for."""
        template = self.template.fork().ready(SECONDS)
        assert template.pid is not None
        self.serving, self.handle = template.pid, template
        return template

    def served_by_default(self) -> None:
        """Note that the default template does what the scene asks for."""
        pid = self._pids[0]
        assert pid is not None
        self.serving, self.handle = pid, None

    def check(self) -> None:
        """Raise AssertionError unless the handles that had nothing to do with the operation work as before."""
        assert self.worker.call(operator.neg, 1, timeout=SECONDS) == -1, "the other worker answers wrongly"
        assert self.executor.submit(operator.neg, 2).result(SECONDS) == -2, "the other executor answers wrongly"
        with self.template.fork().ready(SECONDS):
            pass
        now = self._bystanders()
        if self.harm == "template KILL" and self.serving == self._pids[0]:
            self._pids[0] = now[0]  # the default template was what was killed
        assert now == self._pids, f"bystanders have changed: {self._pids} were there, now {now}"

    def check_end(self, status: anyfork.ExitStatus, code: int) -> None:
        """Check how a process has ended: as it should, or as what was done to it makes it end. Never is it invented."""
        role, _, action = self.harm.partition(" ")
        if self.harm == "kill" and status.signal == signal.SIGKILL:
            return
        if status.code == code or ((role, action) == ("child", "KILL") and status.signal == signal.SIGKILL):
            return
        unknown = status.code is None and status.signal is None
        if role == "template" and unknown and (action == "KILL" or status.error):
            return
        if self.remote and action == "KILL" and unknown:  # a relay was killed, which is a child of a template, too
            return
        if role == "child" and status.code == 1:  # its traceback is on standard error
            return
        raise AssertionError(f"wanted exit code {code}, found {status} with error {status.error!r}")

    def check_exit(self, found: int | None, *wanted: int) -> None:
        """Check the exit code of a process of a context, as ``check_end`` does."""
        role, _, action = self.harm.partition(" ")
        harmed = {"template": (UNKNOWN,), "child": (1, -signal.SIGKILL) if action == "KILL" else (1,)}
        assert found in (*wanted, *harmed.get(role, ())), f"wanted exit code {wanted}, found {found}"

    def relay(self, role: str) -> int:
        """Return the relay of this kind that the present operation has; 0 if it has none yet."""
        here = state.processes()
        return next((pid for pid, text in here.items() if RELAYS[role] in text and pid not in self.before), 0)

    @property
    def default(self) -> int:
        """The process that default templates come from."""
        assert self._pids[0] is not None
        return self._pids[0]

    def close(self) -> None:
        """End it all."""
        self.executor.shutdown()
        self.worker.close()
        self.template.close()


SCENES: dict[str, dict[str, Scene]] = {}


def scene(face: str, name: str, **options: bool) -> Callable[[Callable[[World], Any]], Callable[[World], Any]]:
    """Register the scene of an operation."""

    def register(play: Callable[[World], Any]) -> Callable[[World], Any]:
        SCENES.setdefault(face, {})[name] = Scene(name, play, **options)
        return play

    return register


def works(template: Template) -> None:
    """Check that a process can be started from a template, and that its status comes back."""
    with template.fork().run(deeds.end_with, 3, timeout=SECONDS) as process:
        assert process.wait(SECONDS).code == 3


def equal(found: object, wanted: object) -> None:
    """Check the result of an operation."""
    assert found == wanted, f"wanted {wanted!r}, found {found!r}"


# --- Templates ------------------------------------------------------------------------------------------------


@scene("template", "Template()")
def _(world: World) -> Iterator[Callable[[], object]]:
    world.served_by_default()
    yield lambda: Template()
    with Template() as template:
        works(template)


@scene("template", "new_exec", slow=True)
def _(world: World) -> Iterator[Callable[[], object]]:
    world.served_by_default()
    yield lambda: Template.new_exec()
    with Template() as template:
        works(template)


@scene("template", "new_exec().ready()", slow=True)
def _(world: World) -> Iterator[Callable[[], object]]:
    world.served_by_default()
    yield lambda: Template.new_exec().ready(SECONDS).close()
    with Template() as template:
        works(template)


@scene("template", "preload", strict=True)
def _(world: World) -> Iterator[Callable[[], object]]:
    with world.served() as template:
        yield lambda: template.preload("json")
        works(template.preload("json"))


@scene("template", "execute", strict=True)
def _(world: World) -> Iterator[Callable[[], object]]:
    with world.served() as template:
        yield lambda: template.execute("a = args[0]", 1)
        works(template.execute("b = 1"))


@scene("template", "prepare", strict=True)
def _(world: World) -> Iterator[Callable[[], object]]:
    with world.served() as template:
        yield lambda: template.prepare(operator.neg, 1)
        works(template.prepare(operator.neg, 2))


@scene("template", "send", strict=True)
def _(world: World) -> Iterator[Callable[[], object]]:
    with world.served() as template, open(os.devnull) as file:
        yield lambda: template.send(file, bytes(100_000))
        works(template)


@scene("template", "fork", strict=True)
def _(world: World) -> Iterator[Callable[[], object]]:
    with world.served() as template:
        yield lambda: template.fork()
        works(template)


@scene("template", "fork(attributes)", strict=True)
def _(world: World) -> Iterator[Callable[[], object]]:
    with world.served() as template:
        yield lambda: template.fork(cwd="/", nice=1, stdout=anyfork.DEVNULL, env=dict(os.environ))
        works(template)


@scene("template", "fork().start().wait()", strict=True)
def _(world: World) -> Iterator[Callable[[], object]]:
    with world.served() as template:
        yield lambda: world.check_end(template.fork().start(deeds.end_with, 3).wait(SECONDS), 3)
        works(template)


@scene("template", "ready", strict=True)
def _(world: World) -> Iterator[Callable[[], object]]:
    with world.served() as template:
        yield lambda: template.execute("a = 1").ready(SECONDS)
        template.ready(SECONDS)
        works(template)


@scene("template", "start")
def _(world: World) -> Iterator[Callable[[], object]]:
    with world.served() as template, template.fork() as fork:
        yield lambda: fork.start(deeds.drain)
        works(template)
        works(fork)


@scene("template", "start of a lambda")
def _(world: World) -> Iterator[Callable[[], object]]:
    with world.served() as template, template.fork() as fork:
        yield lambda: fork.start(lambda channel: None)
        works(template)
        works(fork)


@scene("template", "run")
def _(world: World) -> Iterator[Callable[[], object]]:
    with world.served() as template, template.fork() as fork:
        yield lambda: fork.run(deeds.drain, timeout=SECONDS)
        works(template)
        works(fork)


@scene("template", "run_program")
def _(world: World) -> Iterator[Callable[[], object]]:
    with world.served() as template, template.fork() as fork:
        yield lambda: fork.run_program(["true"], timeout=SECONDS)
        works(template)
        works(fork)


@scene("template", "run_program without a fork")
def _(world: World) -> Iterator[Callable[[], object]]:
    with world.served() as template:
        template.fork().run_program(["true"], timeout=SECONDS).wait(SECONDS)
        with template.fork() as fork:
            yield lambda: fork.run_program(["true"], timeout=SECONDS)
            works(template)
            works(fork)


@scene("template", "detach")
def _(world: World) -> Iterator[Callable[[], object]]:
    with world.served() as template, template.fork() as fork:
        yield lambda: fork.detach().close()
        works(template)
        works(fork)


@scene("template", "from_socket")
def _(world: World) -> Iterator[Callable[[], object]]:
    with world.served() as template, template.fork().detach() as sock:
        yield lambda: Template.from_socket(sock)
        works(template)


@scene("template", "close", endures=False)
def _(world: World) -> Iterator[Callable[[], object]]:
    with world.served() as template:
        yield template.close
        template.close()


@scene("template", "with", endures=False)
def _(world: World) -> Iterator[Callable[[], object]]:
    template = world.served()

    def block() -> None:
        with template:
            pass

    yield block
    template.close()


# --- Processes ------------------------------------------------------------------------------------------------


def ended(world: World, process: Process) -> None:
    """Let a process see the end of its channel, and check that it ends by that."""
    process.channel.close()
    world.check_end(process.wait(SECONDS), 0)
    process.close()


def killed(world: World, process: Process) -> None:
    """Check that a process ends by SIGKILL, as far as there is still a template to say so."""
    status = process.wait(SECONDS)
    if status.signal != signal.SIGKILL:
        world.check_end(status, -signal.SIGKILL)
    process.close()


@scene("process", "ready", strict=True)
def _(world: World) -> Iterator[Callable[[], object]]:
    with world.served() as template:
        process = template.fork().start(deeds.drain)
        yield lambda: process.ready(SECONDS)
        process.ready(SECONDS)
        ended(world, process)


@scene("process", "channel", strict=True)
def _(world: World) -> Iterator[Callable[[], object]]:
    with world.served() as template:
        process = template.fork().start(deeds.drain)

        def talk() -> None:
            channel = process.channel
            try:
                channel.sendall(b"x")
            except OSError:
                assert world.harm, "the process reads, but its channel is broken"

        yield talk
        ended(world, process)


@scene("process", "wait", strict=True)
def _(world: World) -> Iterator[Callable[[], object]]:
    with world.served() as template:
        process = template.fork().start(deeds.end_with, 3)
        yield lambda: world.check_end(process.wait(SECONDS), 3)
        world.check_end(process.wait(SECONDS), 3)
        assert world.harm or process.poll() == 3


@scene("process", "poll", strict=True)
def _(world: World) -> Iterator[Callable[[], object]]:
    with world.served() as template:
        process = template.fork().run(deeds.end_with, 3, timeout=SECONDS)
        yield process.poll
        world.check_end(process.wait(SECONDS), 3)
        assert world.harm or process.poll() == 3


@scene("process", "poll of an ended one", strict=True)
def _(world: World) -> Iterator[Callable[[], object]]:
    with world.served() as template:
        process = template.fork().run(deeds.end_with, 3, timeout=SECONDS)
        assert process.channel.recv(1) == b""
        yield process.poll
        world.check_end(process.wait(SECONDS), 3)


@scene("process", "send_signal", strict=True)
def _(world: World) -> Iterator[Callable[[], object]]:
    with world.served() as template:
        process = template.fork().run(deeds.drain, timeout=SECONDS)
        yield lambda: process.send_signal(signal.SIGCONT)
        process.send_signal(signal.SIGCONT)
        ended(world, process)


@scene("process", "kill", strict=True)
def _(world: World) -> Iterator[Callable[[], object]]:
    with world.served() as template:
        process = template.fork().run(deeds.drain, timeout=SECONDS)
        yield process.kill
        process.kill()
        killed(world, process)


@scene("process", "terminate of a new one", strict=True)
def _(world: World) -> Iterator[Callable[[], object]]:
    with world.served() as template:
        process = template.fork().start(deeds.drain)
        yield process.terminate
        process.kill()
        process.wait(SECONDS)
        process.close()


@scene("process", "fileno", strict=True)
def _(world: World) -> Iterator[Callable[[], object]]:
    with world.served() as template:
        process = template.fork().start(deeds.drain)
        yield process.fileno
        assert process.fileno() > 2
        ended(world, process)


@scene("process", "close")
def _(world: World) -> Iterator[Callable[[], object]]:
    with world.served() as template:
        process = template.fork().run(deeds.drain, timeout=SECONDS)
        yield process.close
        process.close()
        works(template)


@scene("process", "with")
def _(world: World) -> Iterator[Callable[[], object]]:
    with world.served() as template:
        process = template.fork().start(deeds.drain)

        def block() -> None:
            with process:
                pass
            assert world.harm or process.returncode == 0, process.returncode

        yield block
        process.channel.close()
        world.check_end(process.wait(SECONDS), 0)
        process.close()


@scene("process", "wait of one that raises", strict=True)
def _(world: World) -> Iterator[Callable[[], object]]:
    with world.served() as template:
        process = template.fork(stderr=anyfork.DEVNULL).start(deeds.fail)
        yield lambda: world.check_end(process.wait(SECONDS), 1)
        world.check_end(process.wait(SECONDS), 1)


# --- Workers and calls ----------------------------------------------------------------------------------------


def called(worker: Worker) -> None:
    """Check that a worker answers."""
    equal(worker.call(operator.neg, 5, timeout=SECONDS), -5)


@scene("worker", "Worker()")
def _(world: World) -> Iterator[Callable[[], object]]:
    with world.served() as template, template.fork() as fork:
        yield lambda: Worker(fork).close()
        works(template)
        with Worker(fork) as worker:
            called(worker)


@scene("worker", "ready")
def _(world: World) -> Iterator[Callable[[], object]]:
    with world.served() as template, Worker(template.fork()) as worker:
        yield lambda: worker.ready(SECONDS)
        called(worker.ready(SECONDS))


@scene("worker", "first call")
def _(world: World) -> Iterator[Callable[[], object]]:
    with world.served() as template, Worker(template.fork()) as worker:
        yield lambda: equal(worker.call(operator.neg, 1), -1)
        called(worker)


@scene("worker", "call")
def _(world: World) -> Iterator[Callable[[], object]]:
    with world.served() as template, Worker(template.fork()).ready(SECONDS) as worker:
        yield lambda: equal(worker.call(operator.neg, 1), -1)
        called(worker)


@scene("worker", "call with a timeout")
def _(world: World) -> Iterator[Callable[[], object]]:
    with world.served() as template, Worker(template.fork()).ready(SECONDS) as worker:
        yield lambda: equal(worker.call(operator.neg, 1, timeout=SECONDS), -1)
        called(worker)


@scene("worker", "call on_cancel=wait")
def _(world: World) -> Iterator[Callable[[], object]]:
    with world.served() as template, Worker(template.fork(), on_cancel="wait").ready(SECONDS) as worker:
        yield lambda: equal(worker.call(operator.neg, 1), -1)
        called(worker)


@scene("worker", "call of a lambda")
def _(world: World) -> Iterator[Callable[[], object]]:
    with world.served() as template, Worker(template.fork()).ready(SECONDS) as worker:
        yield lambda: equal(worker.call(lambda: 7), 7)
        called(worker)


@scene("worker", "call with large data")
def _(world: World) -> Iterator[Callable[[], object]]:
    data = bytes(300_000)
    with world.served() as template, Worker(template.fork()).ready(SECONDS) as worker:
        yield lambda: equal(worker.call(deeds.same, data), data)
        called(worker)


@scene("worker", "call that raises")
def _(world: World) -> Iterator[Callable[[], object]]:
    def fail() -> None:
        try:
            worker.call(operator.truediv, 1, 0)
        except ZeroDivisionError:
            return
        raise AssertionError("the call did not raise")

    with world.served() as template, Worker(template.fork()).ready(SECONDS) as worker:
        yield fail
        called(worker)


@scene("worker", "map")
def _(world: World) -> Iterator[Callable[[], object]]:
    with world.served() as template, Worker(template.fork()).ready(SECONDS) as worker:
        yield lambda: equal(list(worker.map(operator.neg, range(20), window=4)), [-n for n in range(20)])
        called(worker)


@scene("worker", "stream")
def _(world: World) -> Iterator[Callable[[], object]]:
    with world.served() as template, Worker(template.fork()).ready(SECONDS) as worker:
        yield lambda: equal(list(worker.stream(deeds.count, 5)), [0, 1, 2, 3, 4])
        called(worker)


@scene("worker", "stream closed early")
def _(world: World) -> Iterator[Callable[[], object]]:
    def begin() -> None:
        with worker.stream(deeds.count, 1000) as stream:
            equal(next(stream), 0)

    with world.served() as template, Worker(template.fork()).ready(SECONDS) as worker:
        yield begin
        called(worker)


@scene("worker", "close")
def _(world: World) -> Iterator[Callable[[], object]]:
    with world.served() as template:
        worker = Worker(template.fork()).ready(SECONDS)
        yield worker.close
        worker.close()
        world.check_end(worker.wait(SECONDS), 0)


@scene("worker", "wait")
def _(world: World) -> Iterator[Callable[[], object]]:
    with world.served() as template:
        worker = Worker(template.fork()).ready(SECONDS)
        worker.kill()
        yield lambda: equal(worker.wait(SECONDS).signal, signal.SIGKILL)
        equal(worker.wait(SECONDS).signal, signal.SIGKILL)
        worker.close()


@scene("worker", "kill", strict=True)
def _(world: World) -> Iterator[Callable[[], object]]:
    with world.served() as template:
        worker = Worker(template.fork()).ready(SECONDS)
        yield worker.kill
        worker.kill()
        assert world.harm or worker.wait(SECONDS).signal == signal.SIGKILL
        worker.close()


@scene("call", "call", strict=True)
def _(world: World) -> Iterator[Callable[[], object]]:
    world.served_by_default()
    yield lambda: equal(anyfork.call(operator.neg, 1), -1)
    equal(anyfork.call(operator.neg, 1, timeout=SECONDS), -1)


@scene("call", "call with a template", strict=True)
def _(world: World) -> Iterator[Callable[[], object]]:
    with world.served() as template:
        yield lambda: equal(anyfork.call(operator.neg, 1, template=template), -1)
        equal(anyfork.call(operator.neg, 1, template=template, timeout=SECONDS), -1)


@scene("call", "call of a lambda with a timeout", strict=True)
def _(world: World) -> Iterator[Callable[[], object]]:
    with world.served() as template:
        yield lambda: equal(anyfork.call(lambda: 7, template=template, timeout=SECONDS), 7)
        equal(anyfork.call(operator.neg, 1, template=template, timeout=SECONDS), -1)


# --- Executors ------------------------------------------------------------------------------------------------


def submitted(executor: Executor) -> None:
    """Check that an executor does jobs."""
    equal(executor.submit(operator.neg, 5).result(SECONDS), -5)


@scene("executor", "Executor()", strict=True)
def _(world: World) -> Iterator[Callable[[], object]]:
    with world.served() as template:
        yield lambda: Executor(template, 1)
        with Executor(template, 1) as executor:
            submitted(executor)


@scene("executor", "first submit", strict=True)
def _(world: World) -> Iterator[Callable[[], object]]:
    with world.served() as template, Executor(template, 1) as executor:
        yield lambda: executor.submit(operator.neg, 1)
        submitted(executor)


@scene("executor", "submit", strict=True)
def _(world: World) -> Iterator[Callable[[], object]]:
    with world.served() as template, Executor(template, 1) as executor:
        submitted(executor)
        yield lambda: executor.submit(operator.neg, 1)
        submitted(executor)


@scene("executor", "submit of large data", strict=True)
def _(world: World) -> Iterator[Callable[[], object]]:
    data = bytes(300_000)
    with world.served() as template, Executor(template, 1) as executor:
        submitted(executor)
        yield lambda: executor.submit(deeds.same, data)
        submitted(executor)


@scene("executor", "submit().result()", strict=True)
def _(world: World) -> Iterator[Callable[[], object]]:
    with world.served() as template, Executor(template, 1) as executor:
        submitted(executor)
        yield lambda: equal(executor.submit(operator.neg, 1).result(SECONDS), -1)
        submitted(executor)


@scene("executor", "cancel", strict=True)
def _(world: World) -> Iterator[Callable[[], object]]:
    with world.served() as template, Executor(template, 1) as executor:
        submitted(executor)
        futures = [executor.submit(operator.neg, n) for n in range(5)]
        yield futures[3].cancel
        for future in futures[:3]:
            future.result(SECONDS)
        assert futures[3].cancelled() or futures[3].result(SECONDS) == -3
        submitted(executor)


@scene("executor", "map", strict=True)
def _(world: World) -> Iterator[Callable[[], object]]:
    with world.served() as template, Executor(template, 1) as executor:
        submitted(executor)
        yield lambda: equal(list(executor.map(operator.neg, range(20), timeout=SECONDS)), [-n for n in range(20)])
        submitted(executor)


@scene("executor", "stats", strict=True)
def _(world: World) -> Iterator[Callable[[], object]]:
    with world.served() as template, Executor(template, 1) as executor:
        submitted(executor)
        yield lambda: (executor.stats(), repr(executor), executor.pids)
        submitted(executor)


@scene("executor", "resize", strict=True)
def _(world: World) -> Iterator[Callable[[], object]]:
    with world.served() as template, Executor(template, 1) as executor:
        submitted(executor)
        yield lambda: executor.resize(2)
        submitted(executor)


@scene("executor", "replace_template", strict=True)
def _(world: World) -> Iterator[Callable[[], object]]:
    with world.served() as template, template.fork() as other, Executor(template, 1) as executor:
        submitted(executor)
        yield lambda: executor.replace_template(other)
        submitted(executor)


@scene("executor", "shutdown", strict=True)
def _(world: World) -> Iterator[Callable[[], object]]:
    with world.served() as template:
        executor = Executor(template, 1)
        future = executor.submit(operator.neg, 1)
        yield executor.shutdown
        executor.shutdown()
        equal(future.result(SECONDS), -1)


@scene("executor", "shutdown with cancel_futures", strict=True)
def _(world: World) -> Iterator[Callable[[], object]]:
    with world.served() as template:
        executor = Executor(template, 1)
        futures = [executor.submit(operator.neg, n) for n in range(5)]
        yield lambda: executor.shutdown(cancel_futures=True)
        executor.shutdown(cancel_futures=True)
        assert all(future.done() for future in futures), "a future has no end after shutdown()"


@scene("executor", "kill", strict=True)
def _(world: World) -> Iterator[Callable[[], object]]:
    with world.served() as template:
        executor = Executor(template, 1)
        submitted(executor)
        futures = [executor.submit(operator.neg, n) for n in range(5)]
        yield executor.kill
        executor.kill()
        executor.shutdown()
        assert all(future.done() for future in futures), "a future has no end after kill()"


# --- Contexts and remote templates ----------------------------------------------------------------------------


@scene("context", "Process.start().join()", strict=True)
def _(world: World) -> Iterator[Callable[[], object]]:
    def run() -> None:
        process = context.Process(target=deeds.nothing)
        process.start()
        process.join(SECONDS)
        world.check_exit(process.exitcode, 0)

    with world.served() as template:
        context = anyfork.get_context(template)
        yield run
        run()
        for process in context.active_children():  # one whose join() was interrupted
            process.join(SECONDS)


@scene("context", "Process.terminate()", strict=True)
def _(world: World) -> Iterator[Callable[[], object]]:
    with world.served() as template:
        context = anyfork.get_context(template)
        process = context.Process(target=signal.pause)
        process.start()
        yield process.terminate
        process.kill()
        process.join(SECONDS)
        world.check_exit(process.exitcode, -signal.SIGTERM, -signal.SIGKILL)
        process.close()


@scene("remote", "fork().run().wait()", strict=True)
def _(world: World) -> Iterator[Callable[[], object]]:
    with remote(world) as template:
        yield lambda: world.check_end(template.fork().run(deeds.end_with, 3, timeout=SECONDS).wait(SECONDS), 3)
        works(template)


@scene("remote", "ready", strict=True)
def _(world: World) -> Iterator[Callable[[], object]]:
    with remote(world) as template:
        yield lambda: template.execute("a = 1").ready(SECONDS)
        works(template)


@scene("remote", "RemoteTemplate().ready().close()", slow=True)
def _(world: World) -> Iterator[Callable[[], object]]:
    world.served_by_default()

    def connect() -> None:
        with RemoteTemplate(REMOTE) as template:
            template.ready(SECONDS)

    yield connect
    connect()


@scene("remote", "Worker.call")
def _(world: World) -> Iterator[Callable[[], object]]:
    with remote(world) as template, Worker(template.fork()).ready(SECONDS) as worker:
        yield lambda: equal(worker.call(operator.neg, 1), -1)
        called(worker)


_remote: list[RemoteTemplate] = []


@contextlib.contextmanager
def remote(world: World) -> Iterator[RemoteTemplate]:
    """Yield a template on what this program takes for another machine; its own for an operation that harms it."""
    world.served_by_default()
    world.remote = True
    if world.harm:
        with RemoteTemplate(REMOTE).preload(deeds.__name__).ready(SECONDS) as template:
            yield template
        return
    if not _remote:
        _remote.append(RemoteTemplate(REMOTE).preload(deeds.__name__).ready(SECONDS))
    yield _remote[0]
