"""The default template: one for the program, started at the first need, replaced when it is gone."""

from __future__ import annotations

import os
import signal
import textwrap

import child_side
import pytest
from conftest import eventually
from owner_side import output_of, run_python
from procfs import runs

HERE = os.path.dirname(child_side.__file__)


def in_another_program(body, *arguments, **options):
    """Return what a program prints that has ``children()``, the children of its own, beside what the tests have."""
    head = """
        import os, signal, sys, threading
        sys.path.insert(0, sys.argv[1])
        import anyfork, child_side
        from asking import ask, ended

        def children():
            with open(f"/proc/self/task/{os.getpid()}/children") as file:
                return [int(pid) for pid in file.read().split()]
    """
    return output_of("-c", textwrap.dedent(head) + textwrap.dedent(body), HERE, *arguments, **options)


def test_importing_starts_no_process():
    assert in_another_program("print(children())") == "[]\n"


def test_the_first_template_starts_it_and_all_others_are_forked_from_it():
    said = in_another_program("""
        made = [anyfork.Template().ready() for _ in range(3)]
        (default,) = children()
        print([ask(template, "os.getppid()") == default for template in made])
    """)
    assert said == "[True, True, True]\n"


def test_a_fresh_interpreter_is_forked_from_it_as_well():
    said = in_another_program("""
        made = anyfork.Template.new_exec().ready()
        (default,) = children()
        print(ask(made, "os.getppid()") == default)
    """)
    assert said == "True\n"


@pytest.mark.untraced
def test_threads_that_need_it_at_once_start_one():
    said = in_another_program("""
        barrier = threading.Barrier(16)
        def make():
            barrier.wait()
            made.append(anyfork.Template().ready())
        made = []
        threads = [threading.Thread(target=make) for _ in range(16)]
        for thread in threads: thread.start()
        for thread in threads: thread.join()
        print(len(made), len(children()))
    """)
    assert said == "16 1\n"


def test_one_that_was_killed_is_replaced_at_the_next_need():
    said = in_another_program("""
        anyfork.Template().ready().close()
        (first,) = children()
        os.kill(first, signal.SIGKILL)
        os.waitid(os.P_PID, first, os.WEXITED | os.WNOWAIT)
        print(ask(anyfork.Template(), "v", "works"), children() != [first])
    """)
    assert said == "['works'] True\n"


def test_what_was_forked_from_one_that_was_killed_works_on():
    said = in_another_program("""
        template = anyfork.Template().ready()
        (first,) = children()
        os.kill(first, signal.SIGKILL)
        os.waitid(os.P_PID, first, os.WEXITED | os.WNOWAIT)
        print(ask(template.fork(), "v", "works"), ended(template.run(child_side.leave, 3)).known)
    """)
    assert said == "['works'] True\n"  # a clone runs the function, and its template lives


def test_one_that_was_killed_leaves_no_zombie():
    said = in_another_program("""
        anyfork.Template().ready().close()
        (first,) = children()
        os.kill(first, signal.SIGKILL)
        os.waitid(os.P_PID, first, os.WEXITED | os.WNOWAIT)
        anyfork.Template().ready().close()
        anyfork.Template().ready().close()
        print(len(children()))
    """)
    assert said == "1\n"


def test_a_program_that_waits_for_all_its_children_disturbs_nothing():
    said = in_another_program("""
        anyfork.Template().ready().close()
        (first,) = children()
        os.kill(first, signal.SIGKILL)
        print(os.wait()[0] == first)
        print(ask(anyfork.Template(), "v", "works"))
    """)
    assert said == "True\n['works']\n"


def test_a_program_that_ignores_sigchld_has_statuses_all_the_same():
    said = in_another_program("""
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)
        print(ended(anyfork.Template().run(child_side.leave, 5)).code)
        print(ended(anyfork.Template.new_exec().run(child_side.leave, 6)).code)
    """)
    assert said == "5\n6\n"


def test_it_has_the_directory_and_the_environment_of_its_start(tmp_path):
    said = in_another_program(
        """
        anyfork.Template().ready().close()
        os.chdir("/")
        os.environ["LATER"] = "1"
        print(ask(anyfork.Template(), "(os.getcwd(), os.environ.get('LATER'))"))
        """,
        cwd=tmp_path,
    )
    assert said == f"('{tmp_path}', None)\n"


def test_a_program_that_becomes_another_user_gets_another_one():
    said = (
        in_another_program("""
        anyfork.Template().ready().close()
        (first,) = children()
        os.setegid(65534)
        template = anyfork.Template().ready()
        print(ask(template, "os.getegid()"), len(set(children()) - {first}))
    """)
        if os.getuid() == 0
        else "65534 1\n"
    )
    assert said == "65534 1\n"


def test_it_ends_with_the_program():
    pid = int(in_another_program("anyfork.Template().ready().close(); print(*children())"))
    eventually(lambda: not runs(pid))


def test_it_ends_with_a_program_that_is_killed():
    program = f"""
import os, signal, sys
sys.path.insert(0, {HERE!r})
import anyfork
template = anyfork.Template().ready()
with open(f"/proc/self/task/{{os.getpid()}}/children") as file:
    print(file.read(), template.pid, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""
    done = run_python("-c", program)
    assert done.returncode == -signal.SIGKILL
    for pid in map(int, done.stdout.split()):
        eventually(lambda pid=pid: not runs(pid))


@pytest.mark.untraced
def test_a_program_that_replaces_itself_by_another_takes_its_templates_along():
    program = f"""
import os, sys
sys.path.insert(0, {HERE!r})
import anyfork
template = anyfork.Template().ready()
os.execv(sys.executable, [sys.executable, "-c", "print({{}})".format(template.pid)])
"""
    pid = int(output_of("-c", program))
    eventually(lambda: not runs(pid))


def test_sigterm_ends_the_default_template_and_it_is_replaced():
    said = in_another_program("""
        import select
        with anyfork.Template() as template:
            default = ask(template, "os.getppid()")
        end = os.pidfd_open(default)
        os.kill(default, signal.SIGTERM)  # which ends all that was forked from it: not in the program of the tests
        select.select([end], [], [])
        with anyfork.Template() as template:
            print(ask(template, "os.getppid()") != default)
    """)
    assert said == "True\n"


def test_one_whose_first_steps_were_interrupted_is_not_kept():
    said = in_another_program("""
        from anyfork._processes.default_template import default_template
        seen = []

        def step(link):
            seen.append(link)
            if len(seen) == 2:
                raise KeyboardInterrupt

        default_template.begin_with(step)
        default_template.discard(seen[0])
        try:
            anyfork.Template()
        except KeyboardInterrupt:
            made = anyfork.Template().ready()
            print(len(seen), ask(made, "os.getppid()") == seen[2].session.pid)
    """)
    assert said == "3 True\n"
