"""How Sphinx builds the site: scripts/docs."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "src"))

import anyfork

project = "anyfork"
author = "The anyfork developers"
copyright = author  # noqa: A001  # the name that Sphinx reads
version = release = anyfork.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx_copybutton", "sphinx_external_toc"]
external_toc_path = "_toc.yml"
html_theme = "furo"
html_title = f"anyfork {version}"
html_show_copyright = False

myst_heading_anchors = 4  # the anchors that links between pages use
suppress_warnings = ["ref.python"]  # Template is the name of two classes, one for each face

autodoc_member_order = "groupwise"
autodoc_typehints = "signature"
autodoc_preserve_defaults = True
autoclass_content = "class"
maximum_signature_line_length = 88
python_use_unqualified_type_names = True
