"""Processes, memory, descriptors and socket buffers run out: one request fails, the template and the owner go on."""

import errno
import fcntl
import gc
import hashlib
import os
import resource
import select
import signal
import socket
import tempfile
from pathlib import Path

import faces
import faulty
import pytest
from deadlines import DEADLINE
from programs import PAUSE, Program, open_descriptors, run_program, state, stop

import anyfork
from anyfork import Descriptor, Template, aio

ROOT = os.getuid() == 0
NONE_FREE = 3  # as a limit of descriptors: 0, 1 and 2 are open everywhere
NOBODY = {"user": 65534, "group": 65534, "extra_groups": []} if ROOT else {}
# A program that is as limited in sockets and in descriptors on their way as those of ordinary users.
UNPRIVILEGED = {"command": ["setpriv", "--bounding-set=-sys_resource,-sys_admin,-net_admin"] if ROOT else []}


def limit(pid, kind, soft):
    """Set the soft limit of a living process; return what restores it."""
    before = resource.prlimit(pid, kind)
    resource.prlimit(pid, kind, (soft, before[1]))
    return lambda: resource.prlimit(pid, kind, before)


def works(template):
    """Return whether a process can be started from the template, and its status comes back."""
    with template.fork().run(faulty.end_with, 3) as process:
        pass
    return process.returncode == 3


# --- Processes ---


@pytest.fixture
def crowded():
    """Yield a template of a user who may have no more processes. The limit does not hold for root."""
    with Template().preload("faulty", "resource").fork(rlimits={"NPROC": (1, 1000)}, **NOBODY) as template:
        yield template.ready(DEADLINE)


def test_a_fork_beyond_the_limit_of_processes_is_an_error_with_eagain(crowded):
    # EAGAIN of fork is not mistaken for a socket that would block.
    with pytest.raises(anyfork.ForkError) as caught:
        crowded.fork().run(faulty.echo)
    assert caught.value.errno == errno.EAGAIN


def test_forks_work_again_when_there_may_be_processes_again(crowded):
    # One request failed, and nothing else.
    with pytest.raises(anyfork.ForkError):
        crowded.fork().run(faulty.echo)
    crowded.execute("import resource; resource.setrlimit(resource.RLIMIT_NPROC, (1000, 1000))")
    assert works(crowded)


def test_a_template_that_may_not_fork_still_answers(crowded):
    with pytest.raises(anyfork.ForkError):
        crowded.fork().run(faulty.echo)
    assert crowded.ready(DEADLINE) is crowded


def test_refused_forks_leave_no_descriptor_in_the_template(crowded):
    counts = []
    for _ in range(10):
        with pytest.raises(anyfork.ForkError):
            crowded.fork().run(faulty.echo)
        counts.append(open_descriptors(crowded.ready().pid))
    assert counts == [counts[0]] * 10


def test_refused_forks_leave_no_descriptor_in_the_owner(crowded):
    counts = []
    for _ in range(10):
        with pytest.raises(anyfork.ForkError):
            crowded.fork().run(faulty.echo)
        gc.collect()
        counts.append(open_descriptors())
    assert counts == [counts[0]] * 10


def test_ready_of_a_fork_that_was_refused_is_the_same_error(crowded):
    with crowded.fork() as fork, pytest.raises(anyfork.ForkError):
        fork.ready(DEADLINE)


def test_a_fork_of_a_fork_that_was_refused_says_that_nothing_has_run(crowded):
    # The middle one never was.
    with crowded.fork() as fork, pytest.raises(anyfork.AnyforkError) as caught:
        fork.fork().run(faulty.echo)
    assert isinstance(caught.value, anyfork.ForkError | anyfork.TemplateDiedError)


def test_what_is_queued_for_a_fork_that_was_refused_is_closed(crowded):
    # Its descriptors, too.
    read, write = os.pipe()
    process = crowded.fork().start(faulty.write_to, Descriptor(write))
    os.close(write)
    with pytest.raises(anyfork.ForkError):
        process.ready(DEADLINE)
    process.close()
    assert select.select([read], [], [], DEADLINE)[0]
    assert os.read(read, 1) == b""
    os.close(read)


# --- Memory ---

