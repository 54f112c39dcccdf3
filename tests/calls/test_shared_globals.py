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
    """In every face; all in one program."""
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


def _outcome(body):
    ended = run_python("-c", f"{HEAD}\n{body}\nprint(json.dumps(seen), flush=True)\nos._exit(0)")
    assert ended.returncode == 0, ended.stderr
    return json.loads(ended.stdout.splitlines()[-1])
