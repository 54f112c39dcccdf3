"""Odd places to run in: as pid 1 of a container, without /proc, without standard streams, fifty generations deep."""

import os
import sys

import faulty
import pytest
from programs import Program, run_program

from anyfork import DEVNULL, Template

NAMESPACE = ["unshare", "--pid", "--fork", "--mount-proc"]
NO_PROC = ["unshare", "--mount", "sh", "-c", 'mount -t tmpfs none /proc && exec "$0" "$@"']
# A namespace of users would do for others, but kernels of containers refuse that too.
needs_root = pytest.mark.skipif(os.getuid() != 0, reason="only root may make namespaces")
GENERATIONS = 50

JOB = """
with Template() as template:
    template.preload("json")
    with template.fork().fork().run(faulty.send_value, "json.dumps([1])") as process:
        heard = process.channel.recv(100).decode()
    with Template.new_exec().run(faulty.end_with, 3) as other:
        pass
"""


@needs_root
def test_an_owner_that_is_pid_1_works():
    # Of a fresh pid namespace, as in a container.
    say = "say([os.getpid(), heard, process.returncode, other.returncode])"
    with Program(JOB + say, command=NAMESPACE) as program:
        assert program.read() == [1, "[1]", 0, 3]


@needs_root
def test_an_owner_that_is_pid_1_is_left_no_zombie():
    # Templates reap what they fork, and end after it.
    source = """
default = [pid for pid in os.listdir("/proc") if pid.isdigit()]

def states():
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                found.append(open(f"/proc/{name}/stat").read().rpartition(")")[2].split()[0])
            except OSError:
                continue
    return sorted(found)

from programs import PAUSE
for _ in range(500):
    if len(states()) == 2:
        break
    PAUSE.wait(0.01)
say(["Z" in states(), len(states())])
"""
    with Program(JOB + source, command=NAMESPACE) as program:
        assert program.read() == [False, 2]


@needs_root
def test_a_template_that_is_pid_1_reaps_everything(tmp_path):
    # Orphans of the whole namespace come to it, when the owner is outside and it is the init inside.
    script = tmp_path / "python"
    script.write_text(f'#!/bin/sh\nexec unshare --pid --fork --mount-proc "{sys.executable}" "$@"\n')
    script.chmod(0o755)
    source = """
with Template.new_exec(python=sys.argv[1]) as template:
    with template.fork().run(faulty.send_value, "os.getppid()") as process:
        parent = process.channel.recv(100).decode()
    with template.fork().run(faulty.leave_orphans, 5) as process:
        pass
    with template.fork().run(faulty.count_zombies) as process:
        zombies = process.channel.recv(100).decode()
    say([parent, zombies, process.returncode])
"""
    assert run_program(source, str(script)) == ["1", "0", 0]


@needs_root
def test_an_owner_without_proc_works():
    # Titles and counts of threads need it, processes do not.
    say = "say([os.listdir('/proc'), heard, process.returncode, other.returncode])"
    with Program(JOB + say, command=NO_PROC) as program:
        assert program.read() == [[], "[1]", 0, 3]


@needs_root
def test_an_owner_without_proc_says_nothing_of_that_on_stderr():
    with Program(JOB + "say(1)", command=NO_PROC) as program:
        program.read()
        assert program.wait() == 0
        assert program.errors() == ""


def test_an_owner_without_standard_streams_works():
    # A daemon has closed them, so its own sockets get their numbers.
    source = """
with Template().run(faulty.send_value, "[os.fstat(fd).st_rdev for fd in (0, 1, 2)]") as process:
    heard = process.channel.recv(100)
with Template.new_exec().run(faulty.end_with, 3) as other:
    pass
null = os.stat("/dev/null").st_rdev
os.write(9, json.dumps([heard.decode() == str([null] * 3), other.returncode]).encode() + b"\\n")
"""
    closing = ["sh", "-c", 'exec "$0" "$@" 9>&1 0<&- 1>&- 2>&-']
    with Program(source, command=closing) as program:
        assert program.read() == [True, 3]


# What a program without a standard stream opens gets the number of that stream.
REUSE = """
def reuse(number):
    os.close(number)
    data = open(sys.argv[1], "w")
    assert data.fileno() == number
    return data
def leave_text(channel, number):
    os.write(number, b"text")
    raise ValueError("x")
"""


@pytest.mark.parametrize("make", ["Template()", "Template.new_exec()", "Template().fork()"])
@pytest.mark.parametrize("number", [1, 2])
def test_a_file_with_the_number_of_a_closed_standard_stream_is_not_given_to_processes(tmp_path, make, number):
    source = f"""
report = os.fdopen(os.dup(1), "w")
data = reuse({number})
with {make}.run(leave_text, {number}) as process:
    process.wait()
data.close()
print(json.dumps([process.returncode, os.path.getsize(sys.argv[1])]), file=report, flush=True)
"""
    with Program(REUSE + source, str(tmp_path / "data")) as program:
        assert program.read() == [1, 0]


def test_a_socket_with_the_number_of_standard_error_is_not_given_to_a_remote_command(tmp_path):
    source = """
os.close(2)
near, far = socket.socketpair()
assert near.fileno() == 2
with anyfork.RemoteTemplate(["sh", "-c", f"echo noise >&2; exec {sys.executable}"]) as template:
    value = anyfork.call(abs, -1, template=template)
far.setblocking(False)
try:
    say([value, far.recv(100).decode()])
except BlockingIOError:
    say([value, ""])
"""
    assert run_program(source) == [1, ""]


