"""Signals to the owner, to the group, to templates: none is lost, none reaches what it is not for."""

import inspect
import json
import os
import select
import signal
import sys
import time

import faulty
import pytest
from deadlines import DEADLINE
from owner_side import output_of
from programs import PAUSE, SECONDS, Program, run_program, state

import anyfork
from anyfork import Descriptor, Template


def test_ctrl_c_leaves_idle_templates_alive():
    # SIGINT goes to the whole group; what it means is the owner's decision.
    source = """
signal.signal(signal.SIGINT, lambda *_: None)
templates = [Template().ready(), Template.new_exec().ready()]
pids = [template.pid for template in templates]
os.killpg(0, signal.SIGINT)
codes = []
for template in templates:
    with template.fork().run(faulty.end_with, 3) as process:
        pass
    codes.append(process.returncode)
say([codes, [template.ready().pid for template in templates] == pids])
"""
    assert run_program(source, start_new_session=True) == [[3, 3], True]


def test_ctrl_c_leaves_a_template_alive_in_the_middle_of_a_step():
    """Check that SIGINT does not interrupt a step of a template."""
    source = """
signal.signal(signal.SIGINT, lambda *_: None)
read, write = os.pipe()
go, went = os.pipe()
template = Template().execute(
    "import os; os.write(args[0].fileno(), b'.'); os.read(args[1].fileno(), 1)", Descriptor(write), Descriptor(go))
os.read(read, 1)
os.killpg(0, signal.SIGINT)
os.write(went, b".")
say(template.ready().pid is not None)
"""
    assert run_program(source, start_new_session=True) is True


def test_ctrl_c_is_a_keyboard_interrupt_in_a_running_process():
    # As in any other program in the foreground.
    source = """
signal.signal(signal.SIGINT, lambda *_: None)
process = Template().run(faulty.forever)
process.channel.recv(1)
os.killpg(0, signal.SIGINT)
status = process.wait(10)
say([status.code, status.signal, "KeyboardInterrupt" in (status.error or "")])
"""
    assert run_program(source, start_new_session=True) == [1, None, True]


def test_ctrl_c_ends_an_owner_that_waits_and_nothing_is_left():
    # KeyboardInterrupt in the middle of a run.
    source = """
say(1)
template = Template().execute("import signal\\nwhile True: signal.pause()")
template.run(faulty.echo)
"""
    with Program(source, start_new_session=True) as program:
        program.read()
        end = time.monotonic() + SECONDS
        while len(program.everyone()) < 2:
            assert time.monotonic() < end
            PAUSE.wait(0.002)
        os.killpg(program.pid, signal.SIGINT)
        assert program.wait() == -signal.SIGINT
        assert program.errors().rstrip().endswith("KeyboardInterrupt")
        program.wait_for(())


@pytest.mark.parametrize(
    "template", ["Template.new_exec(new_session=True)", "Template().ready().fork(new_session=True)"]
)
def test_signals_to_the_group_of_the_owner_do_not_reach_a_template_with_a_session_of_its_own(template):
    source = f"""
for number in (signal.SIGINT, signal.SIGTERM):
    signal.signal(number, lambda *_: None)
template = {template}
running = template.fork().run(faulty.forever)
running.channel.recv(1)
inside = Template().run(faulty.forever)
inside.channel.recv(1)
os.killpg(0, signal.SIGINT)
os.killpg(0, signal.SIGTERM)
say(inside.wait(10).code)
with template.fork().run(faulty.end_with, 3) as process:
    pass
running.kill()
say([process.returncode, running.wait(10).signal])
hear()
"""
    with Program(source, start_new_session=True) as program:
        assert program.read() in (1, None)  # by either signal
        assert program.read() == [3, signal.SIGKILL]
        program.kill()
        program.wait_for(())


# A program in which the alarm raises an exception, with a template and a pipe.
INTERRUPTED = """
class Enough(BaseException):
    pass

def interrupt(*_):
    raise Enough

signal.signal(signal.SIGALRM, interrupt)
template = Template().ready()
read, write = os.pipe()
"""


def test_an_interrupted_run_leaves_no_process():
    # At whatever moment the exception comes. The template goes on.
    source = (
        INTERRUPTED
        + """
interrupted = 0
for delay in (0.0005, 0.001, 0.002, 0.003, 0.005, 0.01, 0.02):
    for _ in range(10):
        try:
            signal.setitimer(signal.ITIMER_REAL, delay)
            process = template.fork().run(faulty.echo, Descriptor(write))
            signal.setitimer(signal.ITIMER_REAL, 0)
            process.close()
        except Enough:
            interrupted += 1
process = None
os.close(write)
template.ready()
say([interrupted > 0, len(select.select([read], [], [], 5)[0])])
"""
    )
    assert run_program(source) == [True, 1]


