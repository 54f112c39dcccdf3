"""Functions that the processes of test_values.py run. They import little: each process imports them anew."""

from __future__ import annotations

import child_side


def keep_size(value):
    import __main__

    __main__.size2 = len(value)


def serve_one(channel, server):
    with server.accept()[0] as client:
        client.sendall(b"served")


def greet(channel, sock):
    with sock:
        sock.sendall(b"hello")


def use_job(channel, job):
    job.parts["more"][0][0].sendall(job.parts["file"].read())


def drop_and_stay(channel, sock):
    sock.close()
    child_side.until_closed(channel)


class Job:
    """A class of a module, with a file and a socket inside."""

    def __init__(self, file, sock):
        self.parts = {"file": file, "more": [(sock,)]}
