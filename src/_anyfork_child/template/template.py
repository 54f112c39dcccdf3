"""The state of a template, a process that is prepared, forked, and finally taken over by a function, and rare requests.

One object per process. Its loop, which also forks, is in template.fork_loop; template.entry lets a function or a
program take over, template.shutdown ends the template.
"""

from __future__ import annotations

import _signal
import os
import sys
from select import POLLIN, poll
from time import monotonic_ns

from ..birth.attributes import give
from ..birth.preparation import STEPS
from ..values.decode import DescriptorsLostError, Payload, find_function
from ..values.objects_of_main import inherit
from ..wire.channel import NOWAIT, Channel, close_all, wait_for_memory
from ..wire.failure import Failure, failure_of
from ..wire.frames import (
    ADOPT,
    ADOPTED,
    CHANNEL,
    CLOSE,
    COMPILED,
    DETACH,
    DETACHED,
    FAILED,
    FOLLOWED,
    FORK,
    FORK_DESCRIPTORS,
    FORK_PROGRAM,
    IMMORTALIZE,
    IMPORTED,
    IN_FILE,
    IN_PYTHON,
    NOTED,
    PING,
    PROGRAM,
    READY,
    REVOKE,
    SEND,
    START,
    STDIO,
    TRACK,
    Frame,
    ProtocolError,
    wipe,
)
from ..wire.lifeline import follow
from ..wire.platform import has_pidfds
from ..wire.resource_tracker import use as use_tracker
from ..wire.signals import FROM_CHILDREN, ignore_defaults, restore_default
from . import shutdown, user_code
from .entry import start_program, start_with_all
from .fork_loop import fork_for
from .heap import collapse_by_ctypes, collapse_heap, immortalize, make_immortal_by_ctypes, why_not_immortal

TYPE_CHECKING = False
if TYPE_CHECKING:
    import _socket
    from collections.abc import Callable, Sequence
    from typing import Any

    from ..birth.title import Title
    from ._fast import ChildTable
    from .children import Children
    from .fork_hooks import Lists
    from .state import Loop


held: tuple[
    int, ...
] = ()  # this process's descriptors that are not the user code's: its lifeline, and the pipe for its reports
this: Template  # the template of this process; processes forked from it keep the object

OWN = __name__.partition(".")[0]  # the package whose modules are loaded when they are needed
START_PATH = "start_path"  # in the template's __main__, if the first code in it has changed sys.path


