"""Programs with an Executor, as real scripts: they end promptly, quietly and completely, whatever they have open."""

from __future__ import annotations

import os
import subprocess
import sys
from textwrap import dedent

import pytest
from conftest import eventually, owned
from deadlines import DEADLINE

HEAD = """
import sys, threading, time, atexit, asyncio, os, operator
from concurrent import futures
import anyfork

print("main runs", flush=True)  # once, and in this process alone

def double(x):
    return 2 * x

def late(x):
    time.sleep(0.2)
    print("done", x, flush=True)
"""
# What a program has open when its main thread is through, and what it prints before it ends.
STATES = {
    "nothing submitted": ("kept = anyfork.Executor()", []),
    "an idle one": ("kept = anyfork.Executor(2); print(list(kept.map(double, range(3))))", ["[0, 2, 4]"]),
    "an idle one in a cycle": (
        "kept = [anyfork.Executor(2)]; kept.append(kept); kept[0].submit(double, 1).result()",
        [],
    ),
    "a job that runs": ("kept = anyfork.Executor(1); kept.submit(late, 1)", ["done 1"]),
    "jobs that wait": (
        "kept = anyfork.Executor(1); [kept.submit(late, n) for n in range(3)]",
        ["done 0", "done 1", "done 2"],
    ),
    "a map that nobody reads": ("kept = anyfork.Executor(1).map(late, range(3))", ["done 0", "done 1", "done 2"]),
    "shut down without waiting": (
        "kept = anyfork.Executor(1); kept.submit(late, 1); kept.shutdown(wait=False)",
        ["done 1"],
    ),
    "dropped": ("anyfork.Executor(1).submit(late, 1)", ["done 1"]),
    "killed": ("kept = anyfork.Executor(1); kept.submit(time.sleep, 60); kept.kill()", []),
    "a thread that waits for a result": (
        "kept = anyfork.Executor(1); job = kept.submit(double, 4)\nthreading.Thread(target=lambda: print('got', job.result())).start()",
        ["got 8"],
    ),
    "a loop that was left": (
        """
kept = anyfork.Executor(1)
async def main():
    loop = asyncio.get_running_loop()
    loop.slow_callback_duration = 60  # in development mode, a loop tells what took long
    return await loop.run_in_executor(kept, double, 4)
print(asyncio.run(main()))""",
        ["8"],
    ),
    "an exception": ("kept = anyfork.Executor(1); kept.submit(late, 1); sys.exit(3)", ["done 1"]),
    "many at once": (
        "kept = [anyfork.Executor(1) for _ in range(4)]; print([e.submit(double, 1).result() for e in kept])",
        ["[2, 2, 2, 2]"],
    ),
}


