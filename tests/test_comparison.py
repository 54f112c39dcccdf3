"""The table of README.md that compares anyfork with multiprocessing: what it says of the others, on this interpreter."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest
from deadlines import PROGRAM_DEADLINE
from owner_side import output_of

pytestmark = pytest.mark.slow
METHODS = ("forkserver", "spawn", "fork")
PREAMBLE = """\
import anyfork, multiprocessing, os, pickle, signal, sys, warnings
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
warnings.simplefilter("ignore")
method = sys.argv[1]
context = anyfork.get_context() if method == "anyfork" else multiprocessing.get_context(method)
"""


def said_by(tmp_path, method, program):
    script = tmp_path / "program.py"
    script.write_text(PREAMBLE + program)
    return output_of(script, method)


DYING_WORKER = """
if __name__ == "__main__":
    with (anyfork.Executor(max_workers=1) if method == "anyfork" else ProcessPoolExecutor(1, context)) as executor:
        assert isinstance(executor.submit(os._exit, 7).exception(), BrokenProcessPool)
        try:
            print(executor.submit(abs, -1).result())
        except BrokenProcessPool:
            print("broken")
"""


@pytest.mark.parametrize(
    ("method", "said"), [("anyfork", "1\n"), *((method, "broken\n") for method in METHODS)], ids=lambda one: one.strip()
)
def test_a_dead_worker_breaks_every_pool_but_ours(tmp_path, method, said):
    assert said_by(tmp_path, method, DYING_WORKER) == said


LAMBDA = """
if __name__ == "__main__":
    reading, writing = context.Pipe(duplex=False)
    try:
        process = context.Process(target=lambda: writing.send("ran"))
        process.start()
    except (pickle.PicklingError, AttributeError):
        print("refused")
    else:
        print(reading.recv())
        process.join()
"""


@pytest.mark.parametrize(
    ("method", "said"), [("anyfork", "ran"), ("forkserver", "refused"), ("spawn", "refused"), ("fork", "ran")]
)
def test_lambdas_can_be_what_a_process_of_ours_or_of_fork_runs(tmp_path, method, said):
    assert said_by(tmp_path, method, LAMBDA) == f"{said}\n"


TOP_LEVEL = """
os.write(1, b"script\\n")

def nothing():
    pass

if __name__ == "__main__":
    process = context.Process(target=nothing)
    process.start()
    process.join()
"""


@pytest.mark.parametrize(("method", "again"), [("anyfork", 0), ("forkserver", 1), ("spawn", 1), ("fork", 0)])
def test_forkserver_and_spawn_run_the_script_again(tmp_path, method, again):
    runs = said_by(tmp_path, method, TOP_LEVEL).count("script\n")
    assert runs > 1 if again else runs == 1


KILLED_OWNER = """
def outlive(theirs, ours):
    ours.close()
    os.write(1, b"waits\\n")
    try:
        theirs.recv()                                   # until the program has ended
    except EOFError:
        os.write(1, b"outlived it\\n")

if __name__ == "__main__":
    theirs, ours = context.Pipe(duplex=False)
    context.Process(target=outlive, args=(theirs, ours)).start()
    signal.pause()
"""


@pytest.mark.parametrize("method", METHODS)
def test_processes_of_multiprocessing_outlive_a_killed_program(tmp_path, method):
    """Kill the program; tests/faults/test_owner_death.py shows what becomes of our processes."""
    script = tmp_path / "program.py"
    script.write_text(PREAMBLE + KILLED_OWNER)
    with subprocess.Popen([sys.executable, script, method], stdout=subprocess.PIPE, text=True) as program:
        assert program.stdout.readline() == "waits\n"
        program.send_signal(signal.SIGKILL)
        said, _ = program.communicate(timeout=PROGRAM_DEADLINE)
    assert said == "outlived it\n"
