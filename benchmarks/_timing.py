"""What the benchmarks share: interleaved times, their ratios, and tables of them.

Only ratios of one run are compared: times of two runs differ by what else the machine does. Variants take turns,
A B C A B C ..., so that whatever slows the machine for a while slows all of them.
"""

import itertools
import math
import os
import platform
import time
from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf

TABLE_WIDTH = 80
# Shorter measurements are repeated within one turn: the clock and the call itself take microseconds.
SHORTEST_TURN = 0.02


class Ratio(NamedTuple):
    """Median of one variant over that of another, with the quartiles of the ratios of neighbouring turns."""

    value: float
    low: float
    high: float

    def __str__(self):
        digits = 2 if self.high < 10 else 1
        return f"{self.value:.{digits}f} {self.low:.{digits}f}-{self.high:.{digits}f}"


def interleaved(variants, repeats, *, warm_up=True, clock=time.perf_counter):
    """Seconds of one call of each variant, by turns.

    The first call of each, which compiles, and a second one are not counted.

    Args:
        variants: {name: function without arguments}.
        repeats: Turns that each variant takes.
        warm_up: False for variants of many seconds that have been called before: their first call is counted.
        clock: A function that returns seconds; `time.process_time` counts what all threads compute.

    Returns:
        {name: seconds `[repeats]`}.
    """
    calls = dict.fromkeys(variants, 1)
    if warm_up:
        for name, variant in variants.items():
            _seconds(variant, 1, clock)
            calls[name] = math.ceil(SHORTEST_TURN / _seconds(variant, 1, clock))
    turns = [
        {name: _seconds(variant, calls[name], clock) for name, variant in variants.items()} for _ in range(repeats)
    ]
    return {name: np.array([turn[name] for turn in turns]) for name in variants}


def ratio(numerator, denominator):
    """The `Ratio` of two variants' seconds from one call of `interleaved`."""
    low, high = np.quantile(numerator / denominator, [0.25, 0.75])
    return Ratio(float(np.median(numerator) / np.median(denominator)), float(low), float(high))


def summary(seconds):
    """Median, quartiles and all turns as JSON holds them."""
    low, median, high = np.quantile(seconds, [0.25, 0.5, 0.75])
    return {"median": float(median), "quartiles": [float(low), float(high)], "seconds": seconds.tolist()}


def table(header, rows, *, label_width=20):
    """Lines of at most `TABLE_WIDTH` characters: a label on the left, then cells of equal width, or as they need.

    Args:
        header: Texts; the first heads the labels.
        rows: Lists of texts as long as the header, or shorter.
        label_width: Characters of the label.
    """
    cell_width = (TABLE_WIDTH - label_width) // (len(header) - 1)
    columns = itertools.zip_longest(*(cells for _, *cells in [header, *rows]), fillvalue="")
    needed = [max(len(cell) for cell in column) + 1 for column in columns]
    widths = [cell_width] * len(needed) if max(needed) <= cell_width else needed
    lines = [
        f"{label:<{label_width}}" + "".join(f"{cell:>{width}}" for cell, width in zip(cells, widths, strict=False))
        for label, *cells in [header, *rows]
    ]
    lines.insert(1, "-" * len(lines[0]))
    return "\n".join(line.rstrip() for line in lines)


def milliseconds(seconds):
    """The median as text with three digits."""
    value = 1e3 * float(np.median(seconds))
    return f"{value:#.3g}".rstrip(".") if value < 1e3 else f"{value:.0f}"


def machine():
    """What the numbers depend on, in one line: cores, memory, accelerators, versions."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    accelerators = [device for device in tf.config.list_physical_devices() if device.device_type != "CPU"]
    names = [tf.config.experimental.get_device_details(device).get("device_name", "GPU") for device in accelerators]
    versions = f"Python {platform.python_version()}, TensorFlow {tf.__version__}, Keras {keras.__version__}"
    size = [f"{os.cpu_count()} cores", f"{memory:.0f} GiB", *names]
    return f"{', '.join(size)}; {versions}"


def _seconds(variant, calls, clock):
    """Mean seconds of a call."""
    start = clock()
    for _ in range(calls):
        variant()
    # An accelerator works on after the call has returned.
    tf.test.experimental.sync_devices()
    return (clock() - start) / calls
