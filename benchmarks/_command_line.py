"""The command line that the benchmarks share."""

import argparse
import pathlib

from keras_sip.errors import check_positive_int


class Parser(argparse.ArgumentParser):
    """Options of a benchmark: mostly counts, whole numbers of at least 1."""

    def __init__(self, description, **options):
        super().__init__(description=description, formatter_class=argparse.RawDescriptionHelpFormatter, **options)

    def add_count(self, name, default, about, **options):
        """A count, or several where `default` is a list; the help text ends with the default."""
        several = isinstance(default, list)
        shown = " ".join(map(str, default)) if several else default
        options |= {"nargs": "+"} if several else {}
        self.add_argument(name, type=count, default=default, help=f"{about} (default: {shown})", **options)

    def add_output(self):
        self.add_argument("--output", type=pathlib.Path, metavar="JSON", help="also write all numbers to this file")


def count(text):
    """The whole number of at least 1 that `text` stands for; argparse shows the message of any other."""
    try:
        return check_positive_int("a count", int(text))
    except ValueError:
        raise argparse.ArgumentTypeError(f"Expected a whole number of at least 1. Received {text}.") from None