def test_the_function_of_an_interrupted_run_is_never_entered():
    # The request is taken back, although the template has not even read it.
    source = (
        INTERRUPTED
        + """
stop(template.pid)
signal.setitimer(signal.ITIMER_REAL, 0.05)
try:
    template.fork().run(faulty.write_to, Descriptor(write))
except Enough:
    os.kill(template.pid, signal.SIGCONT)
os.close(write)
select.select([read], [], [], 5)
say(os.read(read, 100).decode())
"""
    )
    assert run_program(source) == ""


def test_signals_during_starts_lose_no_process():
    """Send signals while processes start: they are blocked around the fork."""
    source = """
template = Template().ready()
starts = threading.Semaphore(0)

def storm():
    for _ in range(100):
        starts.acquire()
        for number in 100 * (signal.SIGINT, signal.SIGCHLD, signal.SIGCONT, signal.SIGWINCH, signal.SIGURG):
            os.kill(template.pid, number)

thread = threading.Thread(target=storm)
thread.start()
codes = []
for _ in range(100):
    starts.release()
    with template.fork().run(faulty.end_with, 3) as process:
        pass
    codes.append(process.returncode)
thread.join()
say(codes == [3] * 100)
"""
    assert run_program(source) is True


def test_sigterm_ends_a_template_and_its_processes():
    """End a template by SIGTERM, as its owner's end does in the middle of a step."""
    template = Template().ready()
    process = template.fork().run(faulty.stubborn)
    process.channel.recv(1)
    os.kill(template.pid, signal.SIGTERM)
    assert process.channel.recv(1) == b""
    assert process.wait(DEADLINE).signal in (signal.SIGKILL, None)
    with pytest.raises(anyfork.TemplateDiedError) as caught:
        template.ready(DEADLINE)
    assert caught.value.status.signal == signal.SIGTERM
    process.close()
    template.close()


def test_sigterm_in_the_middle_of_a_birth_ends_that_process_too():
    # Between a fork and its bookkeeping, when the template does not know the process yet.
    with Template() as template:
        template.execute(
            "import os, signal\nos.register_at_fork(after_in_parent=lambda: os.kill(os.getpid(), signal.SIGTERM))"
        )
        process = template.fork().start(faulty.stubborn)
        assert process.wait(DEADLINE).signal in (signal.SIGTERM, signal.SIGKILL)
        process.close()


def test_a_second_sigterm_does_not_save_the_templates_processes():
    # A signal during the teardown is no excuse.
    template = Template().ready()
    process = template.fork().run(faulty.stubborn)
    process.channel.recv(1)
    pidfd = os.pidfd_open(template.pid)
    while not select.select([pidfd], [], [], 0.001)[0]:
        signal.pidfd_send_signal(pidfd, signal.SIGTERM)
    os.close(pidfd)
    assert select.select([process.channel], [], [], DEADLINE)[0], "the process lives on"
    process.kill()
    process.wait(DEADLINE)
    process.close()
    template.close()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP, signal.SIGINT, signal.SIGKILL])
def test_a_signal_that_ends_a_process_is_its_status(number):
    process = Template().run(faulty.wait_for_signals)
    process.channel.recv(1)
    process.send_signal(number)
    assert process.wait(DEADLINE).signal == number
    process.close()


def signal_parent(channel, number):
    os.kill(os.getppid(), number)
    channel.sendall(b"sent")


def read_masks():
    """Return the ignored and the caught signals, as the kernel has them."""
    with open("/proc/self/status") as status:
        lines = dict(line.split(":", 1) for line in status)
    numbers = sorted(signal.valid_signals())  # the C library keeps two for itself
    return [[int(n) for n in numbers if int(lines[name], 16) >> n - 1 & 1] for name in ("SigIgn", "SigCgt")]


def read_signals(channel):
    channel.sendall(json.dumps(read_masks()).encode())


def masks(template):
    with template.fork().run(read_signals) as process:
        return json.loads(process.channel.recv(100))


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2])
@pytest.mark.parametrize("generations", [0, 1])
def test_a_template_survives_what_its_process_tells_it_by_a_signal(number, generations):
    with Template.new_exec() if generations == 0 else Template().execute("nothing = None") as template:
        for _ in range(2):
            with template.fork().run(signal_parent, number) as process:
                assert process.channel.recv(10) == b"sent"
                assert process.wait(DEADLINE).code == 0
        template.ready(DEADLINE)


