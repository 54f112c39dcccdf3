"""``anyfork run`` on a terminal: what a person sees and types is the same as with a cold program."""

from __future__ import annotations

import os
import shutil
import signal
import sys
from typing import TYPE_CHECKING

import pytest
from keepers import command_line
from screen import Screen

if TYPE_CHECKING:
    from collections.abc import Iterator

    from keepers import CommandLine


@pytest.fixture(scope="module")
def shared() -> Iterator[CommandLine]:
    """Yield a command line with a keeper whose template has loaded what no program loads by itself."""
    with command_line("--preload", "fractions") as line:
        line.env["TERM"] = "dumb"  # a prompt without colours, whichever version it is
        line.warm_up()
        yield line


SHOW = """
import os, sys, termios
print([stream.isatty() for stream in (sys.stdin, sys.stdout, sys.stderr)], os.get_terminal_size())
print(open("/dev/tty").isatty(), os.tcgetpgrp(0) == os.getpgrp(), termios.tcgetattr(0), sys.stdout.line_buffering)
"""
LOOP = "\nimport time\nprint('ready')\nwhile True: time.sleep(0.01)"
FLOOD = "import os\nwhile True: os.write(1, b'ready')"
INDENTED = LOOP.replace("\n", "\n    ")
CATCH = "import signal\nsignal.signal(signal.SIGWINCH, lambda *_: os.write(1, str(os.get_terminal_size()).encode()))"
TYPED = {
    "state": (SHOW, []),
    "input": ("print(input('name? ') + '!')", [("name? ", "Ada\n")]),
    "end of input": ("input('name? ')", [("name? ", "\x04")]),
    "password": ("import getpass; print(getpass.getpass() + '!')", [("assword: ", "secret\n")]),
    "interrupt": (f"try:{INDENTED}\nexcept KeyboardInterrupt: print('interrupted')", [("ready", "\x03")]),
    "quit": (LOOP, [("ready", "\x1c")]),
    "debugger": ("import pdb\npdb.set_trace()\nprint(5)", [("(Pdb) ", "p 1 + 1\n"), ("2\r\n(Pdb) ", "c\n")]),
    "prompt": ("import code\ncode.interact()", [(">>> ", "1 + 4\n"), ("5\r\n>>> ", "\x04")]),
    "pager": ("import subprocess; subprocess.run(['less', '-X', '/etc/passwd']); print('end')", [(":", "q")]),
    "child": ("import os; print('first'); os.system('read x < /dev/tty; echo $x')", [("first", "typed\n")]),
    "much output": ("print('x' * 50000 + 'y')", []),
    "raw": ("import tty, sys\ntty.setraw(0)\nprint('raw')\nprint(repr(sys.stdin.read(2)))", [("raw", "\x03\x1a")]),
    "no echo left": ("import os; os.system('stty -echo'); print(input('name? '))", [("name? ", "hidden\n")]),
}


QUICK = ("state", "password", "interrupt")

if shutil.which("less") is None:
    del TYPED["pager"]


def transcript(command, env, steps) -> tuple[int, list[bytes]]:
    shown = []
    with Screen(command, env=env) as screen:
        for awaited, typed in steps:
            screen.expect(awaited)
            screen.type(typed)
        code = screen.end()
        shown.append(screen.shown)
        if "stty" not in command[-1] and "setraw" not in command[-1]:
            assert screen.attributes() == screen.attributes_before
    return code, shown


@pytest.mark.parametrize(
    "name", [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in TYPED]
)
def test_a_terminal_shows_the_same_as_cold(shared, name):
    code, steps = TYPED[name]
    cold = transcript([sys.executable, "-c", code], shared.env, steps)
    assert shared.until_warm(lambda: transcript(shared.command("-c", code), shared.env, steps)) == cold


@pytest.mark.slow
def test_the_program_learns_of_a_new_size(shared):
    with Screen(shared.command("-c", f"import os\n{CATCH}\n{LOOP}"), env=shared.env) as screen:
        screen.expect("ready")
        screen.resize(50, 100)
        screen.expect("columns=100, lines=50")
        screen.type("\x03")
        assert screen.end() == -signal.SIGINT


