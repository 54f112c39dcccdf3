"""The programs of the benchmark ``programs``: what each needs, what a template loads for it, and its files."""

from __future__ import annotations

from dataclasses import dataclass, field
from importlib.util import find_spec

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pathlib import Path

DJANGO = """
SECRET_KEY = "for a benchmark"
INSTALLED_APPS = [f"django.contrib.{name}" for name in ("admin", "auth", "contenttypes", "messages", "sessions")]
MIDDLEWARE = [
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
]
TEMPLATES = [{
    "BACKEND": "django.template.backends.django.DjangoTemplates",
    "APP_DIRS": True,
    "OPTIONS": {"context_processors": [
        "django.template.context_processors.request",
        "django.contrib.auth.context_processors.auth",
        "django.contrib.messages.context_processors.messages",
    ]},
}]
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
"""
PANDAS = """
import pandas
print("first", flush=True)
frame = pandas.DataFrame({"key": [n % 7 for n in range(10_000)], "value": range(10_000)})
print(frame.groupby("key").value.sum())
"""
TORCH = """
import torch
print("first", flush=True)
print(torch.ones(100).sum())
"""
FILES = {
    "data.json": '{"numbers": [1, 2, 3]}\n',
    "settings.py": DJANGO,
    "frames.py": PANDAS,
    "tensors.py": TORCH,
    "test_one.py": "def test_one():\n    assert 1 + 1 == 2\n",
}


@dataclass(frozen=True, slots=True)
class Case:
    """A program: its kind and target as on the interpreter's command line, and the modules that a template loads.

    ``begins_with_line`` says that its first line of output comes before any work of its own; what comes before is its
    start, and nothing else. ``needs`` is the package that must be installed.
    """

    name: str
    kind: str
    target: str
    argv: tuple[str, ...] = ()
    preload: tuple[str, ...] = ()
    begins_with_line: bool = False
    needs: str = ""
    variables: dict[str, str] = field(default_factory=dict)

    @property
    def label(self) -> str:
        """The command line, without what makes it long."""
        return " ".join(filter(None, [self.kind, self.target, *self.argv[:1]]))

    @property
    def line(self) -> list[str]:
        """The program's part of the command line."""
        return [*([self.kind] if self.kind else []), self.target, *self.argv]

    @property
    def is_missing(self) -> bool:
        """Whether it cannot run here."""
        return bool(self.needs) and find_spec(self.needs) is None


_DJANGO = (
    "django.contrib.admin.sites",
    "django.contrib.auth.hashers",
    "django.core.cache.backends.locmem",
    "django.core.checks",
    "django.core.mail",
    "django.core.management.commands.check",
    "django.db.backends.sqlite3.base",
    "django.db.migrations.executor",
    "django.db.models",
    "django.forms",
    "django.template.backends.django",
    "django.urls",
    "django.views.generic",
    "runpy",
)
_PYTEST = (
    "pytest",
    "_pytest.assertion.rewrite",
    "_pytest.doctest",
    "_pytest.junitxml",
    "_pytest.logging",
    "_pytest.terminal",
    "_pytest.unittest",
    "runpy",
)
CASES = (
    Case("pass", "-c", "pass"),
    Case("line", "-c", "print('first')", begins_with_line=True),
    Case(
        "json.tool", "-m", "json.tool", ("data.json",), ("json.tool", "locale", "runpy", "shutil"),
        begins_with_line=True,
    ),
    Case(
        "django", "-m", "django", ("check",), _DJANGO, needs="django",
        variables={"DJANGO_SETTINGS_MODULE": "settings"},
    ),
    Case(
        "pytest", "-m", "pytest", ("test_one.py", "-p", "no:cacheprovider"), _PYTEST, needs="pytest",
        variables={"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
    ),
    Case("black", "-m", "black", ("-c", "x=1"), ("black", "runpy"), needs="black"),
    Case("pandas", "", "frames.py", (), ("pandas",), begins_with_line=True, needs="pandas"),
    Case("torch", "", "tensors.py", (), ("torch",), begins_with_line=True, needs="torch"),
)  # fmt: skip
VARIABLES = {name: value for case in CASES for name, value in case.variables.items()}


def write_files(directory: Path) -> None:
    """Write what the programs read."""
    for name, text in FILES.items():
        (directory / name).write_text(text)