# Two neighbouring maps that nobody touches become one area, larger than the memory; a fork must account for it.
TOO_LARGE = """
import mmap, os
size = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") * 7 // 10
flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
maps = [mmap.mmap(-1, size, flags=flags) for _ in range(2)]
"""
with open("/proc/sys/vm/overcommit_memory") as _file, open("/proc/swaps") as _swaps:
    GUESSES = _file.read().strip() == "0" and len(_swaps.readlines()) == 1
# Only such a kernel refuses memory at once (ENOMEM). The setting is the machine's: no test may change it for others.
needs_accounting = pytest.mark.skipif(not GUESSES, reason="the kernel is told to overcommit, or has swap")


@needs_accounting
def test_a_fork_for_which_there_is_no_memory_is_an_error_with_enomem():
    with Template() as template:
        template.execute(TOO_LARGE)
        with pytest.raises(anyfork.ForkError) as caught:
            template.fork().run(faulty.echo)
    assert caught.value.errno == errno.ENOMEM


@needs_accounting
def test_forks_work_again_when_there_is_memory_again():
    with Template() as template:
        template.execute(TOO_LARGE)
        with pytest.raises(anyfork.ForkError):
            template.fork().run(faulty.echo)
        template.execute("while maps: maps.pop().close()")
        assert works(template)


def test_a_step_for_which_there_is_no_memory_is_its_error():
    # MemoryError is one of the user's exceptions.
    with Template() as template:
        restore = limit(template.ready().pid, resource.RLIMIT_AS, 1 << 29)
        template.execute("data = bytearray(1 << 30)")
        with pytest.raises(anyfork.ExecuteError, match="MemoryError"):
            template.ready(DEADLINE)
        restore()


def test_arguments_for_which_there_is_no_memory_are_a_decode_error():
    with Template() as template:
        limit(template.ready().pid, resource.RLIMIT_AS, 1 << 29)
        with pytest.raises(anyfork.ArgumentDecodeError, match="MemoryError"):
            template.fork().run(faulty.echo, faulty.Decoding(bytearray, 1 << 30))


# --- Descriptors ---


def test_a_fork_for_which_the_template_has_no_descriptors_is_an_error_with_emfile():
    with Template() as template:
        limit(template.ready().pid, resource.RLIMIT_NOFILE, NONE_FREE)
        with pytest.raises(anyfork.ForkError) as caught:
            template.fork().run(faulty.echo)
    assert caught.value.errno == errno.EMFILE


@pytest.mark.parametrize("make", ["blocking", "asyncio"])
def test_the_status_of_a_process_that_was_never_forked_says_why(make):
    makers = {"blocking": Template, "asyncio": lambda: faces.Template.make("asyncio", aio.Template)}
    with makers[make]() as template:
        limit(template.ready().pid, resource.RLIMIT_NOFILE, NONE_FREE)
        process = template.fork().start(faulty.echo)
        status = process.wait(DEADLINE)
        assert not status.known
        assert "too many open files" in status.error
        process.close()


@pytest.mark.parametrize("make", [Template, Template.new_exec], ids=["fork", "new_exec"])
@pytest.mark.parametrize("room", range(16))
def test_forks_work_again_when_the_template_has_descriptors_again(room, make):
    # Wherever in the middle of a fork, or of what comes before the first, they ran out.
    with make() as template:
        template.ready()
        used = max(int(name) for name in os.listdir(f"/proc/{template.pid}/fd")) + 1
        restore = limit(template.pid, resource.RLIMIT_NOFILE, used + room)
        for _ in range(3):
            try:
                template.fork().run(faulty.echo).close()
            except anyfork.ForkError:
                continue
        restore()
        assert works(template)


@pytest.mark.parametrize("room", range(10))
def test_a_template_without_descriptors_leaks_none(room):
    with Template() as template:
        assert works(template)
        before = open_descriptors(template.ready().pid)
        used = max(int(name) for name in os.listdir(f"/proc/{template.pid}/fd")) + 1
        restore = limit(template.pid, resource.RLIMIT_NOFILE, used + room)
        for _ in range(5):
            try:
                template.fork().run(faulty.end_with, 0).wait(DEADLINE)
            except anyfork.ForkError:
                continue
        restore()
        assert works(template)
        template.ready()
        assert open_descriptors(template.pid) == before


