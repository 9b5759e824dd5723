"""Solvers one after the other: each goes on where the one before has come to."""

import dataclasses

import keras
import tensorflow as tf

from keras_sip.errors import three_part
from keras_sip.ops import batched
from keras_sip.solvers.base import InverseSolver, Status
from keras_sip.solvers.problem import InverseProblem


@keras.saving.register_keras_serializable(package="keras_sip")
@dataclasses.dataclass(frozen=True, kw_only=True)
class Chain(InverseSolver):
    """U = U_1 + U_2 + ..., where solver k starts at x0 + U_1 + ... + U_(k - 1).

        Chain(solvers=(ReverseSimulation(), GaussNewton(cg_steps=4)))

    A quick solver that knows the physics comes near; one that knows nothing but derivatives goes on from there. Steps
    and tolerances are those of the solvers. An example that one of them fails on is handed on from where that one's
    `on_failure` leaves it; its status is the last solver's. With `on_failure="keep_best"` an example keeps the sum
    that lowered its objective most, if only U = 0.

    Scale law: that of its weakest solver.

    Args:
        solvers: A tuple of solvers, all of which serve the simulator.
    """

    solvers: tuple = ()

    def __post_init__(self):
        super().__post_init__()
        object.__setattr__(self, "solvers", tuple(self.solvers))
        if not self.solvers or not all(isinstance(solver, InverseSolver) for solver in self.solvers):
            raise TypeError(
                three_part(
                    "`solvers` to be one or more inverse solvers",
                    f"solvers={self.solvers!r}",
                    "Pass for example (ReverseSimulation(), GaussNewton()).",
                )
            )
        if self.max_steps != 1 or self.tolerance:
            raise ValueError(
                three_part(
                    "max_steps and tolerance to be given to the solvers of a chain",
                    f"max_steps={self.max_steps}, tolerance={self.tolerance}",
                    "Write Chain(solvers=(..., GaussNewton(max_steps=5))).",
                )
            )

    @property
    def compiles_as_one(self):
        return all(solver.compiles_as_one for solver in self.solvers)

    def check(self, simulator):
        for solver in self.solvers:
            solver.check(simulator)

    def refining(self, max_steps):
        """The last solver takes `max_steps`, those before it as many as they are set to."""
        return self.with_options(
            solvers=(*self.solvers[:-1], self.solvers[-1].refining(max_steps)), on_failure="keep_best"
        )

    def solve(self, simulator, x0, y_target, context=None, y0=None, evaluate_result=False):
        x0, y_target, context = self.prepare(simulator, x0, y_target, context)
        problem = InverseProblem(simulator, y_target, context)
        keep_best = self.on_failure == "keep_best"
        if keep_best:
            problem = problem.scaled_at(x0, y0)
            best, lowest = tf.zeros_like(x0), problem.objective(x0)
        update, num_steps = tf.zeros_like(x0), 0
        for solver in self.solvers:
            result = solver.solve(simulator, x0 + update, y_target, context, y0=y0)
            update, num_steps, y0 = update + result.update, num_steps + result.num_steps, None
            if keep_best:
                objective = problem.objective(x0 + update)
                best = batched.where_example(objective < lowest, update, best)
                lowest = tf.where(objective < lowest, objective, lowest)
        if keep_best:
            update = best
        # A solver returns finite updates whatever it is given.
        bad = ~(batched.all_finite(x0) & batched.all_finite(y_target))
        status = tf.where(bad, int(Status.NON_FINITE), result.status)
        return self.finish(problem, x0, update, status, num_steps, evaluate_result)

    def get_config(self):
        solvers = [keras.saving.serialize_keras_object(solver) for solver in self.solvers]
        return {"on_failure": self.on_failure, "solvers": solvers}

    @classmethod
    def from_config(cls, config):
        solvers = [keras.saving.deserialize_keras_object(solver) for solver in config["solvers"]]
        return cls(**{**config, "solvers": tuple(solvers)})
