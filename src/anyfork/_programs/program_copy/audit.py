"""The audit of this process: one report on everything that matters to a fork of it."""

from __future__ import annotations

import os
import sys

from _anyfork_child.wire.unsafe_modules import unsafe_modules

from ..._status import Record
from . import survey

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from typing import TextIO


class OpenDescriptor(Record):
    """An open descriptor: its number, its kind ("socket", "file", ...), its path or address, and whether it belongs to
    anyfork itself, in which case no template gets it.

    For example::

        import io
        import anyfork

        for one in anyfork.audit(file=io.StringIO()).descriptors:
            print(one.fd, one.kind)
    """

    __match_args__: tuple[str, ...] = ("fd", "kind", "target", "own")
    __slots__ = __match_args__
    fd: int
    kind: str
    target: str
    own: bool

    def __init__(self, fd: int, kind: str, target: str, own: bool) -> None:
        self._set(fd, kind, target, own)

    @property
    def is_foreign_socket(self) -> bool:
        """True for a socket of the program's, other than a standard stream.

        For example::

            import io
            import socket
            import anyfork

            with socket.socket():
                report = anyfork.audit(file=io.StringIO())
            assert all(one.is_foreign_socket for one in report.sockets)
        """
        return self.kind == "socket" and not self.own and self.fd > 2

    def __str__(self) -> str:
        return " ".join(filter(None, (str(self.fd), self.kind, self.target, "(of anyfork)" * self.own)))


class Audit(Record):
    """A report on the parts of this process that a fork copies badly. ``anyfork.audit()`` makes and prints it.

    ``threads`` and ``native_threads`` are names, ``loops`` are the running event loops, ``descriptors`` are all open
    descriptors, ``generators`` describes random generators that every copy has in the same state, ``modules`` maps
    loaded modules to the reasons why they do not survive a fork, ``interpreters`` are the interpreters beside the main
    one, ``gpus`` are the GPU devices that are open. ``obstacles`` are the reasons why ``fork_here`` refuses,
    ``hazards`` are its warnings.

    For example::

        import io
        import anyfork

        report = anyfork.audit(file=io.StringIO())
        print(report.threads, report.hazards)
    """

    __match_args__: tuple[str, ...] = (
        "pid",
        "threads",
        "native_threads",
        "loops",
        "main_interpreter",
        "finalizing",
        "descriptors",
        "generators",
        "modules",
        "interpreters",
        "gpus",
    )
    __slots__ = __match_args__
    pid: int
    threads: tuple[str, ...]
    native_threads: tuple[str, ...]
    loops: tuple[str, ...]
    main_interpreter: bool
    finalizing: bool
    descriptors: tuple[OpenDescriptor, ...]
    generators: tuple[str, ...]
    modules: Mapping[str, str]
    interpreters: tuple[str, ...]
    gpus: tuple[str, ...]

    def __init__(
        self,
        pid: int,
        threads: Iterable[str] = (),
        native_threads: Iterable[str] = (),
        loops: Iterable[str] = (),
        main_interpreter: bool = True,
        finalizing: bool = False,
        descriptors: Iterable[OpenDescriptor] = (),
        generators: Iterable[str] = (),
        modules: Mapping[str, str] | None = None,
        interpreters: Iterable[str] = (),
        gpus: Iterable[str] = (),
    ) -> None:
        self._set(
            pid,
            tuple(threads),
            tuple(native_threads),
            tuple(loops),
            main_interpreter,
            finalizing,
            tuple(descriptors),
            tuple(generators),
            dict(modules or {}),
            tuple(interpreters),
            tuple(gpus),
        )

    @property
    def sockets(self) -> tuple[OpenDescriptor, ...]:
        """The open sockets of the program, which a copy of it would hold as well.

        For example::

            import io
            import socket
            import anyfork

            with socket.socket():
                assert anyfork.audit(file=io.StringIO()).sockets
        """
        return tuple(one for one in self.descriptors if one.is_foreign_socket)

    @property
    def obstacles(self) -> tuple[str, ...]:
        """The reasons why this process must not be copied.

        For example::

            import io
            import anyfork

            for obstacle in anyfork.audit(file=io.StringIO()).obstacles:
                print(obstacle)
        """
        return obstacles(self.threads, self.loops, self.main_interpreter, self.finalizing, self.interpreters)

    @property
    def hazards(self) -> tuple[str, ...]:
        """The problems that a copy of this process may have.

        For example::

            import io
            import anyfork

            for hazard in anyfork.audit(file=io.StringIO()).hazards:
                print(hazard)
        """
        return hazards(self.native_threads, self.sockets, self.modules, self.gpus)

    def __str__(self) -> str:
        lines = [f"process {self.pid}"]
        for title, values in (
            ("threads", self.threads or ("none beside this one",)),
            ("native threads", self.native_threads or ("none that matter",)),
            ("event loops", self.loops or ("none runs",)),
            ("descriptors", tuple(map(str, self.descriptors)) or ("none",)),
            ("random generators", self.generators or ("none that copies would share",)),
            ("unsafe modules", tuple(f"{name}: {why}" for name, why in self.modules.items()) or ("none known",)),
            ("a copy", self.obstacles or self.hazards or ("can be made here",)),
        ):
            lines += [f"  {title + ':' if not at else '':<19}{value}" for at, value in enumerate(values)]
        if self.obstacles:
            lines.append("                     ... and so cannot be made here")
        return "\n".join(lines)


