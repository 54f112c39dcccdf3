"""Programs that gevent or eventlet has patched, before or after they imported anyfork: all works, or says why not."""

import subprocess
import sys
from importlib.util import find_spec
from textwrap import dedent

import pytest
from deadlines import PROGRAM_DEADLINE

PATCH = {
    "gevent": "from gevent import monkey; monkey.patch_all()",
    "eventlet": "import warnings; warnings.simplefilter('ignore'); import eventlet; eventlet.monkey_patch()",
}
# Both put functions of their own in the place of the same modules, and anyfork does the same for both.
LIBRARIES = ["gevent", pytest.param("eventlet", marks=pytest.mark.slow)]
# Another greenlet opens the gate that a process waits for: nothing stops the whole program.
HELPERS = """
import os, tempfile, threading, time
def open_gates():
    while not over:
        while gates:
            open(gates.pop(), "x").close()
        time.sleep(0.001)
gates, over = [], []
directory = tempfile.TemporaryDirectory()
threading.Thread(target=open_gates).start()
def meanwhile(wait):
    gate = os.path.join(directory.name, str(len(os.listdir(directory.name))))
    gates.append(gate)
    return wait(gate)
def passed(gate, value):
    while not os.path.exists(gate):
        time.sleep(0.001)
    return value
def nap(value):
    time.sleep(0.05)
    return value
"""
ORDERS = {
    "patched before the import": "{patch}\nimport anyfork",
    "patched after the import": "import anyfork\n{patch}",
    "patched after the first use": "import anyfork\nanyfork.call(abs, -1)\nfirst = anyfork.Executor(max_workers=1)\n{patch}",
}


def run(library, source, order="patched before the import"):
    """Run a program to its end; return what it printed."""
    if find_spec(library) is None:  # not imported here: eventlet warns of every fork then
        pytest.skip(f"{library} has no wheel for this interpreter")
    program = ORDERS[order].format(patch=PATCH[library]) + HELPERS + dedent(source) + "\nover.append(1)\n"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=PROGRAM_DEADLINE)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("library", LIBRARIES)
def test_all_blocking_faces_work_and_let_other_greenlets_run(library, order):
    source = """
    seen = [meanwhile(lambda gate: anyfork.call(passed, gate, 1))]
    with anyfork.Template().run("builtins:print", 1) as process:
        pass
    seen.append(process.returncode)
    with anyfork.Worker() as worker:
        seen += [meanwhile(lambda gate: worker.call(passed, gate, 2)), worker.call(len, bytes(1 << 20)), len(worker.call(bytes, 1 << 20))]
        both = [threading.Thread(target=lambda: seen.append(worker.call(nap, 3))) for _ in range(2)]
        for one in both:
            one.start()
        for one in both:
            one.join()
        try:
            worker.call(time.sleep, 60, timeout=0.1)
        except anyfork.CallTimeoutError:
            seen.append("late")
    with globals().get("first") or anyfork.Executor(max_workers=2) as executor:
        seen += [meanwhile(lambda gate: executor.submit(passed, gate, 4).result()), list(executor.map(abs, range(-3, 0)))]
    print(seen)
    """
    said = run(library, source, order).splitlines()
    assert said[-1] == "[1, 0, 2, 1048576, 1048576, 3, 3, 'late', 4, [3, 2, 1]]"


@pytest.mark.parametrize("library", LIBRARIES)
def test_contexts_and_remote_templates_work(library):
    source = """
    import sys
    def work(function, answer):
        answer.put(function.get()(1))
    context = anyfork.get_context()
    functions, answers = context.Queue(), context.Queue()
    process = context.Process(target=work, args=(functions, answers))
    process.start()
    functions.put(nap)  # whose definition the process gets from a thread here
    seen = [answers.get(timeout=20)]
    process.join()
    with anyfork.RemoteTemplate([sys.executable]) as template:
        seen.append(anyfork.call(abs, -2, template=template))
    print(seen)
    """
    assert run(library, source) == "[1, 2]"


@pytest.mark.parametrize("library", LIBRARIES)
def test_the_async_face_works(library):
    source = """
    import asyncio
    from anyfork import aio
    async def main():
        async with aio.Pool(aio.Template(), max_workers=1) as pool, aio.Worker() as worker:
            return [await pool.call(abs, -1), await worker.call(abs, -2), await aio.call(abs, -3)]
    print(asyncio.run(main()))
    """
    assert run(library, source) == "[1, 2, 3]"


@pytest.mark.parametrize("library", LIBRARIES)
def test_what_cannot_work_names_the_library(library):
    source = f"""
    over.append(1)
    def why(action, error):
        try:
            action()
        except error as refusal:
            return "{library}" in str(refusal)
    import importlib
    print([
        why(anyfork.fork_here, anyfork.UnsafeTemplateError),
        why(lambda: importlib.import_module("anyfork.early"), anyfork.UnsafeTemplateError),
        why(anyfork.get_context().Pool, anyfork.StartError),
        any("{library}" in text for text in anyfork.audit(open("/dev/null", "w")).obstacles),
    ])
    """
    assert run(library, source) == "[True, True, True, True]"


@pytest.mark.parametrize("prepare", ["preload", "call"])
@pytest.mark.parametrize("library", LIBRARIES)
def test_a_module_that_patches_its_process_may_be_in_a_template(library, prepare, tmp_path):
    if find_spec(library) is None:  # not imported here: eventlet warns of every fork then
        pytest.skip(f"{library} has no wheel for this interpreter")
    module = f"{PATCH[library]}\nimport time\ndef work(value):\n    time.sleep(0.01)\n    return value\n"
    (tmp_path / "patching.py").write_text(module + "def echo(channel):\n    channel.sendall(channel.recv(9))\n")
    source = f"""
    import sys, anyfork
    sys.path.append({str(tmp_path)!r})
    template = anyfork.Template()
    if {prepare == "preload"}:
        template.preload("patching")
    with template.fork().fork().run("patching:echo") as process:
        process.channel.sendall(b"echo")
        seen = [process.channel.recv(9).decode()]
    with anyfork.Worker(template.fork()) as worker:
        seen += [worker.call("patching:work", 1), worker.call(len, bytes(1 << 20)), len(worker.call(bytes, 1 << 20))]
    import functools
    with anyfork.Executor(template, max_workers=1) as executor:
        seen += [executor.submit("patching:work", 2).result(), *executor.map(functools.partial(pow, 2), range(3))]
    print(seen)
    """
    done = subprocess.run(
        [sys.executable, "-c", dedent(source)], capture_output=True, text=True, timeout=PROGRAM_DEADLINE
    )
    assert done.stdout.strip() == "['echo', 1, 1048576, 1048576, 2, 1, 2, 4]", done.stderr
