"""A template is prepared here and handed to another process, which goes on with it."""

import os
import socket

import anyfork


def manage(channel: socket.socket, handle: socket.socket) -> None:
    """Runs in the manager: takes the template over and makes workers from it."""
    with channel, anyfork.Template.from_socket(handle) as template:
        for number in range(3):
            with template.fork().run(work, number) as worker, worker.channel.makefile() as answer:
                channel.sendall(f"{answer.read()}\n".encode())


def work(channel: socket.socket, secret: str, number: int) -> None:
    """Runs in each worker; ``secret`` was sent by the first owner."""
    with channel:
        channel.sendall(f"worker {number} knows {secret!r}".encode())


def main() -> None:
    template = anyfork.Template().preload("json").send("what the first owner sent")
    with template.detach() as handle:
        manager = anyfork.Template().run(manage, handle)
    with manager, manager.channel.makefile() as lines:
        print(f"the owner is process {os.getpid()}, the manager is process {manager.pid}")
        print(lines.read(), end="")


if __name__ == "__main__":
    main()
