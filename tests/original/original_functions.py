"""What the processes of these tests run. They import this module by its name, so it imports only what they need."""

from __future__ import annotations

import fcntl
import json
import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
    from io import FileIO, TextIOWrapper
    from typing import BinaryIO

generation = 0  # what a template's code has changed, for those that are forked from it


def receive_all(channel: socket.socket) -> bytes:
    """Return everything up to the end of the stream."""
    with channel.makefile("rb") as file:
        return file.read()


def answer(channel: socket.socket, value: object) -> None:
    """Say something to the owner, and that this was all."""
    channel.sendall(json.dumps(value).encode())


def shout(channel: socket.socket) -> None:
    """Answer each line in capitals, as a worker, until the owner is done."""
    with channel.makefile("rw", encoding="utf-8") as lines:
        for line in lines:
            lines.write(line.upper())
            lines.flush()


def tell_pids(channel: socket.socket) -> None:
    """Say which process this is, and whose child; then end with the channel."""
    channel.sendall(f"{os.getpid()} {os.getppid()}".encode())
    receive_all(channel)


def tell_arguments(channel: socket.socket, *arguments: object) -> None:
    """Say what has come, descriptors by what they are."""
    told = [os.fstat(a.fileno()).st_ino if hasattr(a, "fileno") else a for a in arguments]
    answer(channel, {"generation": generation, "arguments": told})


def set_generation(number: int) -> None:
    """Set something that the forks of this template will see. Runs in a template."""
    global generation
    generation = number


def tell_place(channel: socket.socket) -> None:
    """Say which directory and which environment this process has."""
    answer(channel, [os.getcwd(), os.environ.get("ANYFORK_TEST_PLACE")])


def digest(channel: socket.socket, data: bytes) -> None:
    """Say how many bytes have come, and what they add up to."""
    import hashlib

    answer(channel, [len(data), hashlib.sha256(data).hexdigest()])


def echo_exactly(channel: socket.socket, count: int) -> None:
    """Read so many bytes, send them back, and then whatever was behind them in one piece."""
    received = bytearray()
    while len(received) < count:
        received += channel.recv(count - len(received))
    channel.sendall(bytes(received))
    channel.sendall(b"|" + receive_all(channel))


def answer_once(channel: socket.socket) -> None:
    """Send back what comes first, and end."""
    channel.sendall(channel.recv(100))


def speak_first(channel: socket.socket) -> None:
    """Send bytes that a reader of frames would take for frames of its own."""
    channel.sendall(bytes(range(256)) * 4)


def until_end(channel: socket.socket) -> None:
    """Live as long as the owner's end of the channel is open."""
    receive_all(channel)


def forever(channel: socket.socket) -> None:
    """Live until a signal comes, whatever the owner does."""
    import signal

    channel.sendall(b"!")
    while True:
        signal.pause()


def do_nothing(channel: socket.socket) -> None:
    """Return at once."""


def fail(_channel: socket.socket) -> None:
    """Raise an exception that nobody catches."""
    raise ValueError("this function fails on purpose")


def note(_channel: socket.socket, file: BinaryIO | FileIO, text: bytes) -> None:
    """Write on a pipe that the function has been entered."""
    os.write(file.fileno(), text)


def note_end(channel: socket.socket, file: BinaryIO | FileIO) -> None:
    """Write on a pipe what came over the channel, which is nothing when nobody holds it."""
    os.write(file.fileno(), b"read %r" % receive_all(channel))


def tell_flags(channel: socket.socket, *files: BinaryIO | socket.socket) -> None:
    """Say for each descriptor whether it is closed by exec, and whether it blocks."""
    told = []
    for file in (channel, *files):
        closes = bool(fcntl.fcntl(file, fcntl.F_GETFD) & fcntl.FD_CLOEXEC)
        told.append([closes, not fcntl.fcntl(file, fcntl.F_GETFL) & os.O_NONBLOCK])
    answer(channel, told)


class PidOnArrival:
    """A value that becomes, where it is decoded, the pid of the process that decodes it."""

    def __reduce__(self) -> tuple[object, ...]:
        return os.getpid, ()


def tell_value(channel: socket.socket, value: object) -> None:
    """Say what a value has become here, and who this is."""
    answer(channel, [value, os.getpid()])


def serve_http(channel: socket.socket, listener: socket.socket, number: int) -> None:
    """Accept on the socket that all siblings accept on, one connection after the other, as a web server."""
    from http.server import BaseHTTPRequestHandler

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"  # connections stay open for further requests

        def do_POST(self) -> None:
            received = self.rfile.read(int(self.headers["Content-Length"]))
            said = {"number": number, "pid": os.getpid(), "path": self.path, "received": received.decode()}
            body = json.dumps(said).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    channel.close()  # not used here
    while True:
        connection, address = listener.accept()
        with connection:
            Handler(connection, address, None)  # type: ignore[arg-type]  # it asks nothing of its server


def relay_line(
    channel: socket.socket, first: str, second: str, journal: TextIOWrapper, secret: BinaryIO, third: str
) -> None:
    """Write one line from the owner, and all that was sent here, into the journal, as a pool's worker."""
    with channel.makefile("r", encoding="utf-8") as lines:
        line = lines.readline().strip()
    key = os.pread(secret.fileno(), 100, 0).decode()
    journal.write(f"{line} {first} {second} {key} {third}\n")


def finish_two(
    channel: socket.socket,
    first: socket.socket,
    first_pipe: BinaryIO,
    second: socket.socket,
    second_pipe: BinaryIO,
    code: str,
) -> None:
    """Work on with two templates whose handles another process has given up."""
    import anyfork

    one, other = anyfork.Template.from_socket(first), anyfork.Template.from_socket(second)
    one.execute(code, first_pipe).ready()
    other.send(second_pipe).fork().run("original_functions:note", b"174").wait()
    channel.sendall(f"{one.pid} {other.ready().pid}".encode())
    receive_all(channel)


def tell_last(channel: socket.socket, *arguments: object) -> None:
    """Say what descriptor has come as the last of many arguments."""
    answer(channel, os.fstat(arguments[-1].fileno()).st_ino)  # type: ignore[attr-defined]  # a file


def forever_whatever_comes(channel: socket.socket) -> None:
    """Live until SIGKILL comes."""
    import signal

    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    forever(channel)
