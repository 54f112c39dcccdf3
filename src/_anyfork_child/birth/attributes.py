"""The attributes of a new process, applied in one fixed order; a failure names the attribute.

Runs in the new process, before any user code.
"""

from __future__ import annotations

import os
import sys

from ..values.decode import Payload
from ..wire.channel import close_all
from ..wire.failure import Failure, failure_of
from ..wire.frames import AS_STDOUT, CHANNEL, FORK, IN_FILE, NO_LIMIT, PREPARE, STDIO, Frame
from ..wire.own_imports import import_own
from ..wire.platform import bind_now
from ..wire.signals import program_signals

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any, Protocol

    from ..wire.channel import Channel
    from .title import Title

    class Template(Protocol):
        """The process that gets the attributes: see template.template.Template."""

        attributes: dict[str, Any]
        channel: Channel
        flags: int
        ignored: Sequence[int]
        lifeline: int
        reports: int
        title: Title

        def keep(self, attributes: dict[str, Any]) -> None:
            """Note the attributes that are applied later."""

        def contain(self) -> None:
            """Become a container."""

        def call(self, payload: Payload) -> None:
            """Call a function of the user's."""


def _rlimits(limits: dict[int, tuple[int, int]]) -> None:
    resource = import_own("resource")
    for limit, values in limits.items():
        soft, hard = (resource.RLIM_INFINITY if value == NO_LIMIT else value for value in values)
        resource.setrlimit(limit, (soft, hard))


def _priority(value: int) -> None:
    if os.getpriority(os.PRIO_PROCESS, 0) != value:
        os.setpriority(os.PRIO_PROCESS, 0, value)


def _user(user: int | str) -> None:
    os.setuid(user if isinstance(user, int) else _entry(user).pw_uid)


def _entry(user: int | str) -> Any:
    """Return the entry of a user in the system's user database. Raises KeyError."""
    pwd = import_own("pwd")
    return pwd.getpwuid(user) if isinstance(user, int) else pwd.getpwnam(user)


def _with_groups(attributes: dict[str, Any]) -> dict[str, Any]:
    """Add the groups of the user to attributes with a user but no group; the process would keep its template's groups.

    Raises Failure if the system does not know the user.
    """
    user = attributes.get("user")
    if user is None or "group" in attributes or os.geteuid():  # only root can; setuid() will fail for others
        return attributes
    try:
        entry = _entry(user)
        groups = os.getgrouplist(entry.pw_name, entry.pw_gid)
    except KeyError as error:
        text = f"the system has no user {user!r}, so its groups are unknown: give group= and extra_groups="
        raise Failure("attribute", "user", text) from error
    return {"extra_groups": groups, **attributes, "group": entry.pw_gid}


def _group_id(group: int | str) -> int:
    if isinstance(group, str):
        return int(import_own("grp").getgrnam(group).gr_gid)
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
        if source == AS_STDOUT:
            source = 1
        stream = getattr(sys, STDIO[fd])
        if stream is not None and fd:
            stream.flush()
        opened = os.open(source, os.O_RDWR | os.O_CLOEXEC) if isinstance(source, str) else -1
        os.dup2(source if isinstance(source, int) else opened, fd)
        if opened == fd:  # the number was closed before
            os.set_inheritable(fd, True)
        elif opened >= 0:
            os.close(opened)
        if stream is None:
            encoding = "utf-8" if sys.flags.utf8_mode else "locale"
            setattr(sys, STDIO[fd], open(fd, "w" if fd else "r", encoding=encoding, closefd=False))

    return redirect


# In the order in which they are applied; the documentation has the same order. Attributes that need privileges come
# before user, and user before env, which cannot fail. An exec'ed template also gets attributes of its owner without
# being asked: affinity, limits and priority.
APPLY: dict[str, Callable[[Any], object]] = {
    "new_session": lambda wanted: os.setsid() if wanted else None,
    "affinity": lambda cpus: os.sched_setaffinity(0, cpus),
    "priority": _priority,
    "nice": os.nice,
    "limits": _rlimits,
    "rlimits": _rlimits,
    "umask": os.umask,
    "cwd": os.chdir,
    "stdin": _stdio(0),
    "stdout": _stdio(1),
    "stderr": _stdio(2),
    "title": lambda title: title,  # set by apply_attributes, which has the Title object
    "extra_groups": _extra_groups,
    "group": _group,
    "user": _user,
    "env": _environment,
}
BY_DESCRIPTOR = frozenset((*STDIO, "cwd"))


