"""What functions of ``__main__`` assign by a ``global`` statement, other functions of it see in that process."""

from __future__ import annotations

import json
from textwrap import dedent

from owner_side import run_python

HEAD = """
import json, os, sys, threading
from concurrent.futures import ProcessPoolExecutor
import anyio
import anyfork
from anyfork import Executor, RemoteTemplate, Template, Worker, aio

value, other = None, "as sent"

def assign(given, *_):
    global value, unknown
    value = unknown = given

def read(*_):
    return [value, unknown, other]

filled, listed = {}, []

def fill(given):
    filled[given] = 1
    note(given)

def note(given):
    listed.append(given)

def read_filled(*_):
    filled["calls"] = filled.get("calls", 0) + 1
    return [filled, listed]

async def fill_pool():
    async with aio.Pool(max_workers=1, initializer=fill, initargs=("a",)) as pool:
        return [await pool.call(read_filled), await pool.call(read_filled)]

async def fill_worker():
    async with aio.Worker(initializer=fill, initargs=("a",)) as worker:
        return [await worker.call(read_filled), await worker.call(read_filled)]

filling = {"initializer": fill, "initargs": ("a",)}

class Model:
    weights = None

    @classmethod
    def load(cls, given):
        global value, unknown
        value = unknown = given

    def read(self):
        return [value, unknown, other]

async def call_in_pool(**options):
    async with aio.Pool(max_workers=1, **options) as pool:
        return await pool.call(read)

async def call_in_worker(**options):
    async with aio.Worker(**options) as worker:
        return await worker.call(read)

options = {"initializer": assign, "initargs": (5,)}
seen = []
"""
FACES = {
    "fork_here": "with Worker(anyfork.fork_here(), **options) as worker: seen = worker.call(read)",
    "Worker": "with Worker(**options) as worker: seen = worker.call(read)",
    "Worker, json": "with Worker(serializer='json', **options) as worker: seen = worker.call(read)",
    "Worker.map": "with Worker(**options) as worker: [seen] = worker.map(read, [1])",
    "calls": "with Worker() as worker: worker.call(assign, 5); seen = worker.call(read)",
    "methods": "with Worker(initializer=Model.load, initargs=(5,)) as worker: seen = worker.call(Model().read)",
    "Executor": "with Executor(max_workers=1, **options) as executor: seen = executor.submit(read).result()",
    "Executor.map": "with Executor(max_workers=1, **options) as executor: [seen] = executor.map(read, [1])",
    "prepare": "with Worker(Template().prepare(assign, 5)) as worker: seen = worker.call(read)",
    "context, Pool": "with anyfork.get_context().Pool(1, assign, (5,)) as pool: seen = pool.apply(read)",
    "context, executor": (
        "with ProcessPoolExecutor(1, anyfork.get_context(), assign, (5,)) as pool: seen = pool.submit(read).result()"
    ),
    "aio.Pool": "seen = anyio.run(lambda: call_in_pool(**options))",
    "aio.Worker": "seen = anyio.run(lambda: call_in_worker(**options), backend='trio')",
    "RemoteTemplate": "with Worker(RemoteTemplate([sys.executable]).fork(), **options) as worker: seen = worker.call(read)",
}


def test_a_job_sees_what_an_initializer_has_assigned():
    # In every face; all in one program.
    body = f"""
for name, face in {FACES!r}.items():
    exec(face)
    result[name] = seen
seen = result
"""
    assert _outcome(f"result = {{}}{body}") == {name: [5, 5, "as sent"] for name in FACES}


def test_what_was_assigned_last_counts_and_else_what_the_owner_has_sent_last():
    body = """
    with Worker() as worker:
        worker.call(assign, 5)
        first = worker.call(read)
        worker.call(assign, 6)
        value, other = "not seen", "sent again"
        second = worker.call(read)
    seen = [first, second]
    """
    assert _outcome(dedent(body)) == [[5, 5, "as sent"], [6, 6, "sent again"]]


FILLING = {
    "fork_here": "with Worker(anyfork.fork_here(), **filling) as worker: seen = twice(worker.call)",
    "Worker": "with Worker(**filling) as worker: seen = twice(worker.call)",
    "partial": "with Worker(initializer=partial(fill, 'a')) as worker: seen = twice(worker.call)",
    "Worker.map": "with Worker(**filling) as worker: seen = [*worker.map(read_filled, [1, 2])]",
    "Executor": "with Executor(max_workers=1, **filling) as executor: seen = twice(executor.submit)",
    "Executor.map": "with Executor(max_workers=1, **filling) as executor: seen = [*executor.map(read_filled, [1, 2])]",
    "context, Pool": "with anyfork.get_context().Pool(1, fill, ('a',)) as pool: seen = twice(pool.apply)",
    "context, executor": (
        "with ProcessPoolExecutor(1, anyfork.get_context(), fill, ('a',)) as pool: seen = twice(pool.submit)"
    ),
    "aio.Pool": "seen = anyio.run(fill_pool)",
    "aio.Worker": "seen = anyio.run(fill_worker, backend='trio')",
    "RemoteTemplate": (
        "with Worker(RemoteTemplate([sys.executable]).fork(), **filling) as worker: seen = twice(worker.call)"
    ),
}


def test_jobs_have_the_very_objects_that_an_initializer_has_changed_in_place():
    # In every face, as in a ProcessPoolExecutor; all in one program.
    body = f"""
from functools import partial

def twice(call):
    answers = [call(read_filled), call(read_filled)]
    return [answer.result() if hasattr(answer, "result") else answer for answer in answers]

for name, face in {FILLING!r}.items():
    exec(face)
    result[name] = seen
seen = result
"""
    expected = [[{"a": 1, "calls": number}, ["a"]] for number in (1, 2)]
    assert _outcome(f"result = {{}}{body}") == dict.fromkeys(FILLING, expected)


def _outcome(body):
    ended = run_python("-c", f"{HEAD}\n{body}\nprint(json.dumps(seen), flush=True)\nos._exit(0)")
    assert ended.returncode == 0, ended.stderr
    return json.loads(ended.stdout.splitlines()[-1])
