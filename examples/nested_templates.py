"""Templates of templates: what all workers need once at the root, what one kind needs below it."""

import json
import socket
import sys
import tempfile
from pathlib import Path
from typing import TextIO

import anyfork


def work(channel: socket.socket, log: TextIO, kind: str, number: int) -> None:
    """Runs in each worker: reports what it is, and what its templates have loaded before it."""
    with channel, log:
        print(f"{kind} worker {number} was here", file=log)
        loaded = sorted({"csv", "json", "symtable"} & set(sys.modules))
        channel.sendall(json.dumps([kind, number, loaded]).encode())


def main() -> None:
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory, "log")
        # What is sent before a fork, strings and files alike, is in the queue of every fork.
        with path.open("a") as log:
            root = anyfork.Template().preload("json").send(log)
        kinds = {
            "table": root.fork().preload("csv").send("table"),
            "code": root.fork().preload("symtable").send("code"),
        }
        workers = [kinds[kind].fork().send(number).run(work) for kind in ("table", "code") for number in (1, 2)]
        for worker in workers:
            with worker, worker.channel.makefile() as answer:
                kind, number, loaded = json.load(answer)
                print(f"{kind} worker {number} found {', '.join(loaded)}")
        for template in (*kinds.values(), root):
            template.close()
        print(f"the log has {len(path.read_text().splitlines())} lines")


if __name__ == "__main__":
    main()
