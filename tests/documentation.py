"""The code that pages show, to be run by the tests as it stands."""

import linecache
import pathlib
import re

ROOT = pathlib.Path(__file__).parents[1]


def text(page):
    """A page as it is written; `page` is its path from the root of the checkout."""
    return (ROOT / page).read_text(encoding="utf-8")


def blocks(page):
    """The Python examples of a page, in order."""
    return re.findall(r"^```python\n(.*?)^```", text(page), re.DOTALL | re.MULTILINE)


def shell_commands(page, program="python -m keras_sip"):
    """What stands behind `program` in the indented lines of a page."""
    return re.findall(rf"^    {re.escape(program)} (.*)$", text(page), re.MULTILINE)


def run(code, names=None, *, shorter=()):
    """Run an example with the names that others have left, and return all names.

    `shorter` are pairs (shown, run): a test takes fewer steps than a reader. What is shown must be there.
    """
    names = {"__name__": "example"} if names is None else names
    for shown, short in shorter:
        if shown not in code:
            raise AssertionError(f"{shown!r} is no longer in the example")
        code = code.replace(shown, short)
    # TensorFlow reads the source of what it traces, as it would that of a script.
    name = f"<example {hash(code)}>"
    linecache.cache[name] = (len(code), None, code.splitlines(keepends=True), name)
    exec(compile(code, name, "exec"), names)
    return names


def run_page(page, *, shorter=(), names=None, examples=slice(None)):
    """Run the examples of a page, one after the other, with the names of those before."""
    return run("\n".join(blocks(page)[examples]), names, shorter=shorter)