@pytest.mark.parametrize("compiled", ["0", None])
def test_functions_do_not_ignore_what_templates_ignore(compiled):
    fresh = output_of("-c", f"import signal\n{inspect.getsource(read_masks)}\nprint(read_masks())")
    env = dict(os.environ) | ({} if compiled is None else {"ANYFORK_COMPILED": compiled})
    with Template.new_exec(env=env) as template:
        ignored, _ = json.loads(fresh)
        assert [masks(template)[0] for _ in range(2)] == [ignored] * 2
        with template.fork().fork() as clone:
            assert masks(clone)[0] == ignored
        with template.run(read_signals) as process:  # in the template itself, which has never forked a function
            assert json.loads(process.channel.recv(100))[0] == ignored


def test_a_handler_that_only_a_library_knows_of_stays_in_functions():
    """Use faulthandler, which sets handlers without telling the interpreter."""
    with Template().execute("import faulthandler, signal\nfaulthandler.register(signal.SIGUSR1)") as template:
        for _ in range(2):
            ignored, caught = masks(template)
            assert signal.SIGUSR1 in caught
            assert signal.SIGUSR1 not in ignored


def test_a_program_that_ignores_the_end_of_its_terminal_has_processes_that_do():
    """Start the program as nohup does."""
    source = """
template = Template()
code = "import signal; print(signal.getsignal(signal.SIGHUP) == signal.SIG_IGN)"
found = []
for one in (template, Template.new_exec()):
    with one.fork().run(faulty.tell_if_ignored, signal.SIGHUP) as process:
        found.append(process.channel.recv(10).decode())
    with one.fork(stdout=anyfork.PIPE).run_program([sys.executable, "-c", code]) as process:
        found.append(process.communicate()[0].decode().strip())
say(found)
"""
    nohup = "import os, signal, sys; signal.signal(signal.SIGHUP, signal.SIG_IGN); os.execv(sys.argv[1], sys.argv[1:])"
    with Program(source, command=[sys.executable, "-c", nohup]) as program:
        assert program.read() == ["True"] * 4
        assert program.wait() == 0


def test_a_handler_that_a_hook_of_the_fork_sets_stays_in_functions():
    code = "import os, signal; os.register_at_fork(after_in_child=lambda: signal.signal(signal.SIGUSR1, print))"
    with Template().execute(code) as template:
        assert [signal.SIGUSR1 in masks(template)[1] for _ in range(2)] == [True, True]


SETTINGS = """
import signal
signal.signal(signal.SIGUSR1, lambda *_: None)
signal.signal(signal.SIGHUP, lambda *_: None)
"""


@pytest.mark.parametrize("code", ["", SETTINGS])
@pytest.mark.parametrize("generations", [1, 3])
def test_a_function_starts_with_the_signals_of_a_fresh_interpreter(code, generations):
    # An empty mask, and no handler but that of Ctrl-C, whatever the template had.
    template = Template().execute(code)
    for _ in range(generations - 1):
        template = template.fork()
    with template, template.fork().run(faulty.describe_signals) as process:
        assert process.channel.recv(1000) == repr(([], [int(signal.SIGINT)])).encode()


def test_a_function_starts_with_an_empty_mask_although_the_owner_blocks_signals():
    # In a default template that is started while they are blocked.
    source = """
signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
with Template().run(faulty.describe_signals) as process:
    say(process.channel.recv(1000).decode())
"""
    assert run_program(source) == repr(([], [int(signal.SIGINT)]))


def test_a_program_starts_with_default_signals():
    """Check the default action of all signals, those that Python ignores included."""
    with Template().fork(stdout=anyfork.CHANNEL) as template:
        process = template.run_program(["cat", "/proc/self/status"])
        lines = dict(line.split(":", 1) for line in process.channel.makefile())
        process.wait(DEADLINE)
        process.close()
    ours = sum(1 << number - 1 for number in signal.valid_signals())  # the C library keeps two for itself
    assert [int(lines[name], 16) & ours for name in ("SigBlk", "SigIgn", "SigCgt")] == [0, 0, 0]


def test_a_signal_to_a_process_does_not_reach_the_wakeup_descriptor_of_its_template():
    # An event loop in the template would otherwise take it for its own.
    code = """
import signal, socket
ours, theirs = socket.socketpair()
ours.setblocking(False)
theirs.setblocking(False)
signal.set_wakeup_fd(theirs.fileno())
"""
    with Template().execute(code) as template:
        process = template.fork().run(faulty.handle_signals)
        process.channel.recv(1)
        process.send_signal(signal.SIGUSR1)
        assert process.channel.recv(100) == b"handled -1"
        process.channel.close()
        process.wait(DEADLINE)
        process.close()
        template.execute("try: raise RuntimeError(ours.recv(1))\nexcept BlockingIOError: pass").ready(DEADLINE)


