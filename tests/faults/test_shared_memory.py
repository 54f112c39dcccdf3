"""Shared memory that a process has only opened stays as long as its owner wants: there is one tracker for all of them."""

import pytest
from programs import Program

USES = """
from multiprocessing.shared_memory import SharedMemory
import asyncio
from anyfork import aio

def add(name):
    there = SharedMemory(name=name) if isinstance(name, str) else name
    there.buf[0] += 1
    value = there.buf[0]
    there.close()
    return value

def run(channel, name):
    add(name)

def make(name):
    SharedMemory(name, create=True, size=10).close()

def unlink(name):
    there = SharedMemory(name=name)
    there.close()
    there.unlink()

class Job:
    def __init__(self, name):
        self.name = name
    def __call__(self, channel):
        add(self.name)

async def in_pool(name):
    async with aio.Pool(aio.Template(), max_workers=1) as pool:
        await pool.call(add, name)

def by_worker(name):
    with anyfork.Worker() as worker:
        worker.call(add, name)

def by_executor(name):
    with anyfork.Executor(max_workers=1) as executor:
        executor.submit(add, name).result()

def by_process(template):
    def use(name):
        with template().run(run, name):
            pass
    return use

FACES = {
    "call": lambda name: anyfork.call(add, name),
    "Worker": by_worker,
    "Executor": by_executor,
    "Pool": lambda name: asyncio.run(in_pool(name)),
    "process": by_process(Template),
    "fork of a fork": by_process(lambda: Template().fork().fork()),
    "new_exec": by_process(Template.new_exec),
}

def there(name):
    return os.path.exists("/dev/shm/" + name)

def tracker():
    from multiprocessing import resource_tracker
    return resource_tracker._resource_tracker._fd
"""
QUIET = """
say(True)
hear()
"""


@pytest.mark.parametrize("by", ["name", "object"])
def test_what_a_process_opens_stays_when_it_ends(by):
    source = f"""
memory = SharedMemory(create=True, size=10)
for use in FACES.values():
    use(memory.name if {by!r} == "name" else memory)
say([memory.buf[0], len(FACES), there(memory.name)])
memory.close()
memory.unlink()
"""
    with Program(USES + source) as program:
        count, faces, there = program.read()
        assert (count, there) == (faces, True)
        assert program.process.wait(20) == 0
        assert program.errors() == ""


def test_what_a_process_makes_is_its_owners_to_remove():
    source = """
memory = SharedMemory(create=True, size=10)
name = memory.name + "x"
anyfork.call(make, name)
made = there(name)
anyfork.call(unlink, name)
say([made, there(name)])
memory.close()
memory.unlink()
"""
    with Program(USES + source) as program:
        assert program.read() == [True, False]
        assert program.process.wait(20) == 0
        assert program.errors() == ""


def test_what_a_process_opens_stays_where_it_was_started_before_there_was_anything_to_track():
    source = """
executor, worker = anyfork.Executor(max_workers=1), anyfork.Worker().ready()
executor.submit(abs, -1).result()
process = Template().run(lambda channel: run(channel, channel.recv(99).decode()))
before = tracker()
memory = SharedMemory(create=True, size=10)
process.channel.sendall(memory.name.encode())
process.wait()
process.close()
executor.submit(add, memory.name).result()
executor.shutdown()
worker.call(add, memory.name)
worker.close()
say([before, memory.buf[0], there(memory.name)])
memory.close()
memory.unlink()
"""
    with Program(USES + source) as program:
        assert program.read() == [None, 3, True]
        assert program.process.wait(20) == 0
        assert program.errors() == ""


def test_no_tracker_is_started_for_processes():
    source = """
anyfork.call(abs, -1)
say([tracker(), anyfork.call(lambda: "multiprocessing" in sys.modules)])
"""
    with Program(USES + source) as program:
        assert program.read() == [None, False]


def test_a_program_ends_while_a_process_still_has_its_tracker():
    source = """
from multiprocessing import resource_tracker
resource_tracker.ensure_running()
def until_closed(channel):
    channel.recv(1)
process = Template().run(until_closed)
say(tracker() is not None)
"""
    with Program(USES + source) as program:
        assert program.read() is True
        assert program.process.wait(20) == 0
        assert program.errors() == ""