@pytest.mark.parametrize("room", range(10))
def test_running_processes_are_reported_although_their_template_has_no_descriptors(room):
    with Template() as template:
        process = template.fork().run(faulty.end_when_told, 4)
        process.channel.recv(1)
        used = max(int(name) for name in os.listdir(f"/proc/{template.ready().pid}/fd")) + 1
        limit(template.pid, resource.RLIMIT_NOFILE, used + room)
        for _ in range(2):
            try:
                template.fork().run(faulty.echo).close()
            except anyfork.ForkError:
                continue
        process.channel.close()
        assert process.wait(DEADLINE).code == 4
        process.close()


def test_a_template_without_descriptors_does_not_spin():
    # The refused request is consumed.
    with Template() as template:
        limit(template.ready().pid, resource.RLIMIT_NOFILE, NONE_FREE)
        with pytest.raises(anyfork.ForkError):
            template.fork().run(faulty.echo)
        ticks = cpu_ticks(template.pid)
        assert not select.select([], [], [], 0.3)[0]
        assert cpu_ticks(template.pid) - ticks <= 10


def cpu_ticks(pid):
    """Return the processor time of a process in hundredths of a second."""
    with open(f"/proc/{pid}/stat") as file:
        return sum(map(int, file.read().rpartition(")")[2].split()[11:13]))


def test_descriptors_that_do_not_fit_into_the_process_are_an_error():
    # MSG_CTRUNC at the receiver is never passed over.
    files = [Descriptor(os.open("/dev/null", os.O_RDONLY)) for _ in range(100)]
    with Template() as template:
        limit(template.ready().pid, resource.RLIMIT_NOFILE, 60)
        with pytest.raises(anyfork.ForkError) as caught:
            template.run(faulty.count_descriptors, *files)
    assert caught.value.errno == errno.EMFILE
    for file in files:
        file.close()


@pytest.mark.parametrize("queue", ["send", "execute", "fork"])
def test_descriptors_that_do_not_fit_into_a_template_are_an_error_of_what_they_were_for(queue):
    files = [Descriptor(os.open("/dev/null", os.O_RDONLY)) for _ in range(300)]
    with Template() as template:
        limit(template.ready().pid, resource.RLIMIT_NOFILE, 60)
        if queue == "fork":
            fork = template.fork(stdin=files[0].fileno()).send(*files)
        else:
            fork = getattr(template, queue)(*(["pass"] if queue == "execute" else []), *files).fork()
        with pytest.raises(anyfork.ForkError):
            fork.run(faulty.count_descriptors)
    for file in files:
        file.close()


def test_a_process_without_descriptors_can_still_report_a_failure():
    # The report needs a module that cannot be read any more.
    with Template() as template:
        limit(template.ready().pid, resource.RLIMIT_NOFILE, NONE_FREE)
        with pytest.raises(anyfork.FunctionNotFoundError, match="no_such_module"):
            template.run("no_such_module:function")


def test_descriptors_that_did_not_fit_are_closed_where_they_did():
    # The part of the message that came is closed, and the writing end of a pipe with it.
    read, write = os.pipe()
    with Template() as template:
        limit(template.ready().pid, resource.RLIMIT_NOFILE, 60)
        template.execute("pass", *[Descriptor(write) for _ in range(100)])
        with pytest.raises(anyfork.ForkError):
            template.ready(DEADLINE)
        os.close(write)
        assert select.select([read], [], [], DEADLINE)[0]
    os.close(read)


@pytest.mark.parametrize("count", [1, 252, 253, 254, 506, 507, 1000])
def test_any_number_of_descriptors_arrives(count):
    # More than 253 are split; none is inheritable.
    with socket.socket() as one:
        process = Template().run(faulty.count_descriptors, *[Descriptor(one.fileno()) for _ in range(count)])
        assert process.channel.recv(100) == b"%d" % count
        process.wait(DEADLINE)
        process.close()


def test_more_than_253_descriptors_travel_through_send_and_forks():
    with socket.socket() as one, Template() as template:
        template.send(*[Descriptor(one.fileno()) for _ in range(600)])
        process = template.fork().fork().run(faulty.count_descriptors, *[Descriptor(one.fileno()) for _ in range(300)])
        assert process.channel.recv(100) == b"900"
        process.wait(DEADLINE)
        process.close()


