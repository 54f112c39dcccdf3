"""The start of relays: processes of ours that act as remote templates (see _anyfork_child.remote.local_relay)."""

from __future__ import annotations

import os

from _anyfork_child.values.encode import pickle_into
from _anyfork_child.values.functions_by_value import Receiver
from _anyfork_child.wire.frames import START

from .._system.import_path import is_importable
from .arguments import encode_call
from .attributes import EncodedAttributes, check_attributes
from .launch import open_directory, open_stderr
from .link import Link
from .start import fork_default, two_pairs

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from _anyfork_child.wire.descriptors import Owned

FUNCTION = "_anyfork_child.remote.local_relay:relay"
CALL = "RemoteTemplate"


def fork_relay(command: Sequence[str], host: str, connect_timeout: float, keep_alive: float) -> Link:
    """Start a relay, which runs a command that leads to another machine; return the link to the template there.

    The link's socket is the relay's. Nothing is awaited. Raises LaunchError.
    """
    relay = _fork()
    control, far_control, status, far_status = two_pairs()
    link = Link(control, status, relay)
    link.session.host = host or command[0]
    link.receiver = Receiver(is_importable, remote=True)
    args = (far_control, far_status, command, os.getpid(), host, connect_timeout, keep_alive)
    try:
        relay.post(START, encode_call(CALL, FUNCTION, args), CALL)
    finally:
        far_control.close()
        far_status.close()
        relay.leave_alone()
    return link


def _fork() -> Link:
    """Fork the default template, with the environment, directory and standard error that a command started by this
    program would inherit.
    """
    encoded = EncodedAttributes()
    opened: dict[str, Owned] = {}
    try:
        for name, open_it in (("cwd", open_directory), ("stderr", open_stderr)):
            try:
                opened[name] = open_it()
            except OSError:  # the directory was removed: the template's is used
                pass
        numbers = {name: owner.fd for name, owner in opened.items()}
        pickle_into(encoded, check_attributes(CALL, encoded, {"env": os.environb, **numbers}))
        return fork_default({}, encoded)
    finally:
        for owner in opened.values():
            owner.close()