def test_the_owners_sigchld_handler_may_reap_everything():
    # Waitpid(-1) in the application takes nothing that the library needs.
    source = """
def reap(*_):
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        pass

signal.signal(signal.SIGCHLD, reap)
codes = []
for number in range(30):
    with Template().run(faulty.end_with, number) as process:
        pass
    codes.append(process.returncode)
say(codes == list(range(30)))
"""
    assert run_program(source) is True


def test_a_default_template_that_the_application_reaps_is_replaced():
    # It is the only child of the owner.
    source = """
from anyfork._processes.default_template import default_template
Template().ready().close()
os.kill(default_template._link.session.pid, signal.SIGKILL)
os.waitpid(-1, 0)
with Template().run(faulty.end_with, 3) as process:
    pass
say(process.returncode)
"""
    assert run_program(source) == 3


def test_an_owner_that_ignores_sigchld_gets_all_statuses():
    # Its children vanish without a status; ours are not its children.
    source = """
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
with Template().run(faulty.end_with, 7) as process:
    pass
with Template.new_exec().run(faulty.end_with, 8) as other:
    pass
say([process.returncode, other.returncode])
"""
    assert run_program(source) == [7, 8]


@pytest.mark.parametrize("first", ["", "signal.signal(signal.SIGCHLD, signal.SIG_IGN)"])
def test_code_in_a_template_that_takes_a_status_leaves_it_unknown(first):
    # The other way round: the template lives on.
    code = f"""
import os, signal
{first}
os.write(args[0].fileno(), b".")
try:
    os.wait()
except ChildProcessError:  # that is what it raises where SIGCHLD is ignored
    pass
"""
    read, write = os.pipe()
    with Template() as template:
        process = template.fork().run(faulty.end_when_told, 3)
        process.channel.recv(1)
        template.execute(code, Descriptor(write))
        assert os.read(read, 1) == b"."
        process.channel.sendall(b"x")
        assert not process.wait(DEADLINE).known
        process.close()
        assert template.ready(DEADLINE) is template
    os.close(read)
    os.close(write)


@pytest.mark.parametrize("handler", ["SIG_IGN", "lambda *_: print(os.wait())"])
def test_code_in_a_template_that_handles_sigchld_takes_no_status_later(handler):
    # Libraries that start programs set such handlers when they are imported.
    code = f"import os; from signal import *; signal(SIGCHLD, {handler})"
    with Template().execute(code) as template, template.fork().run(faulty.end_with, 3) as process:
        pass
    assert process.returncode == 3


def test_code_in_a_template_that_wants_sigpipe_does_not_end_it_when_handles_are_dropped():
    # Reports to nobody are not worth a signal.
    code = "import signal; signal.signal(signal.SIGPIPE, signal.SIG_DFL)"
    with Template().execute(code) as template:
        for _ in range(10):
            template.fork().start(faulty.end_with, 3).close()
            template.fork().close()
        assert template.ready(DEADLINE) is template
        with template.fork().run(faulty.end_with, 3) as process:
            pass
        assert process.returncode == 3


def test_code_in_a_template_that_sets_handlers_does_not_change_what_signals_do_to_it():
    # Many libraries set one for SIGINT or SIGTERM when they are imported.
    code = "from signal import *; signal(SIGINT, default_int_handler); signal(SIGTERM, print)"
    with Template().execute(code) as template:
        process = template.fork().run(faulty.stubborn)
        process.channel.recv(1)
        os.kill(template.pid or template.ready().pid, signal.SIGINT)
        assert template.ready(DEADLINE) is template
        os.kill(template.pid, signal.SIGTERM)
        assert process.channel.recv(1) == b""
        process.wait(DEADLINE)
        process.close()


@pytest.mark.parametrize("compiled", ["", "0"])
def test_hooks_of_a_fork_that_set_handlers_do_not_change_what_signals_do_to_a_template(compiled):
    """Set a handler as coverage.py does: for SIGTERM, in each process that is forked."""
    code = (
        "import os, signal; os.register_at_fork(after_in_child=lambda: signal.signal(signal.SIGTERM, signal.SIG_DFL))"
    )
    with Template.new_exec(env={**os.environ, "ANYFORK_COMPILED": compiled}).execute(code) as template:
        template.fork().start(faulty.end_with, 0).close()  # the first one is forked in another way
        nested = template.fork().ready()
        process = nested.fork().run(faulty.stubborn)
        process.channel.recv(1)
        os.kill(nested.pid, signal.SIGTERM)
        assert process.channel.recv(1) == b""
        process.wait(DEADLINE)
        process.close()
        nested.close()


