"""Text that may have come from a file, made safe to show: on a terminal, and in Markdown."""

import re
from typing import Any

# What Markdown, and the HTML that it lets through, would read as more than text.
_MARKUP = re.compile(r"[\\`\[\]|]")
# Code between equal fences, or else anything: an escaped character, or one by itself.
_CODE = re.compile(r"(?P<code>(?<!`)(?P<fence>`+)(?!`).+?(?<!`)(?P=fence)(?!`))|(?P<other>\\.|.)")
_ENTITIES = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}


def printable(text: Any) -> str:
    r"""Text whose control characters, but for line ends, are written out (\x1b): they would steer a terminal.

    So are the ones that turn the direction of what is read, and all that cannot be seen.
    """
    return "\n".join(map(one_line, str(text).split("\n")))


def one_line(text: Any) -> str:
    """The same of a single value: line ends are written out too, so that it forges no line of its own."""
    return "".join(mark if mark.isprintable() else mark.encode("unicode_escape").decode("ascii") for mark in str(text))


def markdown(text: Any) -> str:
    """Markdown, also in a cell of a table, that shows the text and nothing else: no HTML, links or further cells."""
    return _shown(_MARKUP.sub(r"\\\g<0>", one_line(text)))


def code(text: Any) -> str:
    """The text as code in a line of Markdown or a cell of a table."""
    text = one_line(text).replace("|", "\\|")
    # A fence longer than any inside cannot be closed from there.
    fence = "`" * (1 + max(map(len, re.findall("`+", text)), default=0))
    space = " " if text.startswith("`") or text.endswith("`") else ""
    return f"{fence}{space}{text}{space}{fence}"


def without_html(text: Any) -> str:
    """Markdown that somebody wrote, in one line, with its HTML shown as text; code in it is as it was."""
    return _CODE.sub(lambda match: match["code"] or _shown(match["other"]), one_line(text))


def _shown(text):
    return "".join(_ENTITIES.get(mark, mark) for mark in text)
