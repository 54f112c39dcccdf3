"""The commands, and what ``anyfork`` says without one."""

from __future__ import annotations

import sys

from .. import __version__

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import NoReturn

USAGE = """\
usage: anyfork COMMAND ...

Commands:
  run [OPTION ...] -m MODULE | SCRIPT | -c CODE [ARGUMENT ...]
        Run a program as Python does, from a template that has its modules loaded.
        "anyfork run --help" explains the options.
  status
        Show the templates that "anyfork run" keeps, and the programs that run.
  stop
        Let these templates end. Programs that run go on to their end.
  keep --socket PATH [--preload MODULE] [--watch PATH]
        Start programs for a program in any language, which asks by lines of JSON.
  doctor
        Say what works on this machine, and what keeps programs from starting warm.
  report TIMELINE [-o PAGE]
        Draw the timeline that trace= or ANYFORK_TRACE has written, as a page of HTML.
  top [PID] [--once] [--json]
        Show the pools, templates and processes of a program that has called
        anyfork.observe(), or was started with ANYFORK_STATUS=1.
  audit [--json] -m MODULE | SCRIPT | -c CODE
        Say what the imports of a program cost, which of them a template should load,
        and which are not safe there. The program itself does not run.
  as-forkserver [--import-main] SCRIPT | -m MODULE [ARGUMENT ...]
        Run a program in which multiprocessing's start method "forkserver" starts
        processes from a template, and is the default. With --import-main, each
        process imports the program's file or module, as under multiprocessing's own.
"""
EXAMPLES = """
In a program:
  import anyfork
  anyfork.call(function, argument)       # one result from one new process
  anyfork.Executor(max_workers=4)        # a pool, used as ProcessPoolExecutor is
  template = anyfork.Template().preload("package")
  template.fork().run_module("package")  # python -m package, without its imports

help(anyfork) in Python lists all names.
"""


def _show_status() -> None:
    from .keepers import show

    show()


def _stop() -> None:
    from .keepers import stop

    stop()


def _examine() -> None:
    from .doctor import run

    run()


SIMPLE = {"status": _show_status, "stop": _stop, "doctor": _examine}  # commands without arguments


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command that the arguments name, those of the program by default. Raises SystemExit for wrong ones."""
    command, *rest = (sys.argv[1:] if arguments is None else arguments) or [""]
    if command == "as-forkserver":
        from .as_forkserver import run

        run(rest, fail)
    elif command == "report":
        from .report import run

        run(rest, fail)
    elif command == "audit":
        from .audit import run

        run(rest, fail)
    elif command == "top":
        from .top import run

        run(rest, fail)
    elif command == "keep":
        from .keep import run

        run(rest, fail)
    elif command == "run":
        from _anyfork_client.run import main as run_program

        run_program(rest)
    elif command in SIMPLE:
        if rest:
            fail(f"{command} takes no arguments")
        SIMPLE[command]()
    elif command in ("", "-h", "--help", "help"):
        print(f"{_introduction()}\n\n{USAGE}{EXAMPLES}", end="")
    else:
        fail(f"there is no command {command!r}")


def _introduction() -> str:
    version = ".".join(map(str, sys.version_info[:3]))
    return (
        f"anyfork {__version__} on Python {version} ({sys.executable})\n"
        "Start Python processes from templates, which have loaded what the processes need."
    )


def fail(reason: str) -> NoReturn:
    """Say what is wrong with the arguments, and how to use them. Raises SystemExit."""
    print(f"anyfork: {reason}\n\n{USAGE}", end="", file=sys.stderr)
    raise SystemExit(2)
