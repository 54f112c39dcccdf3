"""AnyEvent::Fork::Early and ::Template: what their tests assert, and what the manual says of them, asserted of ours.

Where ours differs on purpose the name of the test says what ours does.
"""

from __future__ import annotations

import textwrap

from owner_side import output_of

EARLY = """
import anyfork.early
import os, select, signal, sys
import anyfork
from anyfork._processes.default_template import default_template

early = default_template._link.session.pid
"""
TEMPLATE = """
import os, select, signal, sys
import anyfork

def above(channel):
    with channel: channel.sendall(b"above")

def parent(channel):
    with channel: channel.sendall(str(os.getppid()).encode())

def answer(process):
    with process: return process.channel.makefile().read()

template = anyfork.fork_here()
"""


def said_by(head, body):
    """Return what a program prints, which is a file of its own."""
    return output_of("-c", head + textwrap.dedent(body))


# --- t/01_early, t/02_template ----------------------------------------------------------------------------------


def test_01_early_code_in_a_template_writes_to_the_inherited_standard_output_and_its_end_is_seen():
    assert (
        said_by(
            EARLY,
            """
        print("ok 1", flush=True)
        template = anyfork.Template.new_exec().execute("import os; os.write(1, b'ok 2\\\\n'); raise SystemExit")
        try: template.ready()
        except anyfork.TemplateDiedError as error: print("ok 3", error.status.code)
        """,
        )
        == "ok 1\nok 2\nok 3 0\n"
    )


def test_02_template_what_was_printed_is_flushed_at_its_exit_and_its_end_is_seen():
    assert (
        said_by(
            TEMPLATE,
            """
        print("ok 1", flush=True)
        clone = template.fork().execute("print('ok 2'); raise SystemExit")
        try: clone.ready()
        except anyfork.TemplateDiedError as error: print("ok 3", error.status.code)
        """,
        )
        == "ok 1\nok 2\nok 3 0\n"
    )


# --- 1.12 -------------------------------------------------------------------------------------------------------


def test_early_is_the_parent_of_new_and_of_new_exec_and_no_interpreter_is_needed():
    assert (
        said_by(
            EARLY,
            """
        sys.executable = sys._base_executable = ""
        for make in (anyfork.Template, anyfork.Template.new_exec):
            print(anyfork.call(os.getppid, template=make()) != os.getpid(), make().fork().pid)
        with open(f"/proc/self/task/{os.getpid()}/children") as file: print(file.read().split() == [str(early)])
        """,
        )
        == "True None\nTrue None\nTrue\n"
    )


def test_the_pid_of_a_template_from_the_program_is_known_at_once():
    assert said_by(TEMPLATE, "pid = template.pid; print(pid > 0, template.ready().pid == pid)") == "True True\n"


def test_functions_defined_above_are_there_and_what_is_set_later_is_not():
    assert (
        said_by(
            TEMPLATE,
            """
        later = 1
        print(answer(template.fork().run("above")))
        try: template.fork().run("below")
        except anyfork.FunctionNotFoundError: print("not there")
        def below(channel): pass
        """,
        )
        == "above\nnot there\n"
    )


def test_template_does_not_change_where_new_comes_from():
    assert (
        said_by(
            TEMPLATE,
            """
        mine = int(answer(template.fork().run(parent)))
        others = int(answer(anyfork.Template().run(parent)))
        print(mine == template.pid, others == template.pid)
        """,
        )
        == "True False\n"
    )


def test_a_refused_fork_is_an_exception_in_the_program():
    assert (
        said_by(
            "import os, resource, anyfork\nfork_here = anyfork.fork_here\n",
            """
        os.setgid(65534); os.setuid(65534)
        resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))
        try: fork_here()
        except anyfork.ForkError as error: print("unable to fork")
        """,
        )
        == "unable to fork\n"
    )


def test_the_exit_of_a_copy_runs_no_destructor_of_an_object_of_the_program():
    assert (
        said_by(
            "class Display:\n    def __del__(self): print('closed')\ndisplay = Display()\n" + TEMPLATE,
            """
        print(answer(template.run(above)))
        del display
        """,
        )
        == "above\nclosed\n"
    )


# --- 1.13 -------------------------------------------------------------------------------------------------------


def test_in_a_manual_fork_of_the_program_the_handle_is_refused_and_new_starts_a_template_of_its_own():
    assert (
        said_by(
            EARLY,
            """
        here = anyfork.Template().ready()
        pid = os.fork()
        if pid == 0:
            try: here.fork()
            except anyfork.HandleError: print("refused", flush=True)
            with anyfork.Template() as own: print(own.ready().pid > 0, default_template._link.session.pid != early, flush=True)
            default_template._let_go()
            os._exit(0)
        os.waitpid(pid, 0)
        print(here.fork().ready().pid > 0)
        """,
        )
        == "refused\nTrue True\nTrue\n"
    )


def test_a_template_from_the_program_can_be_given_to_another_process():
    assert (
        said_by(
            TEMPLATE,
            """
        def work_on(channel, sock):
            with channel, anyfork.Template.from_socket(sock) as given:
                channel.sendall(answer(given.run("above")).encode())
        clone = template.fork()
        with clone.detach() as sock: process = anyfork.Template().run(work_on, sock)
        print(answer(process))
        """,
        )
        == "above\n"
    )


# --- 1.14 -------------------------------------------------------------------------------------------------------

LOOK = """
def inherited(channel, fd):
    try: text = os.readlink(f"/proc/self/fd/{fd}")
    except OSError: text = "closed"
    with channel: channel.sendall(text.encode())
"""


def test_descriptors_of_the_program_reach_no_fresh_interpreter_and_a_copy_unless_they_are_closed():
    assert (
        said_by(
            "import os, sys\n"
            + LOOK
            + "file = open(sys.executable)\nos.set_inheritable(file.fileno(), True)\n"
            + TEMPLATE,
            """
        without = anyfork.fork_here(close_fds=[file])
        fd = file.fileno()
        path = os.path.realpath(sys.executable)
        found = [answer(made.run(inherited, fd)) for made in (anyfork.Template.new_exec(), template, without)]
        print([text == path for text in found])
        """,
        )
        == "[False, True, False]\n"
    )


def test_a_program_that_was_replaced_on_disk_meanwhile_goes_on_with_what_it_was(tmp_path):
    module = tmp_path / "changing.py"
    module.write_text("version = 1\n")
    assert (
        said_by(
            f"import sys; sys.path.insert(0, {str(tmp_path)!r}); import changing\n" + TEMPLATE,
            f"""
        with open({str(module)!r}, "w") as file: file.write("version = 22\\n")
        look = lambda: __import__("changing").version
        print(anyfork.call(look, template=template), anyfork.call(look))
        """,
        )
        == "1 22\n"
    )
