"""The problems that solvers and diagnoses are measured on: starts, and observations whose solutions are known."""

import functools
from typing import Any, NamedTuple

from keras_sip.diagnostics import examples


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
        return examples.draw(self.simulator, start.num_examples, start.seed, start.x, start.context)

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
        return examples.starts(self.x_true, self.start.distance)

    @functools.cached_property
    def y_target(self):
        return self.simulator.forward(self.x_true, self.context)