def test_nothing_of_anyfork_gets_the_number_of_a_standard_stream():
    source = """
def open_ones():
    found = []
    for fd in (0, 1, 2):
        try:
            found.append(os.readlink(f"/proc/self/fd/{fd}"))
        except OSError:
            continue
    return [path for path in found if "libffi" not in path]  # which may keep its own file open, when ctypes is loaded
def write():
    sys.stderr.write("warning")
    sys.stderr.flush()
    return len(bytes(1 << 20))
with anyfork.Executor(max_workers=1) as executor, anyfork.Worker() as worker, Template() as template:
    seen = [executor.submit(write).result(), worker.call(len, bytes(1 << 20)), worker.call(write)]
    with template.fork().run_program(["true"]) as process:
        pass
    seen.append(open_ones())
os.write(9, json.dumps([seen, process.returncode]).encode() + b"\\n")
"""
    closing = ["sh", "-c", 'exec "$0" "$@" 9>&1 0<&- 1>&- 2>&-']
    with Program(source, command=closing) as program:
        assert program.read() == [[1 << 20, 1 << 20, 1 << 20, []], 0]


def leading_to(path, pid):
    """Return the descriptors of a process that lead to a file. It may open and close others meanwhile."""
    found = []
    for fd in os.listdir(f"/proc/{pid}/fd"):
        try:
            if os.readlink(f"/proc/{pid}/fd/{fd}") == path:
                found.append(int(fd))
        except FileNotFoundError:
            continue
    return sorted(found)


@pytest.mark.parametrize("make", ["fork", "new_exec"])
def test_streams_that_lead_to_devnull_leave_no_descriptor_open(make):
    streams = {"stdin": DEVNULL, "stdout": DEVNULL, "stderr": DEVNULL}
    template = (Template().fork(**streams) if make == "fork" else Template.new_exec(**streams)).ready()
    for _ in range(4):
        template = template.fork(**streams).ready()
        assert leading_to(os.devnull, template.pid) == [0, 1, 2]
    with template.run_program([sys.executable, "-c", "import os; os.listdir('/proc/self/fd')[4:] and 1/0"]) as process:
        pass
    assert process.returncode == 0


def test_a_step_that_closes_standard_streams_leaves_their_numbers_to_nothing_of_anyfork():
    template = Template().execute("import os; os.close(1); os.close(2)")
    for _ in range(2):
        with template.fork().run(faulty.send_value, "[os.fstat(fd).st_rdev for fd in (1, 2)]") as process:
            heard = process.channel.recv(100).decode()
    assert heard == str([os.stat("/dev/null").st_rdev] * 2)


# There `import socket`, by itself and without anyfork, ends in a SystemError of the interpreter.
@pytest.mark.skipif(sys.version_info[:3] == (3, 13, 0), reason="CPython 3.13.0 cannot import socket in such a place")
def test_an_owner_whose_directory_was_removed_works(tmp_path):
    source = """
os.rmdir(os.getcwd())
with Template().run(faulty.end_with, 3) as process:
    pass
with Template.new_exec().run(faulty.end_with, 4) as other:
    pass
say([process.returncode, other.returncode])
"""
    (tmp_path / "gone").mkdir()
    assert run_program(source, cwd=tmp_path / "gone") == [3, 4]


def test_an_owner_with_an_empty_environment_works():
    source = """
path = os.environ["PYTHONPATH"]
os.environ.clear()
sys.path.extend(path.split(os.pathsep))
with Template().run(faulty.send_value, "len(os.environ)") as process:
    say(int(process.channel.recv(100)) <= 1)  # Python itself may set LC_CTYPE
"""
    assert run_program(source) is True


def test_fifty_generations_of_templates_work():
    templates = [Template()]
    for _ in range(GENERATIONS):
        templates.append(templates[-1].fork())
    with templates[-1].run(faulty.end_with, 3) as process:
        pass
    assert process.returncode == 3
    while templates:
        templates.pop().close()


@pytest.fixture(params=["", "depth = len(__import__('inspect').stack())"])
def deep(request):
    """Yield a template after fifty generations, in each of which code has run."""
    template = Template()
    for _ in range(GENERATIONS):
        child = template.fork().execute(request.param)
        template.close()
        template = child
    with template:
        yield template


def test_the_stack_is_as_deep_in_generation_fifty_as_in_the_first(deep):
    # It is unwound before user code runs.
    expression = "len(inspect.stack())"
    with Template().run(faulty.send_value, expression) as first, deep.fork().run(faulty.send_value, expression) as last:
        assert first.channel.recv(100) == last.channel.recv(100)


def test_the_machine_stack_is_as_large_in_generation_fifty_as_in_the_first(deep):
    # The interpreter's own frames, too, which inspect does not show.
    with Template().run(faulty.send_stack_size) as first, deep.fork().run(faulty.send_stack_size) as last:
        assert abs(int(first.channel.recv(100)) - int(last.channel.recv(100))) <= 4096


def test_fifty_generations_work_with_a_small_stack():
    template = Template.new_exec(rlimits={"STACK": 512 << 10})
    for _ in range(GENERATIONS):
        child = template.fork()
        template.close()
        template = child
    with template.run(faulty.end_with, 3) as process:
        pass
    assert process.returncode == 3


def test_descriptors_do_not_pile_up_over_generations(deep):
    expression = "len(os.listdir('/proc/self/fd'))"
    with Template().run(faulty.send_value, expression) as first, deep.fork().run(faulty.send_value, expression) as last:
        assert int(last.channel.recv(100)) <= int(first.channel.recv(100))


def test_arguments_keep_their_order_over_generations():
    template = Template().send(0)
    for number in range(1, GENERATIONS):
        child = template.fork().send(number)
        template.close()
        template = child
    with template.run(faulty.send_arguments) as process:
        assert eval(process.channel.makefile().read()) == tuple(range(GENERATIONS))
