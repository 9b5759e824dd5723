"""Docstrings in plain text, as this project writes them, made into reStructuredText.

In plain text `name` is code, |x - x*| is a norm and not a substitution, a * b a product and not emphasis, and an
indented block is an equation or a piece of code. Google style sections (Args, Returns, ...) are left to napoleon.
"""

import inspect
import re

from sphinx.ext import autosummary
from sphinx.util.inspect import stringify_signature

# The summary of a docstring is its first sentence, which does not end here.
autosummary.WELL_KNOWN_ABBREVIATIONS += ("Eq.", "Eqs.", "Fig.")

SPAN = re.compile(r"(``.+?``|`[^`]+`|\*\*[^*\s](?:[^*]*[^*\s])?\*\*)")
NAME = re.compile(r"[A-Za-z_]\w*(\.\w+)*(\(\))?")
SECTION = re.compile(r"(Args|Arguments|Attributes|Returns|Yields|Raises|Call arguments):$")


def setup(app):
    app.setup_extension("sphinx.ext.autodoc")
    # Before napoleon, whose priority is 500 and which would take apart what it does not know.
    app.connect("autodoc-process-docstring", rewrite, priority=400)
    app.connect("autodoc-process-signature", constructor_signature)
    app.connect("autodoc-skip-member", skip_fields)
    return {"parallel_read_safe": True}


def rewrite(app, what, name, obj, options, lines):
    """Replace `lines` of a docstring in place."""
    lines[:] = list(_rewritten([line.expandtabs() for line in lines]))


def constructor_signature(app, what, name, obj, options, signature, return_annotation):
    """That of `__init__`, where a class's `__new__` takes anything only to record it."""
    if what != "class" or signature != "(*args, **kwargs)":
        return None
    parameters = list(inspect.signature(obj.__init__).parameters.values())[1:]
    return stringify_signature(inspect.Signature(parameters), show_annotation=False), return_annotation


def skip_fields(app, what, name, obj, skip, options):
    """The fields of a named tuple have been described by the docstring of their class."""
    return skip or (getattr(obj, "__doc__", None) or "").startswith("Alias for field number")


def _rewritten(lines):
    in_section = in_block = False
    for number, line in enumerate(lines):
        indent = len(line) - len(line.lstrip())
        if not line.strip():
            yield line
            continue
        if indent == 0:
            in_section, in_block = bool(SECTION.match(line)), False
        elif not in_section and not in_block and number and not lines[number - 1].strip():
            # An indented paragraph that continues a list item is text; all others are equations or code.
            in_block = not _continues_item(lines[:number])
            if in_block:
                yield from ("::", "")
        elif indent and not in_section and not in_block and not _continues_item(lines[:number]):
            # A hanging indent, which would make a definition of the line before.
            line = line.lstrip()
        if in_block:
            yield line
        else:
            yield _call_arguments(SPAN.sub(_span, _escaped(line)))


def _continues_item(before):
    text = [line for line in before if line.strip()]
    starts = [line for line in text if not line.startswith(" ")]
    return bool(starts) and re.match(r"[-*] ", starts[-1]) is not None


def _escaped(line):
    """`*` and `|` mean nothing outside of code and bold words."""
    pieces = SPAN.split(line)
    for i in range(0, len(pieces), 2):
        bullet = "* " if i == 0 and pieces[i].lstrip().startswith("* ") else ""
        pieces[i] = pieces[i] if bullet else re.sub(r"([*|])", r"\\\1", pieces[i])
    return "".join(pieces)


def _span(match):
    text = match[0]
    if not text.startswith("`"):
        return text
    code = text.strip("`")
    name = NAME.fullmatch(code)
    role = f":py:obj:`{code}`" if name else f"``{code}``"
    # "`Simulator`s": the end of inline code must be followed by a space, which a backslash removes again.
    following = match.string[match.end() : match.end() + 1]
    return role + ("\\ " if following.isalnum() else "")


def _call_arguments(line):
    """The arguments of a layer's `call`, in its class docstring, as a list of their own."""
    return line.replace("Call arguments:", "Keyword Args:") if line.startswith("Call arguments:") else line