def run(tmp_path, body, *flags, head=HEAD):
    """Run a script: its exit code, the lines that it prints, what it writes to standard error."""
    script = tmp_path / "script.py"
    script.write_text(
        dedent(head)
        + dedent(body)
        .replace("Executor(1)", "Executor(max_workers=1)")
        .replace("Executor(2)", "Executor(max_workers=2)")
    )
    process = subprocess.Popen(
        [sys.executable, "-W", "error", "-X", "dev", *flags, str(script)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
    )
    try:
        out, err = process.communicate(timeout=DEADLINE)
    finally:
        process.kill()
    eventually(lambda: not owned(process.pid), "processes are left")
    return process.returncode, out.splitlines(), err


@pytest.mark.untraced
@pytest.mark.parametrize("state", STATES)
def test_a_program_may_end_with(state, tmp_path):
    body, said = STATES[state]
    code, lines, err = run(tmp_path, body)
    assert err == ""
    assert lines == ["main runs", *said]
    assert code == (3 if "exit(3)" in body else 0)


def test_nothing_can_be_submitted_when_the_program_ends(tmp_path):
    _, lines, err = run(
        tmp_path,
        """
        kept = anyfork.Executor(1)

        @atexit.register
        def submit():
            try:
                kept.submit(double, 1)
            except RuntimeError as error:
                print(error)

        kept.submit(double, 1).result()
        """,
    )
    assert err == ""
    assert lines == ["main runs", "cannot schedule new futures after shutdown"]


def test_what_main_defines_goes_to_workers_as_it_is(tmp_path):
    code, lines, err = run(
        tmp_path,
        """
        from dataclasses import dataclass

        FACTOR = 3

        @dataclass
        class Point:
            x: int

            def scaled(self):
                return Point(self.x * FACTOR)

        class TooMuchError(Exception):
            pass

        def scale(point):
            if point.x > 2:
                raise TooMuchError(point.x)
            return point.scaled()

        with anyfork.Executor(2) as executor:
            print(executor.submit(scale, Point(1)).result())
            print(list(executor.map(scale, map(Point, range(3)))))
            print(list(executor.map(lambda x: x * FACTOR, range(5), chunksize=2)))
            try:
                executor.submit(scale, Point(3)).result()
            except TooMuchError as error:
                print("too much:", error)
            print(executor.submit(Point(2).scaled).result())
        """,
    )
    assert (code, err) == (0, "")
    assert lines == [
        "main runs",
        "Point(x=3)",
        "[Point(x=0), Point(x=3), Point(x=6)]",
        "[0, 3, 6, 9, 12]",
        "too much: 3",
        "Point(x=6)",
    ]


def test_it_works_where_there_is_no_file(tmp_path):
    # As in a notebook, or an interpreter that is talked to: main is no module that could be found again.
    said = subprocess.run(
        [sys.executable, "-i", "-W", "error"],
        input="import anyfork\ndef f(x):\n    return x + 1\n\nwith anyfork.Executor(max_workers=2) as e:\n    print(list(e.map(f, range(5))))\n\n",
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        cwd=tmp_path,
    )
    assert said.stdout == "[1, 2, 3, 4, 5]\n"
    assert "Traceback" not in said.stderr


def test_an_interrupt_ends_the_program_and_its_workers(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        dedent(HEAD)
        + dedent(
            """
            with anyfork.Executor(max_workers=2) as executor:
                try:
                    executor.submit(double, 1).result()
                    print("ready", flush=True)
                    while True:
                        list(executor.map(operator.neg, range(100)))
                        [executor.submit(operator.neg, n) for n in range(100)]
                except KeyboardInterrupt:
                    print("interrupted", flush=True)
            print("through", flush=True)
            """
        )
    )
    process = subprocess.Popen(
        [sys.executable, str(script)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path
    )
    with process:
        assert process.stdout.readline() == "main runs\n"
        assert process.stdout.readline() == "ready\n"
        os.kill(process.pid, 2)
        out, err = process.communicate(timeout=DEADLINE)
    assert out.splitlines() == ["interrupted", "through"]
    assert err == ""
    eventually(lambda: not owned(process.pid), "processes are left")


@pytest.mark.untraced
def test_interrupts_at_any_moment_leave_an_executor_that_works(tmp_path):
    code, lines, err = run(
        tmp_path,
        """
        import random, signal

        executor = anyfork.Executor(2)
        executor.submit(double, 1).result()
        hits, armed, begin = 0, False, threading.Event()

        def handle(*_):
            # Raises, but not once more before the loop below is in its block again.
            global armed
            if armed:
                armed = False
                raise KeyboardInterrupt

        signal.signal(signal.SIGINT, handle)

        def interrupt():
            begin.wait()
            for _ in range(100):
                time.sleep(random.uniform(0, 0.01))
                os.kill(os.getpid(), signal.SIGINT)

        def use():
            jobs = [executor.submit(operator.neg, n) for n in range(500)]
            assert list(executor.map(operator.neg, range(200))) == [-n for n in range(200)]
            for n, future in enumerate(jobs):
                try:
                    assert future.result(20) == -n
                except anyfork.WorkerDiedError:  # it may have been begun when the last interrupt came
                    pass

        thread = threading.Thread(target=interrupt)
        thread.start()
        while True:
            try:
                armed = True
                begin.set()
                while thread.is_alive():
                    try:
                        use()
                    except anyfork.WorkerDiedError:
                        pass
                break
            except KeyboardInterrupt:
                hits += 1
        print("interrupted" if hits else "never interrupted")
        print([future.result(20) for future in [executor.submit(operator.neg, n) for n in range(100)]] == [-n for n in range(100)])
        print(list(executor.map(operator.neg, range(100))) == [-n for n in range(100)])
        executor.shutdown()
        """,
    )
    assert (code, lines) == (0, ["main runs", "interrupted", "True", "True"]), err