ATTEMPT = """
def attempt(action):
    try:
        action()
        return "it worked"
    except OSError as error:
        return errno.errorcode[error.errno]
    except anyfork.AnyforkError as error:
        return type(error).__name__
"""
NO_DESCRIPTORS = (
    ATTEMPT
    + """
template = Template().ready()
template.fork().run(faulty.end_with, 0).wait()
gc.collect()
before = open_descriptors()
resource.setrlimit(resource.RLIMIT_NOFILE, (256, 256))

def with_room(room, action):
    hoard = []
    try:
        while True:
            hoard.append(os.open("/dev/null", os.O_RDONLY))
    except OSError:
        pass
    for _ in range(room):
        os.close(hoard.pop())
    try:
        return action()
    finally:
        for fd in hoard:
            os.close(fd)
"""
)


def test_a_fork_for_which_the_owner_has_no_descriptors_is_an_oserror():
    assert run_program(NO_DESCRIPTORS + "say(with_room(0, lambda: attempt(template.fork)))") == "EMFILE"


def test_a_new_interpreter_for_which_the_owner_has_no_descriptors_is_an_error():
    source = "say([with_room(room, lambda: attempt(Template.new_exec)) for room in range(6)])"
    assert set(run_program(NO_DESCRIPTORS + source)) <= {"EMFILE", "LaunchError"}


ATTEMPTS = {
    "run": "lambda: template.fork().run(faulty.end_with, 0).wait(10)",
    "the channel": "lambda: template.fork().run(faulty.echo).channel.close()",
    "ready": "lambda: template.fork().ready(10).close()",
    "Template": "lambda: Template().ready(10).close()",
    "new_exec": "lambda: Template.new_exec().ready(10).close()",
    "run_program": "lambda: template.fork().run_program(['true']).wait(10)",
    "a large argument": "lambda: template.fork().run(faulty.forever, bytes(1 << 20)).kill()",
    "detach": "lambda: Template.from_socket(template.fork().detach()).ready(10).close()",
}


def test_a_process_whose_pidfd_could_not_be_received_gets_signals_all_the_same():
    source = """
process = template.fork().start(faulty.forever)
template.ready()  # it has reported the birth
with_room(0, lambda: attempt(process.poll))
process.terminate()
say([process._link.session.pidfd, process.wait().signal])
"""
    assert run_program(NO_DESCRIPTORS + source) == [-1, signal.SIGTERM]


def test_large_data_for_which_the_owner_has_no_descriptors_is_an_oserror_that_names_the_limit():
    source = """
def told(action):
    try:
        action()
    except OSError as error:
        return error.errno == errno.EMFILE and "RLIMIT_NOFILE" in str(error)

large = bytes(1 << 20)
with anyfork.Worker() as worker, anyfork.Executor(max_workers=1) as executor:
    worker.call(len, large), executor.submit(len, large).result()
    calls = (
        lambda: worker.call(len, large),
        lambda: executor.submit(len, large),
        lambda: list(executor.map(len, [large] * 300)),
    )
    say([with_room(0, lambda: told(call)) for call in calls])
"""
    assert run_program(NO_DESCRIPTORS + source) == [True, True, True]


@pytest.mark.parametrize("attempt", ATTEMPTS)
def test_an_owner_without_descriptors_fails_clearly_and_works_again(attempt):
    # Wherever in the middle of a request they ran out, nothing leaks, and the next request works.
    source = f"""
results = [with_room(room, lambda: attempt({ATTEMPTS[attempt]})) for room in range(14)]
worked = attempt({ATTEMPTS[attempt]})
gc.collect()
say([results, worked, open_descriptors() - before])
"""
    results, worked, left = run_program(NO_DESCRIPTORS + source)
    print(results)
    assert set(results) <= {"it worked", "EMFILE", "LaunchError", "PeerError", "ForkError"}
    assert (results[-1], worked, left) == ("it worked", "it worked", 0)


