"""The examples that are looked at, the inverse problems made of them, and errors in float64, whatever the precision."""

import functools
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from keras_sip.errors import three_part
from keras_sip.simulators.abilities import Ability


class Examples(NamedTuple):
    """Causes with what is known of them.

    Attributes:
        x: `[B, *x_shape]`.
        context: A dict of `[B, ...]`, or None.
        origin: Where they come from, in words.
    """

    x: tf.Tensor
    context: Any
    origin: str


def draw(simulator, num_examples, seed, x=None, context=None):
    """The given examples; else the simulator's samples; else normal random numbers times `x_scale`."""
    if x is not None:
        x = simulator.as_x(x)
        if len(x) < 2:
            raise ValueError(
                three_part("`x` to hold at least two examples", f"{len(x)}", "Pass more: examples are compared.")
            )
        return Examples(x, simulator.as_context(context), "given")
    if simulator.has(Ability.SAMPLE):
        sample = simulator.sample(num_examples, (seed, 0))
        return Examples(simulator.as_x(sample["x"]), simulator.as_context(sample.get("context")), "sampled")
    return random_examples(simulator, num_examples, seed, context)


def random_examples(simulator, num_examples, seed, context=None):
    """Normal random numbers times `x_scale`, where there is no `sample`, or none that works."""
    numbers = np.random.default_rng(seed).standard_normal((num_examples, *simulator.x_shape))
    scale = 1.0 if simulator.has(Ability.SAMPLE) else np.asarray(simulator.x_scale)
    return Examples(simulator.as_x(numbers * scale), simulator.as_context(context), "random numbers")


def starts(x_true, distance):
    """Starts x0: each example moved by `distance` of the way to the next one, so that they stay plausible."""
    return x_true + distance * (tf.roll(x_true, 1, axis=0) - x_true)


def rows(tensor):
    """Float64 NumPy `[B, n]`."""
    values = np.asarray(tensor, np.float64)
    return values.reshape(len(values), -1)


def example_errors(received, expected):
    """Largest difference over largest expected magnitude, of each example `[B]`.

    An example where nothing is expected is measured in the largest magnitude of the others.
    """
    received, expected = rows(received), rows(expected)
    size = np.max(np.abs(expected), axis=1)
    size = np.where(size > 0, size, np.max(size) if np.max(size) > 0 else 1.0)
    return np.max(np.abs(received - expected), axis=1) / size


def worst_error(received, expected):
    """The largest of `example_errors`; NaN where something is not finite."""
    with np.errstate(invalid="ignore"):
        return float(np.max(example_errors(received, expected)))


def objectives(simulator, x, y_target, context):
    """L `[B]` in float64: squares of residuals near 1e-21 are 0 in float32."""
    y = simulator.forward(x, context)
    if not simulator.is_least_squares:
        return np.asarray(simulator.objective(y, y_target, context), np.float64)
    return 0.5 * np.sum(np.square(rows(simulator.residual(y, y_target, context))), axis=1)


def is_finite(*tensors):
    return all(np.isfinite(np.asarray(tensor)).all() for tensor in tensors)


class Start(NamedTuple):
    """Where the examples come from; see `check_solver`."""

    x: Any
    context: Any
    x0: Any
    num_examples: int
    distance: float
    seed: int


class InverseProblems:
    """Noise-free: P(x) = y*, y* = P(x*). Made when first asked for, so that what a simulator raises is a finding."""

    def __init__(self, simulator, start):
        self.simulator, self.start = simulator, start

    @functools.cached_property
    def _examples(self):
        start = self.start
        return draw(self.simulator, start.num_examples, start.seed, start.x, start.context)

    @property
    def x_true(self):
        return self._examples.x

    @property
    def context(self):
        return self._examples.context

    @property
    def origin(self):
        """Where the examples come from, in words."""
        return self._examples.origin

    @functools.cached_property
    def x0(self):
        if self.start.x0 is not None:
            return self.simulator.as_x(self.start.x0)
        return starts(self.x_true, self.start.distance)

    @functools.cached_property
    def y_target(self):
        return self.simulator.forward(self.x_true, self.context)
