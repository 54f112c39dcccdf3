"""The owner ends, by kill -9 or otherwise: everything that it has started ends too, but for what was detached."""

import os
import signal
import time

import pytest
from programs import Program

# What an owner may have open when it is killed. Each program defines ``alive``, the pids that must be gone after it.
SCENES = {
    "idle templates, forked and exec'ed": """
        kept = [Template().ready(), Template.new_exec().ready(), Template().fork().ready()]
        alive = [template.pid for template in kept]
    """,
    "idle nested templates": """
        kept = [Template()]
        for _ in range(6):
            kept.append(kept[-1].fork().ready())
        alive = [template.pid for template in kept[1:]]
    """,
    "templates in the middle of a step": """
        read, write = os.pipe()
        kept = [Template().ready(), Template.new_exec().ready(), Template().fork().ready()]
        alive = [template.pid for template in kept]
        for template in kept:
            template.execute(faulty.STUCK, Descriptor(write))
            os.read(read, 1)
    """,
    "a template in the middle of a step that is deaf to signals": """
        read, write = os.pipe()
        kept = Template().ready()
        alive = [kept.pid]
        kept.execute(faulty.DEAF, Descriptor(write))
        os.read(read, 1)
    """,
    "a template that imports a module": """
        read, write = os.pipe()
        kept = Template().ready()
        alive = [kept.pid]
        kept.execute("import sys; sys.path.insert(0, args[0]); import os; os.dup2(args[1].fileno(), 50)",
                     os.path.dirname(faulty.__file__) + "/modules", Descriptor(write)).preload("never_imported")
        os.read(read, 1)
    """,
    "a process that decodes its arguments": """
        read, write = os.pipe()
        template = Template().ready()
        alive = [template.pid]
        kept = template.start(faulty.echo, faulty.Decoding(faulty.hang, Descriptor(write)))
        os.read(read, 1)
    """,
    "running processes": """
        kept = [Template().run(faulty.forever), Template.new_exec().run(faulty.forever)]
        for process in kept:
            process.channel.recv(1)
        alive = [process.pid for process in kept]
    """,
    "running processes that ignore all signals": """
        kept = [Template().run(faulty.stubborn), Template.new_exec().run(faulty.stubborn)]
        for process in kept:
            process.channel.recv(1)
        alive = [process.pid for process in kept]
    """,
    "running programs": """
        kept = [Template().run_program(["sleep", "1000"])]
        alive = [kept[0].pid]
    """,
    "processes of nested templates that ignore all signals": """
        template, kept = Template(), []
        for _ in range(4):
            kept += [template, template.fork().run(faulty.stubborn)]
            kept[-1].channel.recv(1)
            template = template.fork()
        alive = [handle.pid for handle in kept if handle.pid]
    """,
    "stopped templates and processes": """
        kept = [Template().ready(), Template().run(faulty.echo)]
        alive = [handle.pid for handle in kept]
        for pid in alive:
            stop(pid)
    """,
    "processes whose handles were dropped": """
        template = Template()
        process = template.fork().run(faulty.forever)
        process.channel.recv(1)
        alive = [process.pid]
        del process
    """,
    "processes whose handles were closed": """
        process = Template().run(faulty.forever)
        process.channel.recv(1)
        alive = [process.pid]
        process.close()
    """,
    "processes of templates that were closed": """
        template = Template.new_exec().ready()
        kept = template.fork().run(faulty.stubborn)
        kept.channel.recv(1)
        alive = [template.pid, kept.pid]
        template.close()
    """,
    "processes of templates that were dropped in the middle of a step": """
        read, write = os.pipe()
        template = Template().ready()
        process = template.fork().run(faulty.stubborn)
        process.channel.recv(1)
        alive = [template.pid, process.pid]
        template.execute(faulty.STUCK, Descriptor(write))
        del template, process
        os.read(read, 1)
    """,
    "processes that ignore all signals, of a template that gets its turn too late": """
        read, write = os.pipe()  # its end is the owner's
        said, saying = os.pipe()
        template = Template().ready()
        kept = template.fork().run(faulty.stubborn)
        kept.channel.recv(1)
        alive = [template.pid, kept.pid]
        template.execute(faulty.LATE, Descriptor(read), Descriptor(saying))
        os.read(said, 1)
    """,
    "a detached template that runs nothing": """
        kept = Template().fork(detached=True).ready()
        alive = [kept.pid]
    """,
    "a template that came from another handle": """
        template = Template().ready()
        alive = [template.pid]
        kept = Template.from_socket(template.detach()).ready()
    """,
    "fifty processes": """
        template = Template()
        kept = [template.fork().run(faulty.stubborn) for _ in range(50)]
        for process in kept:
            process.channel.recv(1)
        alive = [process.pid for process in kept]
    """,
}
WAIT = """
say(alive)
hear()
"""
ENDS = {
    "SIGKILL": "os.kill(os.getpid(), signal.SIGKILL)",
    "SIGTERM": "os.kill(os.getpid(), signal.SIGTERM)",
    "os._exit": "os._exit(0)",
    "an exception": "raise RuntimeError('the program ends')",
    "os.execv": "os.execv('/bin/sleep', ['sleep', '1000'])",
}


