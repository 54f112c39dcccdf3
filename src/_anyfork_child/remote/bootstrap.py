"""How an interpreter on the other side of a command becomes one of ours, without anything installed there. No I/O here.

A command ends in a Python, which may stand in a text for a shell, and ssh joins its arguments for the shell of the
other machine, so nobody knows how often what we add is read by a shell. Hence BOOT: a program without a blank, a quote
or anything else that means something to a shell. Form feeds part its words, carriage returns its lines, and decorators
call. It evaluates the first, short, line that comes, which evaluates the second (``lines``). That one runs on any
Python since 2.7: it says which one it is, and if that is new enough reads the package, exactly so many bytes, and
checks their digest.

What is said before is noise, and passed over. Answers begin with a word that was drawn for this connection, backwards:
neither an echo of ours nor a greeting can contain it.
"""

from __future__ import annotations

import sys

try:
    from _sha2 import sha256  # the hash alone: hashlib would load OpenSSL into every template
except ImportError:
    from _sha256 import sha256  # before Python 3.12

from ..wire.platform import OLDEST

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

NOISE = 1 << 20  # bytes before the answer
SHELLS = frozenset({"sh", "ash", "bash", "csh", "dash", "fish", "ksh", "mksh", "tcsh", "yash", "zsh"})
SWITCHERS = frozenset({"su", "runuser", "script", "sg", "flock"})  # they have a shell run the value of -c
BOOT = "import\fsys\r@eval\r@sys.stdin.readline\r@sys.getsizeof\rclass\fX:pass"

_SECOND = """
import os, sys
def say(what):
    os.write(1, ("\\n<%s>%s\\n" % ({word!r}[::-1], what)).encode("utf-8", "replace"))
def read(size):
    got = b""
    while len(got) < size:
        part = os.read(0, min(size - len(got), 65536))
        if not part:
            sys.exit("anyfork: the connection ended before the program had come")
        got += part
    return got
say("python %d %d %d %s" % (sys.version_info[:3] + (os.uname()[1],)))
if sys.version_info >= {oldest!r}:
    try:
        from _sha2 import sha256
    except ImportError:
        from _sha256 import sha256
    import zlib
    data = read(int(read(8), 16))
    if sha256(data).hexdigest() == read(64).decode():
        files = eval(zlib.decompress(data))
        space = {{"__name__": "_anyfork_child.remote.importer"}}
        exec(compile(files[space["__name__"]], "<anyfork>/_anyfork_child.remote.importer", "exec"), space)
        space["go"](files)
    say("damaged")
"""


def with_boot(command: Sequence[str]) -> list[str]:
    """A command that ends in a Python, with what makes that run BOOT.

    Where its last part is a text for a shell (``sh -c "... python3"``), it goes into that.
    """
    *before, last = command
    bare = last.rstrip("'\"")
    quotes = last[len(bare) :]
    if before and (quotes or _is_for_shell(before, last)):
        return [*before, f"{bare.rstrip().removesuffix(' -')} -c {BOOT}{quotes}"]
    return [*(before if last == "-" and before else command), "-c", BOOT]


def _is_for_shell(before: Sequence[str], last: str) -> bool:
    """Whether what stands before the last part of a command makes that a text for a shell.

    That is ``-c``, or a group of options such as ``-lc``, of a shell; or an option of ``su`` and what is like it.
    """
    *words, option = before
    if option in ("--command", "--session-command"):
        return True
    if not (option.startswith("-") and option.endswith("c") and option[1:].isalpha()):
        return False
    while len(words) > 1 and (words[-1][:1] in ("-", "+") or words[-2] in ("-o", "+o", "-O", "+O")):
        words.pop()
    names = [word.rpartition("/")[2] for word in words]
    if names and names[-1] in SHELLS:
        return True
    return not SWITCHERS.isdisjoint(names) or (option == "-c" and " " in last.strip())


def lines(word: str) -> bytes:
    """Return what the interpreter is sent first; its answers begin with the word."""
    source = _SECOND.format(word=word, oldest=OLDEST)
    return f"eval(sys.stdin.readline())\neval(compile({source!r},'<anyfork>','exec'))\n".encode()


def package(data: bytes) -> bytes:
    """Return what it is sent then: the compressed files with their size and digest."""
    return b"%08x" % len(data) + data + digest(data).encode()


def digest(data: bytes) -> str:
    """Of the files, to be sure that they are what was sent."""
    return str(sha256(data).hexdigest())


class Answers:
    """Finds answers in what comes from the other side, however it is cut."""

    def __init__(self, word: str) -> None:
        self._mark = b"\n<%s>" % word[::-1].encode()
        self.rest = b""  # what stands behind the last one

    def take(self, data: bytes) -> list[str] | None:
        """Take bytes; return the words of the next answer, if it is complete. Raises ValueError for endless noise."""
        self.rest += data
        _, mark, behind = self.rest.partition(self._mark)
        if mark and b"\n" in behind:
            answer, _, self.rest = behind.partition(b"\n")
            return answer.decode("utf-8", "replace").split(" ")
        if len(self.rest) > NOISE:
            raise ValueError(f"more than {NOISE} bytes came that are no answer")
        return None


def version_text(version: Sequence[int] = sys.version_info[:3]) -> str:
    """3.11.2 for (3, 11, 2)."""
    return ".".join(map(str, version))
