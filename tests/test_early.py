"""``import anyfork.early`` as a program's first import: templates without any interpreter."""

from __future__ import annotations

import os
import textwrap

import child_side
import pytest
from owner_side import output_of, run_python

HERE = os.path.dirname(child_side.__file__)
HEAD = """
    import anyfork.early
    import os, select, signal, sys
    sys.path.insert(0, sys.argv[1])
    import anyfork
    from asking import ask, read_all
    from anyfork._processes.default_template import default_template

    def children():
        with open(f"/proc/self/task/{os.getpid()}/children") as file:
            return [int(pid) for pid in file.read().split()]

    def kill(pid):
        end = os.pidfd_open(pid)
        os.kill(pid, signal.SIGKILL)
        select.select([end], [], [])
"""


def early(body, *flags, **options):
    """Return what a program prints that begins with the import."""
    return output_of(*flags, "-c", textwrap.dedent(HEAD) + textwrap.dedent(body), HERE, **options)


def test_all_templates_come_from_the_copy_and_no_interpreter_is_started():
    said = early("""
        (copy,) = children()
        with open(f"/proc/{copy}/maps") as file: there = file.read().splitlines()[0]
        with open("/proc/self/maps") as file: here = file.read().splitlines()[0]
        print(there.split()[0] == here.split()[0])  # an interpreter of its own is loaded elsewhere
        for template in (anyfork.Template(), anyfork.Template.new_exec()):
            print(ask(template, "os.getppid()") == copy)
        print(children() == [copy])
    """)
    assert said == "True\nTrue\nTrue\nTrue\n"


def test_no_interpreter_is_needed():
    said = early("""
        sys.executable = ""
        sys._base_executable = ""
        print(ask(anyfork.Template(), "1"), ask(anyfork.Template.new_exec(), "2"))
    """)
    assert said == "1 2\n"


@pytest.mark.untraced
def test_it_is_as_clean_as_the_program_was_at_the_import():
    said = early("""
        import json, decimal
        os.environ["LATER"] = "1"
        os.chdir("/")
        loaded = ask(anyfork.Template(), "'decimal' in sys.modules, 'LATER' in os.environ, os.getcwd() == '/'")
        print(loaded)
    """)
    assert said == "(False, False, False)\n"


def test_new_exec_sees_what_the_program_has_by_now_and_takes_attributes():
    said = early("""
        os.environ["LATER"] = "1"
        os.chdir("/")
        sys.path.append("/no/such/place")
        print(ask(anyfork.Template.new_exec(), "os.environ['LATER'], os.getcwd(), sys.path[-1]"))
        print(ask(anyfork.Template.new_exec(env={"ONLY": "this"}, umask=0o11), "dict(os.environ), os.umask(0)"))
    """)
    assert said == "('1', '/', '/no/such/place')\n({'ONLY': 'this'}, 9)\n"


def test_an_interpreter_or_options_that_are_asked_for_are_used():
    said = early("""
        print(ask(anyfork.Template.new_exec(flags=["-X", "utf8=0"]), "sys.flags.utf8_mode"))
        print(ask(anyfork.Template.new_exec(python=sys.executable), "len(sys.orig_argv) > 3"))
    """)
    assert said == "0\nTrue\n"


def test_functions_of_main_go_by_value_because_they_came_later():
    said = early("""
        number = 4
        def work(channel): channel.sendall(str(number).encode()); channel.close()
        with anyfork.Template().run(work) as process: print(read_all(process.channel))
        print(anyfork.call(lambda: number + 1))
    """)
    assert said == "b'4'\n5\n"


def test_one_that_was_killed_is_replaced_by_an_interpreter():
    said = early("""
        (copy,) = children()
        kill(copy)
        print(ask(anyfork.Template(), "os.getppid()") != copy, ask(anyfork.Template.new_exec(), "1"))
    """)
    assert said == "True 1\n"


def test_one_that_was_killed_where_no_interpreter_is_found_is_an_error_that_says_so():
    said = early("""
        sys.executable = sys._base_executable = ""
        os.environ.pop("ANYFORK_PYTHON", None)
        import sysconfig
        (copy,) = children()
        kill(copy)
        os.environ["ANYFORK_PYTHON"] = "/no/such/python"
        try: anyfork.Template()
        except anyfork.LaunchError as error: print(error)
    """)
    assert "/no/such/python" in said


def test_importing_it_later_refuses_as_fork_here_does():
    said = run_python(
        "-c",
        "import threading; e = threading.Event(); t = threading.Thread(target=e.wait, name='a thread'); t.start()\n"
        "try: import anyfork.early\n"
        "finally: e.set()",
    )
    assert said.returncode == 1
    assert "UnsafeTemplateError: this program cannot become a template: threads run in it" in said.stderr
    assert "a thread" in said.stderr


def test_it_may_be_imported_after_anyfork():
    assert output_of("-c", "import anyfork, anyfork.early; print(anyfork.call(len, 'ab'))") == "2\n"
    assert (
        output_of("-c", "from anyfork import fork_here; import anyfork.early; print(anyfork.call(len, 'ab'))") == "2\n"
    )


@pytest.mark.parametrize("make", ["anyfork.Template()", "anyfork.Template.new_exec()"])
@pytest.mark.parametrize("head", ["import anyfork.early", "import anyfork"])
def test_importing_it_in_templates_and_processes_does_nothing(head, make):
    said = output_of(
        "-c",
        f"{head}\n"
        "def children(pid='self'):\n"
        "    import os\n"
        "    with open(f'/proc/{pid}/task/{pid if pid != \"self\" else os.getpid()}/children') as file: return file.read()\n"
        "def look():\n"
        "    import anyfork.early\n"
        "    return children()\n"
        f"template = {make}.preload('anyfork.early').ready()\n"
        "print(repr(children(template.pid)), repr(anyfork.call(look, template=template)))",
    )
    assert said == "'' ''\n"


def test_the_program_may_have_no_standard_streams():
    said = run_python(
        "-c",
        "import os\n"
        "out = os.dup(1)\n"
        "for fd in (0, 1, 2): os.close(fd)\n"
        "import anyfork.early, anyfork\n"
        "os.write(out, repr(anyfork.call(os.fstat, 0).st_rdev == os.stat('/dev/null').st_rdev).encode())",
    )
    assert said.stdout == "True"


def test_the_blocking_face_and_the_async_face_share_it():
    said = early("""
        import asyncio
        from anyfork import aio
        async def main():
            async with aio.Template() as template:
                process = await template.run(exit_with, 4)
                print((await process.wait()).code)
                await process.aclose()
        def exit_with(channel, code): sys.exit(code)
        asyncio.run(main())
    """)
    assert said == "4\n"
