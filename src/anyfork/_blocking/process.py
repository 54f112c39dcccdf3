"""Processes that run a function, in the blocking face, and the wait for the first of many that ends."""

from __future__ import annotations

import os
from select import POLLIN

from _anyfork_child.wire.descriptors import duplicate
from _anyfork_child.wire.own_imports import import_own

from .._errors import AnyforkError, ArgumentError, HandleError
from .._processes import flows
from .._processes.handles import ProcessHandle
from .._processes.undelivered import destructor
from .._system.pipes import Exchange
from .._system.polling import new_poll
from .._system.timeouts import deadline, one_wait, remaining
from .waiting import run

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
    from collections.abc import Iterable, Sequence
    from io import BufferedReader, BufferedWriter
    from typing import Self

    from .._processes.link import Link
    from .._status import ExitStatus


class Process(ProcessHandle):
    """A process that a function, or a program, has taken over. ``Template.start`` and ``run`` create it.

    As a context manager it closes its channel and its streams at the end and waits for the process. If the handle is
    dropped, the process goes on, and sees the end of its channel.

    For example::

        import signal
        import anyfork

        def sleep(channel):
            signal.pause()

        with anyfork.Template().run(sleep) as process:
            process.terminate()
            assert process.wait(timeout=60).signal == signal.SIGTERM
    """

    __slots__ = ("_channel",)
    _channel: socket.socket | None

    @classmethod
    def _of(cls, link: Link, channel: socket.socket | None = None) -> Self:
        process = cls.__new__(cls)
        process._link, process._channel = link, channel
        link.hold()
        return process

    def _give_up_both(self) -> tuple[Link, socket.socket | None]:
        """Return link and channel for another handle. This handle cannot be used afterwards."""
        link = self._give_up("from_blocking")
        channel, self._channel = self._channel, None
        return link, channel

    def ready(self, timeout: float | None = None) -> Self:
        """Wait until the process has entered its function; raise why it has not.

        With a ``timeout``, in seconds, raise NotReadyError when that is over: the process is killed, and has not
        entered its function. Any other StartError or TemplateError, too, means that nothing of the function has run.

        For example::

            import anyfork

            def work(channel):
                pass

            process = anyfork.Template().start(work)
            process.ready(timeout=60)
        """
        run(flows.enter(self._link, timeout))
        return self

    def _ready_or_gone(self, timeout: float | None) -> Self:
        """Call ``ready``. If an interrupt ends the wait, kill the process, for which there would be no handle."""
        try:
            return self.ready(timeout)
        except AnyforkError:
            raise
        except BaseException:
            if not self._link.revoke():
                self.kill()
            raise

    @property
    def channel(self) -> socket.socket:
        """The connected stream socket to the process: the first argument of its function is the other end.

        Waits until the process is ready, and raises what ``ready`` raises.

        For example::

            import anyfork

            def shout(channel):
                with channel:
                    channel.sendall(channel.recv(100).upper())

            with anyfork.Template().start(shout) as process:
                process.channel.sendall(b"hello")
                assert process.channel.recv(100) == b"HELLO"
        """
        if self._channel is None:
            link = self._link
            run(flows.enter(link, None, "channel"))
            run(flows.birth(link))  # before, the pid is certain only as long as the link has the socket
            import_own("socket")
            from .._system.channel_socket import (
                ChannelSocket,  # only now: the socket module costs more than all of anyfork
            )

            link.give_control(ChannelSocket, self, "_channel")
        assert self._channel is not None
        return self._channel

    def wait(self, timeout: float | None = None) -> ExitStatus:
        """Wait until the process has ended, and return its exit status. Any number of threads may wait.

        Raises TimeoutError when the timeout, in seconds, is over before; the process goes on. A status that is neither
        a code nor a signal is unknown: the template was killed before the process ended.

        For example::

            import anyfork

            with anyfork.Template().run_code("raise SystemExit(3)") as process:
                status = process.wait(timeout=60)
            print(status.code, status.usage.max_rss)
        """
        return run(flows.end(self._link, timeout))

    def poll(self) -> int | None:
        """Check whether the process has ended, and return ``returncode``.

        For example::

            import anyfork

            with anyfork.Template().run_code("pass") as process:
                print(process.poll())                      # None while it runs
        """
        run(flows.look(self._link))
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Send a signal to the process. Nothing happens when it has ended.

        For example::

            import signal
            import anyfork

            with anyfork.Template().run_code("import signal; signal.pause()") as process:
                process.send_signal(signal.SIGUSR1)
                assert process.wait().signal == signal.SIGUSR1
        """
        self._signal(number, "send_signal()")

    def _signal(self, number: int, use: str) -> None:
        run(flows.signal(self._link, number, use))

    def fileno(self) -> int:
        """Return a descriptor that becomes readable when the process has ended. The handle still owns it.

        Raises HandleError once ``wait`` or ``poll`` has seen the end, which closes the descriptor.

        For example::

            import selectors
            import anyfork

            with anyfork.Template().run_code("pass") as process, selectors.DefaultSelector() as selector:
                selector.register(process, selectors.EVENT_READ)
                selector.select()                          # until it has ended
        """
        return run(flows.end_descriptor(self._link))

    @property
    def stdin(self) -> BufferedWriter | None:
        """The file that writes to the standard input of the process, if that is a PIPE.

        For example::

            import anyfork

            with anyfork.Template().fork(stdin=anyfork.PIPE).run_code("input()") as process:
                process.stdin.write(b"a line")
                process.stdin.close()
        """
        streams = self._link.streams
        if streams is None:
            return None
        from .streams import writer

        return writer(streams)

    @property
    def stdout(self) -> BufferedReader | None:
        """The file that reads the standard output of the process, if that is a PIPE.

        For example::

            import anyfork

            with anyfork.Template().fork(stdout=anyfork.PIPE).run_code("print('hello')") as process:
                assert process.stdout.readline().strip() == b"hello"
        """
        return self._output("stdout")

    @property
    def stderr(self) -> BufferedReader | None:
        """The file that reads the standard error of the process, if that is a PIPE.

        For example::

            import anyfork

            with anyfork.Template().fork(stderr=anyfork.PIPE).run_code("1 / 0") as process:
                assert b"ZeroDivisionError" in process.stderr.read()
        """
        return self._output("stderr")

    def _output(self, name: str) -> BufferedReader | None:
        streams = self._link.streams
        if streams is None:
            return None
        from .streams import reader

        return reader(streams, name)

    def communicate(
        self,
        input: bytes | None = None,  # noqa: A002  # the name in subprocess
        timeout: float | None = None,
        *,
        limit: int | None = None,
    ) -> tuple[bytes | None, bytes | None]:
        """Write to the standard input, read the standard output and error to their ends, and wait for the process.

        Return the output and the error output; None for a stream that is not a PIPE. Raises TimeoutError when the
        timeout, in seconds, is over before, and OutputLimitError when the process has written more than ``limit`` bytes
        to one of the streams. The process goes on then: a further call, without input, goes on too, and loses nothing.

        For example::

            import anyfork
            from anyfork import PIPE

            with anyfork.Template().fork(stdin=PIPE, stdout=PIPE).run_code("print(input()[::-1])") as process:
                assert process.communicate(b"abc", timeout=60, limit=1000)[0].strip() == b"cba"
        """
        flows.check(self._link, "communicate()")
        until = deadline(timeout)
        streams = self._link.streams
        if streams is None:
            Exchange((), input)
            self.wait(timeout)
            return None, None
        from .streams import exchange

        done = exchange(streams, input, limit, until)
        if done is None:
            text = f"process {self.pid} has not closed its output within {timeout} seconds"
            raise TimeoutError(f"{text}: kill it, or call communicate() again")
        self.wait(remaining(until))
        return done.result()

    def close(self) -> None:
        """Close the channel and the streams, and release the process, which goes on. Closing twice is harmless.

        For example::

            import anyfork

            process = anyfork.Template().run_code("print('goes on')")
            process.close()
        """
        if self._channel is not None:
            self._channel.close()
        self._close_streams()
        self._leave()

    def _close_streams(self) -> None:
        streams = self._link.streams
        if streams is not None:
            from .streams import close

            close(streams)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._channel is not None:
            self._channel.close()
        else:
            run(flows.leave(self._link))
        self._close_streams()
        self.wait()
        self.close()

    @destructor
    def __del__(self) -> None:
        if not hasattr(self, "_link"):
            return
        self._channel = None  # the socket closes itself, unless something else refers to it
        self._leave()


def wait(processes: Iterable[Process], timeout: float | None = None) -> list[Process]:
    """Wait until one of these processes has ended; return all that have, in the order given.

    Return an empty list when the timeout, in seconds, is over before, and for no processes. The handles can be used
    from other threads meanwhile.

    For example::

        import anyfork

        template = anyfork.Template()
        processes = [template.fork().run_module("this") for _ in range(2)]
        while processes:
            for process in anyfork.wait(processes):
                processes.remove(process)
                process.close()
    """
    if not hasattr(processes, "__iter__"):
        raise ArgumentError(f"wait() takes a list of processes, not {type(processes).__name__}: wait([process])")
    watched = list(processes)
    for process in watched:
        if not isinstance(process, Process):
            raise ArgumentError(f"wait() needs processes, as Template.run() makes them, not {type(process).__name__}")
    until = deadline(timeout)
    while True:
        ended = [process for process in watched if _has_ended(process)]
        if ended or not watched or remaining(until) == 0:
            return ended
        _wait_for_any(watched, remaining(until))


def _has_ended(process: Process) -> bool:
    run(flows.look(process._link, "wait()"))
    return process._link.session.status is not None


def _wait_for_any(processes: Sequence[Process], seconds: float | None) -> None:
    """Wait until a descriptor shows that one of the processes may have ended."""
    poller, copies = new_poll(), []
    try:
        for process in processes:
            copies.append(duplicate(process.fileno()))  # a wait in another thread closes the descriptor itself
            poller.register(copies[-1], POLLIN)
        poller.poll(None if seconds is None else one_wait(seconds) * 1000)
    except HandleError:  # one has ended meanwhile, or its handle was closed: the next look says so
        pass
    finally:
        for copy in copies:
            os.close(copy)
