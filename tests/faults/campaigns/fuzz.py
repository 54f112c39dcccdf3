"""Decoders get random bytes, chosen by atheris so that they reach as much of the code as they can.

Whatever comes, a decoder either understands it or raises what its caller expects. ``one_input`` is what one round does
with each decoder; the long form lets atheris choose the bytes, the tests take random ones.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from importlib.util import find_spec
from typing import TYPE_CHECKING

from _anyfork_child.wire import call_messages, failure
from _anyfork_child.wire import frames as _wire
from anyfork._processes.session import PREPARING, STARTING, Session

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

ROUNDS = 10_000_000


def frames(data: bytes) -> None:
    """Fuzz the frames of the control socket."""
    decoder = _wire.Decoder()
    with contextlib.suppress(_wire.ProtocolError):
        while data:
            piece, data = data[: decoder.wanted], data[decoder.wanted :]
            decoder.feed(piece)


def session(data: bytes) -> None:
    """Fuzz what a template or a process tells its owner."""
    if len(data) < 2:
        return
    known = Session()
    known.phase = STARTING if data[0] & 1 else PREPARING
    known.pings = data[0] >> 6
    kinds = sorted(_wire.KINDS)
    with contextlib.suppress(_wire.ProtocolError):
        for at in range(1, len(data), 32):
            frame = _wire.Frame(kinds[data[at] % len(kinds)], data[at], data[at + 1 : at + 32], ())
            vars(known).update((known.said_on_status if data[0] & 2 else known.said_on_control)(frame))
    if known.settled and not known.succeeded:
        known.why("is gone", "")


def messages(data: bytes) -> None:
    """Fuzz the messages of calls and their answers."""
    inbox = call_messages.Inbox()
    with contextlib.suppress(_wire.ProtocolError):
        while data:
            size = 1 + data[0]
            piece, data = data[1:size], data[size:]
            inbox.take(piece)


def texts(data: bytes) -> None:
    """Fuzz the texts of a failure."""
    with contextlib.suppress(ValueError):
        failure.unpack_texts(data)
    with contextlib.suppress(ValueError):
        failure.unpack_parts(data)


DECODERS: dict[str, Callable[[bytes], None]] = {
    "frames": frames,
    "session": session,
    "messages": messages,
    "texts": texts,
}


def main(options: argparse.Namespace) -> int:
    """Fuzz each decoder in a program of its own; print the figures."""
    if find_spec("atheris") is None:
        print("Skipped: atheris is not installed (pip install --group fuzz).")
        return 0
    failed = 0
    for name in options.operation or DECODERS:
        began = time.monotonic()
        limit = f"-max_total_time={options.seconds or 60:.0f}"
        command = [sys.executable, "-m", "campaigns.fuzz", name, f"-seed={options.seed or 1}", limit, f"-runs={ROUNDS}"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        rounds = [line for line in done.stderr.splitlines() if "Done" in line]
        print(f"fuzz {name}: {' '.join(rounds) or 'FAILED'} ({time.monotonic() - began:.0f} s)", flush=True)
        if done.returncode:
            failed += 1
            print(f"    FAILED scripts/campaign fuzz --operation {name}:\n{done.stdout[-3000:]}{done.stderr[-3000:]}")
    return int(failed > 0)


def fuzz(arguments: list[str]) -> None:
    """Let atheris choose the bytes for one decoder. Runs in a program of its own."""
    import atheris

    decode = DECODERS[arguments[1]]
    for module in (_wire, call_messages, failure, sys.modules[Session.__module__]):
        for thing in vars(module).values():
            if isinstance(thing, type) and thing.__module__ == module.__name__:
                for name, function in list(vars(thing).items()):
                    if type(function) is type(fuzz):
                        setattr(thing, name, atheris.instrument_func(function))
    atheris.Setup([arguments[0], *arguments[2:]], decode)
    atheris.Fuzz()


if __name__ == "__main__":
    fuzz(sys.argv)