def apply_attributes(attributes: dict[str, Any], fds: Sequence[int], title: Title) -> None:
    """Apply the attributes of fork in their fixed order; ``fds`` are the descriptors that some of them index.

    Raises Failure, which names the attribute that was refused.
    """
    attributes = _with_groups(attributes)
    for name, action in APPLY.items():
        if name not in attributes or (name in STDIO and attributes[name] == CHANNEL):
            continue
        value = attributes[name]
        try:
            action(fds[value] if name in BY_DESCRIPTOR and isinstance(value, int) else value)
            if name == "title":
                title.set(value)
        except Exception as error:  # whatever the error is, the owner must learn which attribute failed
            raise failure_of("attribute", name, error) from error


def give(template: Template, body: bytes, fds: Sequence[int]) -> None:
    """Apply the attributes of a FORK frame, and close its descriptors. Raises Failure."""
    attributes = Payload(Frame(FORK, 0, body)).load()
    given = fds
    if type(attributes) is int:  # the attributes are in a file, too large for the frame; this is its index
        file, given = fds[attributes], fds[:attributes]
        attributes = Payload(Frame(FORK | IN_FILE, os.fstat(file).st_size, b"", (os.dup(file),))).load()
    if attributes.get("stderr") == AS_STDOUT and template.attributes.get("stdout") == CHANNEL:
        attributes["stderr"] = CHANNEL
    try:
        if attributes.pop("contain", False):
            _contain(template)
        if "before" in attributes:
            _call_before(template, attributes.pop("before"), given)
        template.keep(attributes)
        apply_attributes(attributes, given, template.title)
        if "exec" in attributes:
            _become_interpreter(template, attributes["exec"], given)
    finally:
        close_all(fds)


def _contain(template: Template) -> None:
    try:
        template.contain()
    except (ImportError, OSError, AttributeError) as error:
        raise failure_of("attribute", "contain", error) from error


def _call_before(template: Template, function: tuple[bytes, bytes, int, int], fds: Sequence[int]) -> None:
    """Call the function of the attribute ``before``. Raises Failure."""
    name, values, first, last = function
    payload = Payload(Frame(PREPARE, len(name), name + values, tuple(map(os.dup, fds[first:last]))))
    try:
        template.call(payload)
    except Failure:
        raise
    except SystemExit as stop:
        raise Failure("attribute", "before", f"it wanted to end the process: {stop!r}") from stop
    except BaseException as error:
        raise failure_of("attribute", "before", error, 2) from error


def _become_interpreter(template: Template, command: list[bytes], fds: Sequence[int]) -> None:
    """Replace this process with a fresh interpreter, which goes on as a template on the same sockets.

    Raises Failure.
    """
    stderr = os.dup(2)
    os.dup2(fds[-1], 2)  # a file of the owner's, for the messages of an interpreter that cannot start
    keep = [template.channel.fd, template.lifeline, template.reports, stderr]
    for fd in keep:
        os.set_inheritable(fd, True)
    try:
        program_signals(template.ignored)
        numbers = (str(number).encode() for number in (*keep, template.flags))
        os.execve(command[0], [*command, *numbers, *_later(template)], bind_now(os.environb))
    except OSError as error:
        os.dup2(stderr, 2)
        os.close(stderr)
        raise Failure("interpreter", os.fsdecode(command[0]), error) from error


def _later(template: Template) -> list[bytes]:
    """Return the attributes that a fresh interpreter needs as arguments, because they are applied only later."""
    wanted = {name: value for name, value in template.attributes.items() if name == "title" or value == CHANNEL}
    return [f"{name}={value}".encode("utf-8", "replace") for name, value in wanted.items()]