def test_a_job_is_stopped_and_continued_as_cold(shared):
    """Type Ctrl-Z, a command and fg in a shell with job control."""
    with Screen(["bash", "--norc", "--noediting", "-i"], env={**shared.env, "PS1": "shell> "}) as screen:
        screen.expect("shell> ")
        line = " ".join(f"'{word}'" for word in shared.command("-c", "print(input(chr(63)) + chr(33))"))
        screen.type(f"{line}\n")
        screen.expect("?")
        screen.type("\x1a")
        screen.expect("Stopped")
        screen.expect("shell> ")
        screen.type("echo $((6 * 7))\n")
        screen.expect("42\r\n")
        screen.type("fg\n")
        screen.expect("anyfork")
        screen.type("typed\n")
        screen.expect("typed!\r\n")
        screen.expect("shell> ")
        screen.type("exit 7\n")
        assert screen.end() == 7


@pytest.mark.slow
def test_a_program_beside_others_has_its_streams_as_they_are_and_a_terminal(shared):
    """Start it as in ``program | less``: it asks for the password on /dev/tty and writes its output into the pipe."""
    code = "import getpass, sys; print(sys.stdin.isatty(), sys.stdout.isatty(), getpass.getpass('word? '))"

    def run() -> None:
        read, write = os.pipe()
        with Screen(shared.command("-c", code), env=shared.env, stdout=write) as screen, open(read) as output:
            os.close(write)
            screen.expect("word? ")
            screen.type("secret\n")
            assert output.read() == "True False secret\n"
            assert screen.end() == 0

    shared.until_warm(run)


@pytest.mark.slow
def test_a_job_in_the_background_starts_cold(shared):
    with Screen(["bash", "--norc", "--noediting", "-i"], env={**shared.env, "PS1": "shell> "}) as screen:
        screen.expect("shell> ")
        line = " ".join(f"'{word}'" for word in shared.command("--verbose", "-c", "print(chr(63))"))
        screen.type(f"{line} & wait\n")
        screen.expect("in the background")
        screen.expect("?\r\n")
        screen.type("exit\n")
        screen.end()


def said_after_hangup(shared, code, *options):
    """Run code, hang up its terminal once it is ready, and return what it writes into the pipe that code names."""
    read, write = os.pipe()
    with open(read, "rb") as said:
        screen = Screen(shared.command(*options, "-c", code.format(write)), env=shared.env, extra=[write])
        os.close(write)
        screen.expect("ready")
        os.close(screen.master)
        found = said.read()
        screen.process.wait()
    return found


@pytest.mark.parametrize("options", [pytest.param((), marks=pytest.mark.slow), ("--cold",)])
def test_a_terminal_that_hangs_up_ends_the_program(shared, options):
    code = f"import os, signal\nsignal.signal(signal.SIGHUP, lambda *_: (os.write({{}}, b'hup'), os._exit(1)))\n{LOOP}"
    assert said_after_hangup(shared, code, *options) == b"hup"


def test_a_program_ends_though_a_process_that_it_leaves_writes_for_ever(shared):
    code = f"import os, signal\nsignal.signal(signal.SIGHUP, signal.SIG_IGN)\nif not os.fork():\n    exec({FLOOD!r})"
    with Screen(shared.command("-c", code), env=shared.env) as screen:
        screen.expect("ready")
        assert screen.end() == 0


def test_a_signal_reaches_a_program_whose_terminal_takes_nothing(shared):
    read, write = os.pipe()
    with open(read, "rb") as alive, Screen(shared.command("-c", FLOOD), env=shared.env, extra=[write]) as screen:
        os.close(write)
        screen.expect("ready")
        screen.process.terminate()
        assert alive.read() == b""
        assert screen.end() == -signal.SIGTERM


def test_a_program_whose_terminal_is_gone_never_runs_twice(shared):
    """Run one that goes on after the hangup, and writes until that fails."""
    code = f"import os, signal\nsignal.signal(signal.SIGHUP, signal.SIG_IGN)\nos.write({{}}, b'.')\n{FLOOD}"
    assert said_after_hangup(shared, code) == b"."


COUNT = """
import signal, time
hits = []
signal.signal(signal.SIGINT, lambda *_: hits.append(1))
print("ready")
while not hits: time.sleep(0.01)
input("hit")
print(len(hits), "in all")
"""


def test_a_key_interrupts_a_cold_run_once(shared):
    with Screen(shared.command("--cold", "-c", COUNT), env=shared.env) as screen:
        screen.expect("ready")
        screen.type("\x03")
        screen.expect("hit")
        screen.type("\n")
        screen.expect("1 in all")
        assert screen.end() == 0
