"""A Redis server for one test. It runs in the current directory, and forgets nothing when it is killed."""

from __future__ import annotations

import os
import subprocess

from conftest import eventually
from redis import Redis
from redis.exceptions import RedisError


class Broker:
    """A Redis server, which can be stopped and started again."""

    def __init__(self):
        self.path = os.path.abspath("redis.sock")
        self._command = ["redis-server", "--port", "0", "--unixsocket", self.path, "--loglevel", "warning"]
        self._command += ["--save", "", "--appendonly", "yes", "--appendfsync", "always"]

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self._server.terminate()
        self._server.wait()

    def start(self):
        """Start the server, and wait until it answers."""
        self._server = subprocess.Popen(self._command)
        with self.connection() as connection:
            eventually(lambda: answers(connection))

    def kill(self):
        """Kill the server."""
        self._server.kill()
        self._server.wait()

    def connection(self):
        """Return a new connection to the server."""
        return Redis(unix_socket_path=self.path)


def answers(connection):
    """Return whether a server is there, and has read its file."""
    try:
        return connection.ping()
    except RedisError:
        return False
