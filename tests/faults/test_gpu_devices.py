"""GPUs that a preload opens: the template is refused. Device nodes with the names of GPUs lead to /dev/null and /dev/zero."""

import os

import pytest
from programs import run_program

# In a namespace of mounts, a /dev of its own.
DEVICES = """
mount -t tmpfs none /dev && mkdir /dev/shm /dev/dri && mknod /dev/null c 1 3 && mknod /dev/zero c 1 5 &&
mknod /dev/nvidiactl c 1 3 && mknod /dev/nvidia0 c 1 5 && mknod /dev/dri/renderD128 c 1 3 && exec "$0" "$@"
"""
NAMESPACE = ["unshare", "--mount", "sh", "-c", DEVICES]
pytestmark = pytest.mark.skipif(os.getuid() != 0, reason="only root may make namespaces and device nodes")

SET_UP = """
import pathlib, tempfile

place = tempfile.TemporaryDirectory()
texts = {
    "harmless": "import json; devices = 1",
    "closing": "import os; os.close(os.open('/dev/nvidiactl', os.O_RDWR))",
    "opening": "import os; devices = [os.open(path, os.O_RDWR) for path in ('/dev/nvidiactl', '/dev/dri/renderD128')]",
    "mapping": '''
import ctypes, os
fd = os.open("/dev/nvidia0", os.O_RDWR)
map = ctypes.CDLL(None).mmap
map.restype, map.argtypes = ctypes.c_void_p, [ctypes.c_void_p, ctypes.c_size_t] + 3 * [ctypes.c_int] + [ctypes.c_long]
assert map(None, 4096, 3, 2, fd, 0)
os.close(fd)
''',
}
for name, text in texts.items():
    pathlib.Path(place.name, f"{name}.py").write_text(text)

def attempt(prepare):
    with place_known() as template:
        prepare(template)
        try:
            template.ready(20)
        except anyfork.UnsafeTemplateError as error:
            return [error.devices, str(error)]

def place_known():
    return Template().prepare(faulty.insert_path, place.name)
"""


def said(source):
    return run_program(SET_UP + source, command=NAMESPACE)


def test_the_preload_that_opens_a_gpu_is_named():
    devices, text = said("say(attempt(lambda template: template.preload('harmless', 'opening', 'closing')))")
    assert devices == "/dev/dri/renderD128, /dev/nvidiactl"
    assert text.startswith(
        "the import of opening has opened a GPU in the template (/dev/dri/renderD128, /dev/nvidiactl)"
    )


def test_a_gpu_that_is_only_mapped_counts():
    assert said("say(attempt(lambda template: template.preload('mapping')))")[0] == "/dev/nvidia0"


def test_code_and_functions_that_open_a_gpu_are_named():
    source = """
say([
    attempt(lambda template: template.execute("import opening"))[1],
    attempt(lambda template: template.prepare("importlib:import_module", "opening"))[1],
])
"""
    code, function = said(source)
    assert code.startswith("the code given to execute has opened a GPU")
    assert function.startswith("prepare(importlib:import_module) has opened a GPU")


def test_a_gpu_that_was_closed_again_is_none_and_a_process_may_open_it():
    source = """
with place_known() as template:
    template.preload("harmless", "closing").ready(20)
    with template.fork().run(faulty.send_value, "len(__import__('opening').devices)") as process:
        say(process.channel.recv(100).decode())
"""
    assert said(source) == "2"


def test_a_copy_of_a_program_that_has_opened_a_gpu_is_warned_of():
    source = """
import warnings
opened = os.open("/dev/nvidiactl", os.O_RDWR)
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    with anyfork.fork_here() as template:
        template.preload("json").ready(20)  # which has not opened it
say([str(warning.message) for warning in caught])
"""
    warned = said(source)
    assert any("has opened a GPU, which a copy cannot use: /dev/nvidiactl" in text for text in warned)


def test_a_template_with_a_gpu_runs_nothing():
    source = """
with place_known() as template:
    template.preload("opening")
    with template.fork() as refused:
        try:
            refused.run(faulty.end_with, 3)
        except anyfork.UnsafeTemplateError:
            say("refused")
"""
    assert said(source) == "refused"
