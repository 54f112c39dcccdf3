"""Import this first: a pristine copy of the program becomes the default template, and no interpreter is ever started.

For programs that have no interpreter on disk, and for programs whose files may change while they run. From then on
``Template()`` and ``Template.new_exec()`` come from the copy. It gets the program's module path and arguments at its
first use; ``new_exec`` also gives a template the directory, environment and limits that the program has by then. In
templates and in processes forked from them the import does nothing.

Raises UnsafeTemplateError when threads or an event loop run already. The threads of a debugger that runs the program
exist before its first import: this is no error, but an UnsafeForkWarning, and templates are interpreters.
"""

from __future__ import annotations

import sys

if "_anyfork_child.template.template" not in sys.modules:  # loaded in templates; in a program not before this
    from ._processes.debugger import is_debugged
    from ._processes.default_template import default_template
    from ._programs.program_copy.fork_here import UnsafeForkWarning, copy_program

    if is_debugged():
        import warnings

        text = "a debugger runs this program, and a copy would lack its threads: templates are new interpreters instead"
        warnings.warn(text, UnsafeForkWarning, stacklevel=2)
    else:
        default_template.replace(copy_program())