class Template:
    """The template in this process, until the process is told what to run.

    Its three sockets and pipes have the same numbers in all generations, and their objects are made once: ``channel``,
    and the descriptors ``lifeline`` and ``reports``, the pipe for reports to the template that forked it. ``flags`` are
    those of a FORK frame: whether the kernel, too, tells it of the owner's end, by SIGTERM, and whether the call that
    takes over this process outlives the owner.
    """

    __slots__ = (
        "arguments",
        "attributes",
        "changed",
        "channel",
        "children",
        "choose_fork",
        "collapses",
        "compiled",
        "container",
        "failure",
        "flags",
        "fork",
        "forking",
        "forks",
        "generation",
        "handler",
        "hook_errors",
        "hooks",
        "ignored",
        "immortal",
        "kept",
        "lifeline",
        "loop",
        "new_children",
        "note",
        "past",
        "pid",
        "relay",
        "reports",
        "resets",
        "settled",
        "shows_function",
        "signals",
        "start_directory",
        "start_environment",
        "start_path",
        "stdio",
        "title",
        "titled",
        "told",
        "told_to_end",
        "user_hook",
    )

    def __init__(self, control: _socket.socket, lifeline: int, flags: int, reports: int, title: Title) -> None:
        self.channel = Channel(control)
        self.lifeline = lifeline
        self.flags = flags
        self.reports = reports
        self.pid = os.getpid()
        self.container = 0  # the pid of the container that this process is, or was forked from
        self.generation = 0  # 0 if this process was exec'ed, 1 if it was forked
        self.title = title
        self.titled = False
        # Empty tuples are one object, and so one page, whatever they are for.
        self.arguments: tuple[Payload, ...] = ()
        self.attributes: dict[str, Any] = {}
        self.shows_function = True  # whether the title shows the function when it is entered
        self.stdio: Sequence[int] = ()  # standard streams that become the channel
        self.failure: Failure | None = None
        self.told = False  # whether the failure was reported to the owner
        self.kept: Sequence[int] = ()  # descriptors that a former owner has left for the next
        self.relay = False  # whether to tell all processes of the owner's end, as some follow a former owner
        # For forks:
        self.forks = 0
        self.new_children = children_class()
        self.children: Children | None = None
        self.past: list[object] = []  # objects whose descriptors are closed in forks; they are never finalized
        self.changed = True  # whether user code, or our own start, has run since the last settle
        self.settled = False  # whether the next fork needs no preparation
        self.resets: Sequence[Callable[[], object]] = ()  # the resets of state that a new process must run
        self.signals: Sequence[int] = ()  # signals with a handler, which must not run in the middle of a fork
        self.fork: Callable[[], int] = os.fork
        self.choose_fork: Callable[[], Callable[[], int]] = lambda: self.fork  # called after user code
        self.compiled: Loop | None = None  # set by template.compiled, as choose_fork and new_children
        self.loop: Loop | None = None  # the compiled loop, if it fits this template as it is now
        self.collapses = False  # whether its heap is to be moved to huge pages once it has been forked several times
        self.immortal = False  # whether all its objects become immortal before it is forked
        self.note = ""  # for the log of the owner, who gets it with the next answer or fork
        self.forking = False  # True between a fork and its bookkeeping
        self.told_to_end = 0  # the signal that came during that time
        self.hook_errors: tuple[Any, ...] = ()
        self.hooks: Lists | None = None  # the interpreter's lists of its hooks, if they are known
        self.user_hook = sys.unraisablehook
        self.handler = lambda number, _frame: shutdown.terminated(self, number)
        self.ignored: Sequence[int] = ()  # signals that this template ignores, and its processes do not
        if flags == FOLLOWED:
            follow(lifeline, self.pid)
        self.take_signals()

    def note_start(self) -> None:
        """Note what the interpreter has made of its environment at its start, for programs that run as in a new one."""
        self.start_path = [entry for entry in vars(sys.modules["__main__"]).get(START_PATH, sys.path) if entry]
        self.start_environment = dict(os.environb)
        try:
            self.start_directory = os.getcwd()
        except OSError:  # it was removed
            self.start_directory = ""

    def take_signals(self) -> None:
        """Set the signal handlers of a template again, because user code may have changed them."""
        _signal.signal(_signal.SIGINT, _signal.SIG_IGN)  # Ctrl-C is for the owner and for running processes
        _signal.signal(_signal.SIGPIPE, _signal.SIG_IGN)  # a pipe for reports may have no reader
        _signal.signal(_signal.SIGTERM, self.handler)
        restore_default(_signal.SIGCHLD)  # ignored, or with a handler that waits, it takes the statuses
        self.ignored = (*self.ignored, *ignore_defaults(FROM_CHILDREN))
        if self.children is not None:
            self.children.take_signals()

    def keep_signals(self) -> None:
        """Set the signal handlers again if a hook of a fork has changed them, as coverage.py does in each process."""
        if _signal.getsignal(_signal.SIGTERM) is not self.handler:
            self.take_signals()

    # --- What the owner asks ---

    def hear(self, data: bytes, fds: Sequence[int], got: int) -> list[Any] | None:
        """Process bytes from the control socket; return the call when a function takes over the process, else None."""
        try:
            frame = self.channel.complete(data, fds, got, NOWAIT)
        except BlockingIOError:
            return None  # the rest of the frame will come
        except ConnectionResetError:  # the owner ended with unread data from this process
            frame = None
        except OSError as error:
            wait_for_memory(error)
            return None  # nothing is lost, as above
        except (ProtocolError, EOFError) as error:
            shutdown.reject(self, error)
        if frame is None:
            shutdown.owner_gone(self)
        return self._obey(frame)

    def _obey(self, frame: Frame) -> list[Any] | None:
        kind = frame.kind & ~IN_FILE
        if kind == START:
            return start_with_all(self, frame)
        if kind == FORK:
            if len(frame.fds) < FORK_DESCRIPTORS:
                shutdown.reject(self, ProtocolError("a fork without its sockets"))
            fork_for(self, frame.fds, frame.value, frame.body)
            if frame.body:
                wipe(frame.body)  # otherwise the next process finds these attributes in its memory
        elif kind == PROGRAM:
            start_program(self, frame)
        elif kind == FORK_PROGRAM:
            self._fork_program(frame)
        elif kind == PING:
            self._answer()
        elif kind == CLOSE:
            shutdown.close(self)
        elif kind == DETACH:
            close_all(self.kept)
            self.kept = frame.fds
        elif kind == ADOPT:
            self._adopt(frame)
        elif kind == SEND:
            self._take(frame)
        elif kind == TRACK:
            self._track(frame.fds)
        elif kind == IMMORTALIZE:
            self._become_immortal()
        elif kind in STEPS:
            user_code.prepare(self, kind, frame)
        elif kind == REVOKE:  # an interrupt came before the frame that takes this template over
            shutdown.finish(self, 1)
        else:
            shutdown.reject(self, ProtocolError(f"a frame of kind {kind}, which is not for templates"))
        return None

    def _fork_program(self, frame: Frame) -> None:
        """Start a program without a fork of this template, or with one where only that can."""
        if len(frame.fds) < FORK_DESCRIPTORS:
            shutdown.reject(self, ProtocolError("a fork without its sockets"))
        frame.fds = [*frame.fds]
        try:
            from .program_start import start_without_fork  # only now: few templates start programs
        except (ImportError, OSError):  # another user or root now, or out of descriptors or memory
            started = False
        else:
            started = start_without_fork(self, frame)
        if not started:
            fork_for(self, frame.fds, frame.value, frame.body)
        if frame.body:
            wipe(frame.body)

    def _answer(self) -> None:
        if self.note:
            self.send(Frame(NOTED, self.pid, self.note.encode()))
            self.note = ""
        if self.failure is None:
            self.send(Frame(READY, self.pid, IN_PYTHON if self.compiled is None else COMPILED))
        else:
            self.told = True
            self.send(Frame(FAILED, 0, self.failure.pack()))

    def send(self, frame: Frame) -> None:
        """Send the owner a frame, if it still listens."""
        try:
            self.channel.send(frame)
        except ConnectionError:
            pass  # the loop will see its end

    def _take(self, frame: Frame) -> None:
        payload = Payload(frame)
        if payload.lost:
            self.failure = self.failure or Failure("descriptors", "send", DescriptorsLostError())
        self.arguments = (*self.arguments, payload)
        self.settled = False

    def _track(self, fds: Sequence[int]) -> None:
        """Use the owner's resource tracker here and in all forks; go on without if its descriptor did not arrive."""
        if len(fds) != 1:
            shutdown.reject(self, ProtocolError("a resource tracker without its pipe"))
        if fds[0] >= 0:
            use_tracker(fds[0])
            self.settled = False

    def find_function(self, name: str, values: Sequence[object]) -> Callable[..., object]:
        """Find the function of a call; tell the owner if its module must be imported, which is costly in every process.

        Raises FunctionNotFoundError.
        """
        module = name.rpartition(":")[0]
        if not module or module in sys.modules or module.startswith(OWN):
            return find_function(name, values)
        pid, began = os.getpid(), monotonic_ns()
        function = find_function(name, values)
        if os.getpid() == pid:  # not in a copy that the module has made
            self.send(Frame(IMPORTED, monotonic_ns() - began, module.encode()))
        return function

    # --- While nothing is asked ---

    def idle(self) -> None:
        """Show the full title, which a process that starts at once does without, and wait for requests.

        With a children object, return at once: the loop waits then, and reaps meanwhile.
        """
        if not self.titled:
            self.show_idle()
        if self.children is not None:
            return  # the loop waits, and reaps meanwhile
        poller = poll()
        poller.register(self.channel.fd, POLLIN)
        if self.watches_owner:
            poller.register(self.lifeline, POLLIN)
        try:
            ready = dict(poller.poll())
        except OSError as error:
            wait_for_memory(error)
            return
        if self.lifeline in ready:
            shutdown.owner_gone(self)

    @property
    def watches_owner(self) -> bool:
        """True if the owner's end is the end of this process.

        A detached process first completes its pending requests, so it ends with the stream of its control socket.
        """
        return not self.flags & DETACHED

    def show_idle(self) -> None:
        """Show the full title of this process in ps."""
        self.titled = True
        if "title" in self.attributes:
            self.title.restore(self.attributes["title"])
        else:
            self.title.show(b"anyfork" if self.generation else b"anyfork/exec", short=True)

    # --- Being forked ---

    def _become_immortal(self) -> None:
        """Have all objects be immortal from the next fork on, or note for the owner why that is impossible."""
        why = why_not_immortal()
        if why:
            self.note = f"cannot make its objects immortal: {why}"
        else:
            user_code.expect(self)  # which may have made objects: they are immortal, too
        self.immortal = not why
        self.settled = False

    def immortalize(self) -> None:
        """Make all objects of this template immortal, now that it is about to be forked."""
        make = self.compiled.make_immortal if self.compiled is not None else None
        try:
            immortalize(make or make_immortal_by_ctypes)
        except ImportError as error:  # this Python has no ctypes
            self.immortal, self.note = False, f"cannot make its objects immortal: {error}"

    def collapse_heap(self) -> None:
        """Move the heap to huge pages, and note for the owner what that has cost."""
        self.collapses = self.settled = False
        try:
            collapse = collapse_by_ctypes() if self.compiled is None else self.compiled.collapse
            self.note = collapse_heap(collapse)
        except (ImportError, OSError):  # no ctypes, or no more descriptors: forks go on as before
            pass

    def make_children(self) -> None:
        """Make the children object, which forks need. Raises OSError if descriptors have run out."""
        self.children = children = self.new_children(self.channel.fd)
        if self.watches_owner:
            children.watch(self.lifeline)
        self.past.append(children)  # forks close its descriptors by number, and must not finalize its objects

    def warm_up(self) -> None:
        """Rehearse the birth of a process, once."""
        from .warm_up import rehearse  # only now: most templates are forks of one that has done it

        rehearse(Template, self.title)

    def unraisable(self, error: Any) -> None:
        """Note an error that a hook of os.register_at_fork raises, which fails the new process.

        Serves as sys.unraisablehook, because Python only passes such errors there. At any other time, call the user's
        hook.
        """
        if self.forking:
            self.hook_errors = (*self.hook_errors, error)
        else:
            self.user_hook(error)

    def tell_hook_errors(self) -> None:
        """Pass errors that hooks raised in the template to the user's unraisablehook.

        Runs in the template, after a fork: they do not only concern the new process.
        """
        errors, self.hook_errors = self.hook_errors, ()
        for error in errors:
            self.user_hook(error)

    def differ(self, body: bytes, fds: Sequence[int]) -> None:
        """Reset the state that a new process must not share with its template, and apply its attributes.

        A failure is kept. Runs in the new process.
        """
        try:
            if self.hook_errors:
                error, self.hook_errors = self.hook_errors[0], ()
                raise failure_of("hook", str(error.object or error.err_msg), error.exc_value, 0)
            for reset in self.resets:
                reset()
            if body:
                give(self, body, fds)
        except Failure as failure:
            self.failure = failure
        except Exception as error:
            self.failure = failure_of("hook", "reset", error)

    def contain(self) -> None:
        """Become a container, which notices the ends of its descendants by SIGCHLD. Runs in the new process.

        Raises OSError.
        """
        from ..birth.container import become_container
        from .children_by_signal import SignalChildren

        means = become_container()
        if means:
            self.note = f"contains what its process starts by {means}"
        self.container, usual = self.pid, self.new_children

        def new_children(*own: int) -> Children:
            if self.container == self.pid:
                return SignalChildren(*own)
            _signal.set_wakeup_fd(-1)  # it was the container's
            _signal.signal(_signal.SIGCHLD, _signal.SIG_DFL)
            return usual(*own)

        self.new_children = new_children

    call = user_code.call

    def keep(self, attributes: dict[str, Any]) -> None:
        """Note the attributes that are applied later: a title, streams that become the channel. Forks inherit them."""
        self.attributes = {**self.attributes, **attributes}
        self.shows_function = "title" not in self.attributes
        self.stdio = tuple(fd for fd, name in enumerate(STDIO) if self.attributes.get(name) == CHANNEL)

    # --- Moving to another owner ---

    def _adopt(self, frame: Frame) -> None:
        """Accept a new owner, which holds the handle now: send it the descriptors that its predecessor left, follow it.

        From now on, the end of the new owner counts.
        """
        if len(frame.fds) != 1:
            shutdown.reject(self, ProtocolError("an adoption without its lifeline"))
        (lifeline,) = frame.fds
        if lifeline < 0:
            self.failure = self.failure or Failure("descriptors", "from_socket", DescriptorsLostError())
        else:
            self._follow_another(lifeline, frame.value)
        self.send(Frame(ADOPTED, self.pid, b"", self.kept))
        close_all(self.kept)
        self.kept = ()

    def _follow_another(self, lifeline: int, flags: int) -> None:
        watcher = self.children if self.watches_owner else None
        if watcher is not None:
            watcher.forget(self.lifeline)
        os.dup2(lifeline, self.lifeline, False)
        os.close(lifeline)
        if watcher is not None:
            watcher.watch(self.lifeline)
        self.flags = flags & FOLLOWED | self.flags & DETACHED
        if self.flags == FOLLOWED:
            follow(self.lifeline, self.pid)
        inherit(None)  # the new owner has another __main__
        self.relay = True  # processes forked before follow the former owner


def children_class(new_table: Callable[[], ChildTable | None] = lambda: None) -> Callable[..., Children]:
    """Return the function that makes the object by which this template notices the ends of its processes.

    It is by pidfd, with a table of the compiled part if there is one, or by SIGCHLD. A template that is pid 1 uses
    SIGCHLD.
    """
    if has_pidfds() and os.getpid() != 1:
        from .children_by_pidfd import PidfdChildren

        return lambda *own: PidfdChildren(*own, table=new_table())
    from .children_by_signal import SignalChildren

    return SignalChildren
