"""One process, made from a template, that takes requests on its channel and answers them."""

import socket

import anyfork


def worker(channel: socket.socket, greeting: str) -> None:
    """Runs in the new process, until the other end of the channel is closed."""
    with channel, channel.makefile("rw") as lines:
        for line in lines:
            print(f"{greeting}, {line.strip()}!", file=lines, flush=True)


def main() -> None:
    process = anyfork.Template().send("Hello").run(worker)
    with process.channel.makefile("rw") as lines:
        for name in ("Ada", "Grace"):
            print(name, file=lines, flush=True)
            print(lines.readline().strip())
    process.channel.close()  # the worker sees the end of its requests, and ends
    print("the worker", process.wait())


if __name__ == "__main__":
    main()