def test_a_process_whose_pidfd_had_no_room_in_the_owner_can_still_be_killed_and_waited_for():
    # The descriptor is lost on its way, the process is not.
    source = """
process = template.fork().run(faulty.forever)
process.channel.recv(1)
with_room(0, lambda: process.poll())
process.kill()
say(process.wait(10).signal)
"""
    assert run_program(NO_DESCRIPTORS + source) == signal.SIGKILL


@pytest.fixture
def alone_in_flight():
    """Let no other test fill the limit of descriptors in flight: the kernel counts all processes of a user together."""
    with open(Path(tempfile.gettempdir()) / f"anyfork-tests-in-flight-{os.getuid()}", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


# Descriptors in flight: as many as the limit allows. Processes of other tests may have many as well for a moment.
IN_FLIGHT = """
template = Template().ready()
pid = template.pid
read, write = os.pipe()
resource.setrlimit(resource.RLIMIT_NOFILE, (400, 400))

def has_room():
    near, far = socket.socketpair()
    with near, far:
        try:
            for _ in range(35):
                socket.send_fds(near, [b"."], [write] * 10, socket.MSG_DONTWAIT)
        except OSError:
            return False
    return True

while not has_room():
    pass
stop(pid)
for _ in range(45):
    template.send(*[Descriptor(write) for _ in range(10)])
"""


@pytest.mark.usefixtures("alone_in_flight")
def test_descriptors_beyond_the_limit_of_those_in_flight_wait_in_the_owner():
    # ETOOMANYREFS is like a full socket, but one that cannot be polled.
    source = """
process = template.start(faulty.count_descriptors)
os.kill(pid, signal.SIGCONT)
say(process.channel.recv(100).decode())
"""
    assert run_program(IN_FLIGHT + source, **UNPRIVILEGED) == "450"


@pytest.mark.usefixtures("alone_in_flight")
def test_a_call_that_finds_no_descriptor_to_queue_sends_nothing_later():
    # What failed is not half done.
    source = """
refused = attempt(lambda: template.send(*[Descriptor(write) for _ in range(400)]))
process = template.start(faulty.count_descriptors)
os.kill(pid, signal.SIGCONT)
say([refused, process.channel.recv(100).decode()])
"""
    assert run_program(ATTEMPT + IN_FLIGHT + source, **UNPRIVILEGED) == ["EMFILE", "450"]


@pytest.mark.usefixtures("alone_in_flight")
def test_a_worker_waits_where_its_owner_does_not_take_its_descriptors():
    # The kernel takes no more, and no result is lost.
    source = """
read, write = os.pipe()
worker = anyfork.Worker(Template(), initializer=faulty.limit_descriptors, initargs=(Descriptor(write), 200))
results = worker.map(faulty.some_descriptors, [30] * 30, window=30)

def count(result):
    for descriptor in result:
        descriptor.close()
    return len(result)

got = [count(next(results))]
made = b""
while len(made) < 8:
    made += os.read(read, 100)
while state(worker.pid) != "S":  # until it cannot go on
    pass
got += map(count, results)
say(got)
worker.close()
"""
    assert run_program(source, **UNPRIVILEGED) == [30] * 30


# --- Sockets ---


def test_no_call_blocks_on_a_stopped_template():
    # What its socket does not take waits in the owner, and arrives in order.
    values = [bytes([number]) * 60_000 for number in range(200)]
    template = Template().ready()
    stop(pid := template.pid)
    for value in values:
        template.send(value)
    process = template.start(faulty.digest_of)
    os.kill(pid, signal.SIGCONT)
    assert process.channel.recv(100) == hashlib.sha256(b"".join(values)).digest()
    process.wait(DEADLINE)
    process.close()


@pytest.mark.parametrize("size", [1, 4096])
def test_tiny_socket_buffers_lose_nothing(size):
    # Frames arrive in pieces.
    values = [bytes([number]) * 60_000 for number in range(20)]
    template = Template().ready()
    template._link._control.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, size)
    for value in values:
        template.send(value)
    process = template.run(faulty.digest_of)
    assert process.channel.recv(100) == hashlib.sha256(b"".join(values)).digest()
    process.wait(DEADLINE)
    process.close()


