"""Ten processes from one template, all accepting on the same listening socket, answer HTTP requests."""

import os
import socket
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler

import anyfork

SERVERS = 10
REQUESTS = 500
CLIENTS = 16


class Answer(BaseHTTPRequestHandler):
    """Answers every request with the pid of the process it is in."""

    def do_GET(self) -> None:
        body = str(os.getpid()).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """No line per request."""


def serve(_channel: socket.socket, listener: socket.socket) -> None:
    """Runs in each server process."""
    while True:
        connection, address = listener.accept()
        with connection:
            Answer(connection, address, None)  # type: ignore[arg-type]  # it needs no server object


def ask(address: tuple[str, int]) -> int:
    """Make one request; return the pid that answered."""
    client = HTTPConnection(*address, timeout=10)
    try:
        client.request("GET", "/")
        return int(client.getresponse().read())
    finally:
        client.close()


def main() -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=128) as listener:
        address = listener.getsockname()
        with anyfork.Template().preload("http.server").send(listener) as template:
            servers = [template.fork().run(serve) for _ in range(SERVERS)]
    # The listening socket is open in the ten processes only.
    with ThreadPoolExecutor(CLIENTS) as clients:
        answers = Counter(clients.map(ask, [address] * REQUESTS))
    for server in servers:
        assert server.pid is not None
        print(f"process {server.pid} answered {answers[server.pid]:3} requests")
        server.terminate()
    for server in servers:
        server.wait()
    print(f"{answers.total()} of {REQUESTS} requests were answered")


if __name__ == "__main__":
    main()
