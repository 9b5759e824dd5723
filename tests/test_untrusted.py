"""Text from a file is shown as text: on a terminal, and by an independent reader of Markdown."""

import html.parser

import markdown as reader
import pytest

import keras_sip
import shipped
from keras_sip.serving import card
from keras_sip.untrusted import code, markdown, one_line, printable, without_html

HOSTILE = [
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "[press me](javascript:alert(1))",
    "end`<b>bold</b>`",
    "``two``<i>",
    "a | b\n| c | d |",
    "\n# A heading\n\n<hr>",
    "&lt;script&gt;",
]


class Seen(html.parser.HTMLParser):
    """The tags of a page, and its text."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.text = set(), ""
        self.feed(reader.markdown(text, extensions=["tables"]))

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)

    def handle_data(self, data):
        self.text += data


@pytest.mark.parametrize("text", HOSTILE)
def test_markdown_and_code_show_the_text_and_nothing_else(text):
    shown = Seen(f"name: {markdown(text)}")
    assert shown.tags == {"p"} and shown.text == f"name: {one_line(text)}"
    # Where a cell ends is told by `\|` also inside code, as GitHub reads it.
    shown = Seen(f"name: {code(text)}")
    assert shown.tags == {"p", "code"} and shown.text.replace("\\|", "|") == f"name: {one_line(text)}"
    assert "\n" not in markdown(text) + code(text)


def test_markdown_of_an_author_keeps_its_code_and_loses_its_html():
    shown = Seen(without_html("`a < b`, <b>bold</b> and [a page](https://example.org)"))
    assert shown.tags == {"p", "code", "a"} and "a < b, <b>bold</b>" in shown.text


def test_control_characters_are_written_out_on_a_terminal():
    assert one_line("red\x1b[31m\r\nnext\x9b2J\u202eback") == r"red\x1b[31m\r\nnext\x9b2J\u202eback"
    assert printable("Expected a.\nReceived \x1b]0;b\x07.") == "Expected a.\nReceived \\x1b]0;b\\x07."
    assert one_line("é, 測定 and spaces") == "é, 測定 and spaces"


def test_a_card_shows_what_a_model_is_called_and_no_more():
    model = shipped.make_model()
    model.network.name = "<img src=x onerror=alert(1)>\n| other | cell |"
    text = card.model_card(
        model,
        title="<script>alert(1)</script>\n# Another",
        use="",
        measured={"error <b>": 0.5, "note": "<i>fine</i>"},
        facts={"seeds": "0 <u>", "command": "`train.py <data>`"},
    )
    shown = Seen(text)
    assert not shown.tags & {"script", "img", "b", "i", "u"} and text.count("\n# ") == 0
    assert "<img src=x onerror=alert(1)>" in shown.text and "<i>fine</i>" in shown.text
    assert "train.py <data>" in shown.text
    assert keras_sip.__version__ in shown.text
