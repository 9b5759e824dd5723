"""Sphinx settings of the documentation; `make docs` builds it."""

import os
import pathlib
import sys

# Importing keras_sip for its docstrings shall not fill the build's output with TensorFlow's greetings.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
DOCS = pathlib.Path(__file__).parent
sys.path[:0] = [str(DOCS.parent), str(DOCS / "_ext")]

import keras  # noqa: E402
import tensorflow as tf  # noqa: E402

import keras_sip  # noqa: E402

project = "keras_sip"
author = "The keras_sip authors"
release = version = keras_sip.__version__

extensions = [
    "linked_names",
    "myst_parser",
    "plain_docstrings",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
]
exclude_patterns = ["_build"]

# Types under the names by which one imports them, not those of the files that they are defined in.
tf.Tensor.__module__ = tf.TensorSpec.__module__ = "tf"
tf.data.Dataset.__module__ = "tf.data"
keras.Model.__module__ = keras.Variable.__module__ = "keras"

# Docstrings. Only what a class documents itself is shown: Keras' own docstrings are Markdown, not for Sphinx.
autodoc_inherit_docstrings = False
autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
autodoc_default_options = {"exclude-members": "get_config, from_config, get_compile_config, compile_from_config"}
autosummary_generate = False
napoleon_numpy_docstring = False
napoleon_use_ivar = True
python_use_unqualified_type_names = True
toc_object_entries_show_parents = "hide"

# Pages.
myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3
# Indented blocks are commands and printed tables.
highlight_language = "none"
suppress_warnings = ["myst.strikethrough"]

# Dashes, but no curly quotes in what is to be copied.
smartquotes_action = "D"

html_theme = "furo"
html_title = f"keras_sip {release}"
html_static_path = ["_static"]
html_css_files = ["tables.css"]
html_show_sphinx = html_show_copyright = False