def test_tiny_socket_buffers_that_cannot_grow_lose_nothing():
    # An ordinary user may not enlarge them beyond the system's limit.
    source = """
import hashlib
template = Template().ready()
sock = template._link._control.sock
sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)
pid = template.pid
stop(pid)
for number in range(300):
    template.send(bytes([number % 256]) * 60_000)
process = template.start(faulty.digest_of)
os.kill(pid, signal.SIGCONT)
expected = b"".join(bytes([number % 256]) * 60_000 for number in range(300))
say(process.channel.recv(100) == hashlib.sha256(expected).digest())
"""
    assert run_program(source, **UNPRIVILEGED) is True


def test_a_queue_that_is_not_delivered_does_not_stop_other_templates():
    # One stopped reader is nobody else's business.
    with Template() as stopped, Template() as other:
        stop(stopped.ready().pid)
        for _ in range(300):
            stopped.send(bytes(60_000))
        assert works(other)
        os.kill(stopped.pid, signal.SIGCONT)


def test_a_handle_that_is_dropped_with_a_full_queue_gets_it_delivered():
    """Configure and forget."""
    read, write = os.pipe()
    template = Template().ready()
    stop(pid := template.pid)
    for _ in range(300):
        template.send(bytes(60_000))
    template.execute("import os; os.write(args[0].fileno(), b'x')", Descriptor(write))
    os.close(write)
    del template
    os.kill(pid, signal.SIGCONT)
    with Template() as other:  # any later call writes on
        while not select.select([read], [], [], 0.01)[0]:
            other.ready()
    assert os.read(read, 1) == b"x"
    os.close(read)


def test_a_template_does_not_wait_for_an_owner_that_reads_no_statuses():
    # Each process's last words go to a socket of its own.
    with Template() as template:
        processes = [template.fork().start(faulty.fail, "x" * 100_000) for _ in range(40)]
        assert works(template)
        for process in processes:
            assert process.wait(DEADLINE).code == 1
            process.close()


def test_a_template_does_not_wait_for_an_owner_that_reads_no_failures():
    # Even if their text is as long as it gets.
    with Template() as template:
        template.preload("x" * 500_000)
        forks = [template.fork() for _ in range(20)]
        with pytest.raises(anyfork.PreloadError):
            template.ready(DEADLINE)
        for fork in forks:
            fork.close()


def test_a_template_does_not_wait_for_an_owner_that_is_stopped():
    # Children that end meanwhile are reaped all the same.
    source = """
template = Template().ready()
processes = [template.fork().run(faulty.end_when_told, 1) for _ in range(10)]
for process in processes:
    process.channel.recv(1)
say([template.pid, [process.pid for process in processes]])
hear()
say([process.wait(5).signal for process in processes])
"""
    with Program(source) as program:
        template, pids = program.read()
        stop(program.pid)
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        for pid in pids:
            while os.path.exists(f"/proc/{pid}"):
                PAUSE.wait(0.002)
        while state(template) != "S":  # it may have something to do yet
            PAUSE.wait(0.002)
        os.kill(program.pid, signal.SIGCONT)
        program.say()
        assert program.read() == [signal.SIGKILL] * 10


@pytest.mark.parametrize("size", [65_000, 1 << 20, (1 << 20) + 1, 1 << 26])
def test_arguments_of_any_size_arrive(size):
    # More than a socket takes at once, more than a frame may hold.
    value = os.urandom(1 << 10) * (size >> 10) + bytes(size & 1023)
    process = Template().run(faulty.digest_of, value)
    assert process.channel.recv(100) == hashlib.sha256(value).digest()
    process.wait(DEADLINE)
    process.close()


def test_large_arguments_are_each_clones_own():
    # Clones share the file that carries them, and must not move each other's position in it.
    value = os.urandom(1 << 21)
    with Template() as template:
        template.send(value)
        processes = [template.fork().start(faulty.digest_of) for _ in range(5)]
        for process in processes:
            assert process.channel.recv(100) == hashlib.sha256(value).digest()
            process.wait(DEADLINE)
            process.close()


def test_too_many_descriptors_for_one_call_are_an_error_at_the_call():
    # The limit is explicit.
    with Template() as template, socket.socket() as one, pytest.raises(anyfork.ArgumentError, match="65535"):
        template.send([Descriptor(one.fileno()) for _ in range(65_536)])
