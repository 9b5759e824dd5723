"""ScaledPhysics: simulator and solver as a network meets them, in units of x_scale, compiled where that pays."""

import contextlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal

import keras
import numpy as np
import tensorflow as tf

from keras_sip.errors import three_part
from keras_sip.ops import batched
from keras_sip.simulators.base import Simulator, check_simulator_interface
from keras_sip.simulators.nondimensional import Nondimensional
from keras_sip.solvers import noisy_refinement
from keras_sip.solvers.base import InverseSolver, SolverResult
from keras_sip.solvers.maximum_a_posteriori import posterior_solver
from keras_sip.solvers.problem import half_square
from keras_sip.training.checks import checked_solver

if TYPE_CHECKING:
    from keras_sip.solvers.posterior import Posterior


class ScaledPhysics:
    """y = P(x_scale z), and what a solver makes of z: all that training methods, exports and probes need of physics.

    A network's output z = x / x_scale is near 1. Everything here takes and returns z, `[B, *x_shape]`; y is in the
    simulator's own units.

    **What XLA compiles** is decided here, of two flags: `simulator.prefers_xla` (faster under XLA on a CPU too; None
    where nobody knows, which `XlaTrial` finds out) and `solver.compiles_as_one` (solver and simulation may be one
    program).

    | | GPU | CPU, `prefers_xla` | CPU, else |
    |---|---|---|---|
    | network of dense layers | the whole step | the whole step | nothing |
    | other networks, slower under XLA on CPUs | the whole step | physics and solver | nothing |
    | the same, solver is no single program | physics | physics | nothing |

    Args:
        simulator: The process P in physical units.
        x_scale: Size of the components of x, broadcast against `[B, *x_shape]`; None takes the simulator's.
        solver: An `InverseSolver`; "auto", the choice of `auto_solver`; None where none is needed.

    Attributes:
        scaled: The simulator of z, a `Nondimensional`.
    """

    def __init__(
        self, simulator: Simulator, x_scale: Any = None, solver: InverseSolver | Literal["auto"] | None = None
    ):
        self.simulator = check_simulator_interface(simulator)
        self.scaled = Nondimensional(simulator, x_scale)
        self.solver = None if solver is None else checked_solver(solver, self.scaled)
        self._compiles_alone = self._inside = False

    @property
    def prefers_xla(self) -> bool | None:
        """Whether the physics are faster under XLA on a CPU too, as far as it is known."""
        return self.scaled.prefers_xla

    @prefers_xla.setter
    def prefers_xla(self, value: bool | None) -> None:
        # Solvers that compile parts of themselves ask the simulator.
        self.scaled.prefers_xla = value

    @property
    def x_scale(self) -> np.ndarray:
        """Size of the components of x."""
        return self.scaled.scale

    def to_physical(self, z: tf.Tensor) -> tf.Tensor:
        """x = x_scale z."""
        return self.scaled.to_physical(z)

    def from_physical(self, x: tf.Tensor) -> tf.Tensor:
        """z = x / x_scale."""
        return self.scaled.from_physical(x)

    # The process ------------------------------------------------------------------------------------------------------

    def simulate(self, z: tf.Tensor, context: dict | None) -> tf.Tensor:
        """P at z `[B, *y_shape]`."""
        return self.compiled(self.scaled.forward)(z, context)

    def objective(self, y: tf.Tensor, y_target: tf.Tensor, context: dict | None) -> tf.Tensor:
        """L `[B]`, in the simulator's precision, to be differentiated."""
        return self.simulator.objective(y, y_target, context)

    def loss(self, y: tf.Tensor, y_target: tf.Tensor, context: dict | None) -> tf.Tensor:
        """L `[B]` in float64, to be shown and compared: right for y in units of 1e-30 to 1e30 in float32 too."""
        if not self.simulator.is_least_squares:
            return tf.cast(self.objective(y, y_target, context), tf.float64)
        residual = self.simulator.residual(y, y_target, context)
        unit = batched.safe_scale(residual)
        relative = half_square(residual / batched.expand(unit, residual))
        return tf.square(tf.cast(unit, tf.float64)) * tf.cast(relative, tf.float64)

    def adjoint(
        self, z: tf.Tensor, y_target: tf.Tensor, context: dict | None
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """(y, -dL/dz, finite): P at z, the way downhill by back-propagation through P, and where that is finite `[B]`.

        Elsewhere it is 0.
        """
        with tf.GradientTape() as tape:
            tape.watch(z)
            y = self.simulate(z, context)
        cotangent = self.simulator.objective_gradient(y, y_target, context)
        downhill = -tape.gradient(y, z, output_gradients=cotangent, unconnected_gradients="zero")
        finite = batched.all_finite(downhill) & batched.all_finite(y)
        return y, batched.where_example(finite, downhill, tf.zeros_like(downhill)), finite

    # The solver -------------------------------------------------------------------------------------------------------

    def solve(
        self, z: tf.Tensor, y_target: tf.Tensor, context: dict | None, solver: InverseSolver | None = None
    ) -> tuple[tf.Tensor, SolverResult]:
        """(y, result): P at z, and what `solver`, by default the model's, makes of z.

        One program for both, if the solver allows it: what they have in common is computed once.
        """
        solver = solver or self.solver
        forward = self.scaled.forward if solver is not None and solver.compiles_as_one else self.simulate

        def solve(z, y_target, context):
            y = forward(z, context)
            return y, solver.solve(self.scaled, z, y_target, context, y0=y)

        return self.compiled(solve, solver)(z, y_target, context)

    def refine(self, z: tf.Tensor, y_target: tf.Tensor, context: dict | None, steps: int | tf.Tensor) -> SolverResult:
        """The solver's answer from z after at most `steps` steps, with y, optimality and, in float64, the objective.

        No example's objective gets worse. Where the noise of y is known and the solver has no prior, one measured on
        the simulator's samples keeps the answer from a fit of noise.
        """
        if self.solver is None:
            raise ValueError(
                three_part("a model with a solver", "solver=None", "Make the model with one, such as GaussNewton().")
            )

        noisy = noisy_refinement.is_needed(self.solver, self.scaled, context)
        refine = noisy_refinement.refine_noisy if noisy else self.solver.refine
        result = refine(self.scaled, z, y_target, context, steps=steps)
        return result._replace(objective=self.loss(result.y, y_target, context))

    def posterior(self, z: tf.Tensor, y_target: tf.Tensor, context: dict | None, steps: int | tf.Tensor) -> "Posterior":
        """What x may be, in physical units, around the most probable one that is found from z in `steps` steps."""
        solver = posterior_solver(self.solver)
        return solver.posterior(self.simulator, self.to_physical(z), y_target, context, steps=steps)

    def not_descending(
        self, z: tf.Tensor, y: tf.Tensor, update: tf.Tensor, y_target: tf.Tensor, context: dict | None
    ) -> tf.Tensor:
        """Boolean `[B]`: whether L at z + update is not below that at z, where P is y."""
        before = self.loss(y, y_target, context)
        return ~(self.loss(self.simulate(z + update, context), y_target, context) < before)

    # What XLA compiles ------------------------------------------------------------------------------------------------

    def compiles_whole_step(
        self, network: keras.Model, replicas: int, solver: InverseSolver | None = None
    ) -> bool | Literal["auto"]:
        """Whether Keras is to compile the whole training step: True, False, or "auto", its own choice (on GPUs)."""
        solver = solver or self.solver
        is_dense = all(len(weight.shape) <= 2 for weight in network.trainable_variables)
        if self.prefers_xla and is_dense and replicas == 1:
            # On CPUs too (benchmarks/sine_step.py).
            return True
        return "auto" if solver is None or solver.compiles_as_one else False

    def compile_alone(self, allowed: bool):
        """Compile physics and solver by themselves, if the simulator gains by it and if `allowed`.

        They are in a step that is compiled as a whole anyway.
        """
        self._compiles_alone = bool(allowed and self.prefers_xla)

    def compiled(self, function: Callable, solver: InverseSolver | None = None) -> Callable:
        """`function` as a program of its own, where physics are compiled alone and `solver`, if it runs one, allows."""
        if self._inside or not self._compiles_alone or not (solver is None or solver.compiles_as_one):
            return function

        def program(*arguments):
            with self._one_program():
                return function(*arguments)

        return tf.function(program, jit_compile=True, autograph=False)

    @contextlib.contextmanager
    def _one_program(self):
        """Nothing is compiled by itself in here.

        A program within a program would be differentiated as a call, for which loops keep lists of no fixed size.
        """
        self._inside = True
        try:
            yield
        finally:
            self._inside = False