def test_the_library_takes_no_status_of_the_owners_own_children():
    source = """
import subprocess
own = [subprocess.Popen([sys.executable, "-S", "-c", f"raise SystemExit({code})"]) for code in range(5)]
for _ in range(20):
    Template().run(faulty.end_with, 0).wait()
say([child.wait() for child in own])
"""
    assert run_program(source) == [0, 1, 2, 3, 4]


def test_the_library_changes_no_signal_and_starts_no_thread_in_the_owner():
    source = """
def settings():
    handlers = [str(signal.getsignal(number)) for number in sorted(signal.valid_signals())]
    wakeup = signal.set_wakeup_fd(-1)
    signal.set_wakeup_fd(wakeup)
    return [handlers, wakeup, sorted(signal.pthread_sigmask(signal.SIG_BLOCK, ())), threading.active_count(),
            len(os.listdir("/proc/self/task"))]

before = settings()
template = Template().preload("json").ready()
process = template.fork().run(faulty.forever)
during = settings()
process.kill()
process.wait()
template.close()
say([before == during, before == settings()])
"""
    assert run_program(source) == [True, True]


REUSE = """
def take_pid(pid):
    '''Fork a bystander that gets just this pid.'''
    for _ in range(200):
        with open("/proc/sys/kernel/ns_last_pid", "w") as file:
            file.write(str(pid - 1))
        child = os.fork()
        if child == 0:
            signal.pause()
        if child == pid:
            return child
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)

template = Template().ready()
process = template.fork().run(faulty.forever)
process.channel.recv(1)
pid = process.pid
os.kill(pid, signal.SIGKILL)
while os.path.exists(f"/proc/{pid}"):
    pass
bystander = take_pid(pid)
"""
NAMESPACE = ["unshare", "--pid", "--fork", "--mount-proc"]
# To give one pid to two processes takes a namespace with a counter of its own.
needs_root = pytest.mark.skipif(os.getuid() != 0, reason="only root may make a pid namespace")


@needs_root
@pytest.mark.parametrize("call", ["kill", "terminate"])
def test_a_signal_to_a_process_that_has_ended_does_not_hit_who_has_its_pid_now(call):
    # Signals go through the pidfd, whatever the number means by now.
    source = f"""
process.{call}()
template.fork().run(faulty.end_with, 0).wait()
say([bystander == pid, os.waitpid(bystander, os.WNOHANG)[0]])
"""
    with Program(REUSE + source, command=NAMESPACE) as program:
        assert program.read() == [True, 0]


@needs_root
def test_a_template_that_ends_does_not_kill_who_has_the_pid_of_a_process_of_its_own():
    # What was reaped is forgotten.
    source = """
pidfd = os.pidfd_open(template.pid)
os.kill(template.pid, signal.SIGTERM)
select.select([pidfd], [], [], 5)
say([bystander == pid, os.waitpid(bystander, os.WNOHANG)[0]])
"""
    with Program(REUSE + source, command=NAMESPACE) as program:
        assert program.read() == [True, 0]


@needs_root
def test_the_status_of_a_process_is_its_own_although_its_pid_was_reused():
    with Program(REUSE + "say([bystander == pid, process.wait(5).signal])", command=NAMESPACE) as program:
        assert program.read() == [True, signal.SIGKILL]


def test_a_stopped_process_is_not_taken_for_ended():
    # Only the end is reported.
    process = Template().run(faulty.echo)
    os.kill(process.pid, signal.SIGSTOP)
    while state(process.pid) != "T":
        PAUSE.wait(0.001)
    assert process.poll() is None
    process.send_signal(signal.SIGCONT)
    process.channel.close()
    assert process.wait(DEADLINE).code == 0
    process.close()


@pytest.mark.parametrize("start", ["run", "run_code"])
def test_an_interrupt_right_after_the_start_is_not_lost(start):
    template = Template()
    what = "import time\nwhile True: time.sleep(0.1)" if start == "run_code" else faulty.forever
    for _ in range(10):
        with getattr(template.fork(stderr=anyfork.DEVNULL), start)(what) as process:
            process.send_signal(signal.SIGINT)
            assert process.wait(DEADLINE).code in (None, 1)
