"""Bootstrap of a remote interpreter: the bytes that turn a bare Python into the remote relay. Runs in the local relay.

Nothing needs to be installed on the other machine. A command ends in a Python, possibly inside a text for a shell, and
ssh joins its arguments for the shell of the other machine, so the number of shells that read our addition is unknown.
Hence BOOT: a program without a blank, a quote or any other character that is special to a shell. Form feeds separate
its words, carriage returns separate its lines, and decorators make its calls. BOOT evaluates the first line that
arrives, a short one, which evaluates the second (``lines``). The second line runs on any Python since 2.7: it reports
the version, and if that is new enough it reads the package, exactly the announced number of bytes, and checks the
digest. The package is the sources of _anyfork_child, and of cloudpickle, which values by value need; their loaders
supply them.

Output before an answer is noise and is skipped. Each answer begins with a random word, drawn for this connection and
written backwards: neither an echo of our input nor a greeting can contain it.
"""

from __future__ import annotations

import sys
import zlib
from importlib.machinery import ExtensionFileLoader
from importlib.util import find_spec
from pkgutil import iter_modules

try:
    from _sha2 import sha256  # the hash alone: hashlib would load OpenSSL into every template
except ImportError:
    from _sha256 import sha256  # before Python 3.12

from ..wire.platform import OLDEST
from . import importer

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from importlib.machinery import ModuleSpec

NOISE = 1 << 20  # bytes before the answer
SHELLS = frozenset({"sh", "ash", "bash", "csh", "dash", "fish", "ksh", "mksh", "tcsh", "yash", "zsh"})
SWITCHERS = frozenset({"su", "runuser", "script", "sg", "flock"})  # these pass the value of -c to a shell
PACKAGES = ("_anyfork_child", "cloudpickle")
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
    """Return a command that ends in a Python, with the arguments that make the Python run BOOT.

    If the last part is a text for a shell (``sh -c "... python3"``), the arguments are added inside the text.
    """
    *before, last = command
    bare = last.rstrip("'\"")
    quotes = last[len(bare) :]
    if before and (quotes or _is_for_shell(before, last)):
        return [*before, f"{bare.rstrip().removesuffix(' -')} -c {BOOT}{quotes}"]
    return [*(before if last == "-" and before else command), "-c", BOOT]


def _is_for_shell(before: Sequence[str], last: str) -> bool:
    """Return whether the parts before the last one make the last part of a command a text for a shell.

    They do if they end in ``-c``, or in a group of options such as ``-lc``, of a shell, or in the corresponding option
    of ``su`` and similar programs.
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
    """Return the first bytes to send to the interpreter; its answers begin with the word, written backwards."""
    source = _SECOND.format(word=word, oldest=OLDEST)
    return f"eval(sys.stdin.readline())\neval(compile({source!r},'<anyfork>','exec'))\n".encode()


def pack(options: Sequence[object]) -> bytes:
    """Return the files, compressed, with the options of the remote relay."""
    files = {name: source for package in PACKAGES for name, source in _sources(package)}
    return zlib.compress(repr({importer.OPTIONS: tuple(options), **files}).encode("utf-8", "surrogatepass"), 6)


def _sources(package: str) -> list[tuple[str, str]]:
    spec = find_spec(package)
    return [] if spec is None else [(found.name, _source(found)) for found in _with_submodules(spec)]


def _with_submodules(spec: ModuleSpec) -> Iterator[ModuleSpec]:
    """Yield the specifications of a module and of all modules below it, without importing any."""
    yield spec
    for module in iter_modules(spec.submodule_search_locations) if spec.submodule_search_locations else ():
        # Ask the finders themselves: importlib's find_spec would import the package.
        found = module.module_finder.find_spec(f"{spec.name}.{module.name}", None)
        if found is not None and not isinstance(found.loader, ExtensionFileLoader):  # an optional compiled part
            yield from _with_submodules(found)


def _source(spec: ModuleSpec) -> str:
    get_source = getattr(spec.loader, "get_source", None)
    source = None if get_source is None else get_source(spec.name)
    if source is None:
        raise ImportError(f"there is no source of {spec.name}, which the other side needs")
    return str(source)


def package(data: bytes) -> bytes:
    """Return the bytes to send next: the compressed files with their size and digest."""
    return b"%08x" % len(data) + data + digest(data).encode()


def digest(data: bytes) -> str:
    """Return the SHA-256 digest of the files, by which the other side checks that they arrived undamaged."""
    return str(sha256(data).hexdigest())


class Answers:
    """A parser that finds answers in the bytes from the other side, however the bytes are split."""

    def __init__(self, word: str) -> None:
        self._mark = b"\n<%s>" % word[::-1].encode()
        self.rest = b""  # the bytes after the last answer

    def take(self, data: bytes) -> list[str] | None:
        """Take bytes; return the words of the next answer, if it is complete. Raises ValueError for endless noise."""
        self.rest += data
        _, mark, behind = self.rest.partition(self._mark)
        if mark and b"\n" in behind:
            answer, _, self.rest = behind.partition(b"\n")
            return answer.decode("utf-8", "replace").split(" ")
        if len(self.rest) > NOISE:
            raise ValueError(f"more than {NOISE} bytes came without an answer")
        return None


def version_text(version: Sequence[int] = sys.version_info[:3]) -> str:
    """Return a version as text: 3.11.2 for (3, 11, 2)."""
    return ".".join(map(str, version))