def obstacles(
    threads: Sequence[str],
    loops: Sequence[str],
    main_interpreter: bool,
    finalizing: bool,
    interpreters: Sequence[str] = (),
) -> tuple[str, ...]:
    """Return the reasons why a process with these findings must not be copied."""
    found = []
    if finalizing:
        found.append("the interpreter is ending")
    if threads:
        found.append(f"threads run in it, and a copy would not have them: {', '.join(threads)}")
    elif not main_interpreter:
        found.append("this is not the main thread of the main interpreter, which alone can be copied")
    if loops:
        found.append(f"an event loop is running, which the copy would share: {', '.join(loops)}")
    if interpreters:
        found.append(f"it has subinterpreters, with which os.fork does not return: {', '.join(interpreters)}")
    return tuple(found)


def hazards(
    native_threads: Sequence[str],
    sockets: Sequence[OpenDescriptor],
    modules: Mapping[str, str],
    gpus: Sequence[str],
) -> tuple[str, ...]:
    """Return the problems that a copy of a process with these findings may have."""
    found = []
    if native_threads:
        found.append(f"native threads run in it, and a copy does not have them: {', '.join(native_threads)}")
    if sockets:
        listed = ", ".join(f"{one.fd} ({one.target})" for one in sockets)
        found.append(f"it has open sockets, whose peers do not see them closed: {listed}")
    if gpus:
        found.append(f"it has opened a GPU, which a copy cannot use: {', '.join(gpus)}")
    found += [f"the module {name} is loaded: {why}" for name, why in modules.items()]
    return tuple(found)


def list_descriptors() -> list[OpenDescriptor]:
    """Return all descriptors that are open in this process."""
    own = survey.own_descriptors()
    return [OpenDescriptor(fd, kind, target, fd in own) for fd, kind, target in survey.open_descriptors()]


def take_audit() -> Audit:
    """Make the report on this process."""
    return Audit(
        os.getpid(),
        survey.python_threads(),
        survey.native_threads(),
        survey.running_loops(),
        survey.in_main_interpreter(),
        sys.is_finalizing(),
        list_descriptors(),
        survey.generators(),
        unsafe_modules(),
        survey.subinterpreters(),
        survey.gpus(),
    )


def audit(file: TextIO | None = None) -> Audit:
    """Print what in this process does not survive a fork, to ``file`` or standard output, and return the report.

    ``fork_here`` and ``import anyfork.early`` check the same things: they refuse because of the report's ``obstacles``
    and warn of its ``hazards``.

    For example::

        import anyfork

        report = anyfork.audit()
        print(report.obstacles)
    """
    report = take_audit()
    print(report, file=file)
    return report