def wait_until_gone(program, what):
    """Wait until nothing that comes from the program lives."""
    start = time.monotonic()
    program.wait_for(())
    print(f"{what}: all gone after {(time.monotonic() - start) * 1000:.0f} ms")


@pytest.mark.parametrize("scene", SCENES)
def test_what_an_owner_has_started_ends_when_the_owner_is_killed(scene):
    with Program(SCENES[scene] + WAIT.replace("\n", "\n        ")) as program:
        alive = program.read()
        assert alive
        assert set(alive) <= set(program.everyone())
        program.kill()
        wait_until_gone(program, scene)


@pytest.mark.parametrize("end", ENDS)
def test_what_an_owner_has_started_ends_however_the_owner_ends(end):
    # An owner that executes another program keeps its pid, and is gone all the same.
    source = f"""
        template = Template().ready()
        kept = template.fork().run(faulty.stubborn)
        kept.channel.recv(1)
        say([template.pid, kept.pid])
        hear()
        {ENDS[end]}
    """
    with Program(source) as program:
        assert set(program.read()) <= set(program.everyone())
        program.say()
        wait_until_gone(program, f"after {end}")


@pytest.mark.parametrize("number", range(0, 40, 4))
def test_nothing_is_left_of_an_owner_that_is_killed_while_it_starts_processes(number):
    # In the middle of forks and starts: those that nobody has a handle of yet.
    source = f"""
        template = Template().ready()
        nested = template.fork()
        kept = []
        for count in range(1000):
            kept.append((nested if count % 2 else template).fork().start(faulty.stubborn))
            kept.append(template.fork())
            if count == {number}:
                os.kill(os.getpid(), signal.SIGKILL)
    """
    with Program(source) as program:
        assert program.wait() == -signal.SIGKILL
        wait_until_gone(program, f"killed after {number} starts")


def test_a_detached_process_survives_its_owner():
    """Detach by policy."""
    source = """
        kept = Template().fork(detached=True).run(faulty.forever)
        kept.channel.recv(1)
        other = Template().run(faulty.forever)
        other.channel.recv(1)
        say([kept.pid, other.pid])
        hear()
    """
    with Program(source) as program:
        detached, other = program.read()
        assert {detached, other} <= set(program.everyone())
        program.kill()
        program.wait_for([detached])


def test_a_detached_process_of_a_nested_template_survives_the_owner_and_all_templates():
    # Each template above it ends, by the handle of none.
    source = """
        template = Template()
        for _ in range(3):
            template = template.fork()
        kept = template.fork(detached=True).run(faulty.forever)
        kept.channel.recv(1)
        say(kept.pid)
        hear()
    """
    with Program(source) as program:
        detached = program.read()
        assert len(program.everyone()) > 4
        program.kill()
        program.wait_for([detached])


def test_a_detached_process_sees_the_end_of_its_channel_when_the_owner_is_killed():
    # Nothing but the owner holds the other end.
    source = """
        kept = Template().fork(detached=True).run(faulty.end_when_told, 0)
        kept.channel.recv(1)
        say(kept.pid)
        hear()
    """
    with Program(source) as program:
        assert program.read() in program.everyone()
        program.kill()
        wait_until_gone(program, "a detached process that waits on its channel")


@pytest.mark.parametrize("fault", ["SIGKILL", "SIGSTOP", "deaf"])
def test_a_running_process_ends_with_its_owner_although_its_template_cannot_help(fault):
    # The template was killed, or is stopped, or is busy, when the owner is killed.
    source = """
        template = Template.new_exec().ready()
        kept = template.fork().run(faulty.forever)
        kept.channel.recv(1)
        if sys.argv[1] == "deaf":
            read, write = os.pipe()
            template.execute(faulty.DEAF, Descriptor(write))
            os.read(read, 1)
        else:
            os.kill(template.pid, getattr(signal, sys.argv[1]))
        say(kept.pid)
        hear()
    """
    with Program(source, fault) as program:
        assert program.read() in program.everyone()
        program.kill()
        wait_until_gone(program, f"its template: {fault}")


def test_the_owners_death_is_noticed_by_a_template_whose_socket_another_process_holds():
    # End-of-file does not come while a copy of the owner has the socket open; the lifeline does.
    source = """
        template = Template().ready()
        read, write = os.pipe()
        copy = os.fork()
        if copy == 0:
            signal.pause()
        say([template.pid, copy])
        hear()
    """
    with Program(source) as program:
        template, copy = program.read()
        assert template in program.everyone()
        program.kill()
        try:
            program.wait_for([copy])
        finally:
            os.kill(copy, signal.SIGKILL)
