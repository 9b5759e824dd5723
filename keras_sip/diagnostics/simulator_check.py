"""check_simulator: whether a simulator keeps its promises."""

import dataclasses
import functools
from typing import Any

import numpy as np
import tensorflow as tf

from keras_sip.diagnostics import examples
from keras_sip.diagnostics.findings import Findings, described, examine
from keras_sip.diagnostics.simulator_derivatives import DERIVATIVE_CHECKS
from keras_sip.diagnostics.simulator_interface import INTERFACE_CHECKS
from keras_sip.diagnostics.simulator_steps import STEP_CHECKS
from keras_sip.errors import check_positive_int
from keras_sip.ops import derivatives
from keras_sip.simulators.base import root_mean_square

SIMULATOR_CHECKS = [*INTERFACE_CHECKS, *DERIVATIVE_CHECKS]


@dataclasses.dataclass(frozen=True, kw_only=True)
class SimulatorFindings(Findings):
    """What `check_simulator` returns: `passed`, `failures`, `findings`, and the text by `str`."""


def check_simulator(
    simulator: Any,
    *,
    x: Any = None,
    context: dict[str, Any] | None = None,
    num_examples: int = 4,
    solver_steps: bool = True,
    seed: int = 0,
    print_report: bool = True,
) -> SimulatorFindings:
    """Check that a simulator keeps the promises that solvers, layers and models rely on.

    Shapes and precision of all methods; samples that follow from their seed; J v and J^T w against central differences
    and each other; finite gradients, at x = 0 too, where an untrained network starts; examples independent of each
    other; eager, graph and XLA the same; no trainable variables; an inverse that inverts; a configuration that can be
    saved; one step of each kind of solver compiled by XLA, with its cost in adjoint steps (P and J^T w). What the
    simulator raises is a finding, not an error. Findings are printed as they come.

    Args:
        simulator: A `Simulator`.
        x: Causes `[B, *x_shape]` to check at; None draws samples, or random numbers near 0 where there are none.
        context: What is known of them (dict of `[B, ...]`), with `x` or for a simulator without samples.
        num_examples: How many to draw, at least 2.
        solver_steps: Compile and time solvers' steps too; most of the time of a check.
        seed: Of the samples and of the random directions.
        print_report: Print the report too.

    Returns:
        `SimulatorFindings`; `report.passed` is whether nothing failed.
    """
    check_positive_int("num_examples", num_examples, minimum=2)
    check_positive_int("seed", seed, minimum=0)
    case = SimulatorCase(simulator, num_examples, seed, x, context)
    title = f"check_simulator: {described(simulator)}"
    checks = [*SIMULATOR_CHECKS, *(STEP_CHECKS if solver_steps else ())]
    return examine(SimulatorFindings, title, checks, case, print_report)


# Compilers reorder sums; long chains of them amplify it.
ROUNDING = {"float32": 1e-4, "float64": 1e-10}


class SimulatorCase:
    """Examples are drawn when first asked for, after it is known that there is something to draw from."""

    def __init__(self, simulator, num_examples, seed, x, context):
        self.simulator, self.num_examples, self.seed = simulator, num_examples, seed
        self._given = x, context
        self.compiled = functools.cache(self._compiled)
        self.central_difference = functools.cache(self._central_difference)

    @functools.cached_property
    def examples(self):
        x, context = self._given
        try:
            return examples.draw(self.simulator, self.num_examples, self.seed, x, context)
        except Exception:  # "sample" reports it; the other checks go on
            if x is not None:
                raise
            return examples.random_examples(self.simulator, self.num_examples, self.seed, context)

    @property
    def x(self):
        return self.examples.x

    @property
    def context(self):
        return self.examples.context

    @functools.cached_property
    def y(self):
        return self.forward(self.x)

    @functools.cached_property
    def direction(self):
        """A random direction in x, of the size of x, `[B, *x_shape]`."""
        return self.random_like(self.x) * tf.constant(root_mean_square(self.x), self.x.dtype)

    @functools.cached_property
    def cotangent(self):
        """Random numbers in y `[B, *y_shape]`."""
        return self.random_like(self.y)

    @functools.cached_property
    def linearized(self):
        """(y, v -> J v, w -> J^T w) at x."""
        return derivatives.linearize(self.forward, self.x)

    @functools.cached_property
    def eager(self):
        """(P(x), J^T w) as TensorFlow computes them without a graph."""
        return self.transposed(self.x, self.cotangent)

    def _central_difference(self, step):
        """(P(x + h v) - P(x - h v)) / 2 h for a step h, float64 `[B, n]`."""
        ahead, behind = (self.forward(self.x + sign * step * self.direction) for sign in (1.0, -1.0))
        return (examples.rows(ahead) - examples.rows(behind)) / (2 * step)

    @property
    def rounding(self):
        return ROUNDING[self.simulator.dtype]

    def forward(self, x):
        return self.simulator.forward(x, self.context)

    def transposed(self, x, w):
        """(P(x), J^T w)."""
        return derivatives.vjp(self.forward, x, w)

    def _compiled(self, jit_compile):
        """(P(x), J^T w) compiled for batches of any size, as training compiles it."""

        def value_and_transposed(x, w, context=None):
            return derivatives.vjp(lambda x: self.simulator.forward(x, context), x, w)

        shapes = self.simulator.x_shape, self.simulator.y_shape
        fields = [tf.TensorSpec((None, *shape), self.simulator.dtype) for shape in shapes]
        known = tf.nest.map_structure(lambda entry: tf.TensorSpec((None, *entry.shape[1:]), entry.dtype), self.known())
        return tf.function(
            value_and_transposed, input_signature=(*fields, *known), jit_compile=jit_compile, autograph=False
        )

    def arguments(self, examples=slice(None)):
        """(x, w) of some examples, and their context where there is one: what `compiled` functions take."""
        return tf.nest.map_structure(lambda entry: entry[examples], (self.x, self.cotangent, *self.known()))

    def known(self):
        """(context,), or () where there is none."""
        return () if self.context is None else (self.context,)

    def random_like(self, tensor):
        numbers = np.random.default_rng((self.seed, 1)).standard_normal(tensor.shape)
        return tf.constant(numbers, tensor.dtype)
