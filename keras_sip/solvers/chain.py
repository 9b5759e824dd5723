"""Solvers one after the other: each goes on where the one before has come to."""

import dataclasses

import keras
import tensorflow as tf

from keras_sip.errors import three_part
from keras_sip.ops import batched
from keras_sip.solvers.base import InverseSolver, Status, renewed
from keras_sip.solvers.problem import InverseProblem

# Options of the shared loop, which a chain has none of.
OF_THE_LOOP = {field.name: field.default for field in dataclasses.fields(InverseSolver) if field.name != "on_failure"}


@keras.saving.register_keras_serializable(package="keras_sip")
@dataclasses.dataclass(frozen=True, init=False)
class Chain(InverseSolver):
    """U = U_1 + U_2 + ..., where solver k starts at x0 + U_1 + ... + U_(k - 1).

        Chain(ReverseSimulation(), GaussNewton(cg_steps=4))

    A quick solver that knows the physics comes near; one that knows nothing but derivatives goes on from there. Steps
    and tolerances are those of the solvers. An example that one of them fails on is handed on from where that one's
    `on_failure` leaves it; its status is the last solver's.

    `refine` gives its steps to the last solver; those before it take as many as they are set to, and none of them
    makes an example worse.

    Scale law: that of its weakest solver.

    Args:
        *solvers: One or more, all of which serve the simulator.
        on_failure: As in `InverseSolver`, for the chain as a whole.
    """

    solvers: tuple = ()

    def __init__(self, *first, solvers=(), on_failure="zero", **of_the_loop):
        object.__setattr__(self, "solvers", (*first, *solvers))
        object.__setattr__(self, "on_failure", on_failure)
        given = {name: value for name, value in of_the_loop.items() if OF_THE_LOOP.get(name, ...) != value}
        for name, value in OF_THE_LOOP.items():
            object.__setattr__(self, name, value)
        unknown = ", ".join(f"{name}={value!r}" for name, value in given.items() if name not in OF_THE_LOOP)
        if unknown:
            raise TypeError(
                three_part("solvers, and the option on_failure", unknown, "Correct the name, or leave it out.")
            )
        if not self.solvers or not all(isinstance(solver, InverseSolver) for solver in self.solvers):
            raise TypeError(
                three_part(
                    "one or more inverse solvers",
                    f"{self.solvers!r}",
                    "Write for example Chain(ReverseSimulation(), GaussNewton()).",
                )
            )
        if given:
            raise ValueError(
                three_part(
                    "steps and tolerances to be given to the solvers of a chain",
                    ", ".join(f"{name}={value!r}" for name, value in given.items()),
                    "Write Chain(..., GaussNewton(max_steps=5)).",
                )
            )
        super().__post_init__()

    @property
    def compiles_as_one(self):
        return all(solver.compiles_as_one for solver in self.solvers)

    def check(self, simulator):
        for solver in self.solvers:
            solver.check(simulator)

    def refiner(self):
        return Chain(*(solver.refiner() for solver in self.solvers), on_failure=self.on_failure)

    def solve(self, simulator, x0, y_target, context=None, y0=None, evaluate_result=False):
        x0, y_target, context = self.prepare(simulator, x0, y_target, context)
        problem = InverseProblem(simulator, y_target, context)
        x, update, num_steps = x0, tf.zeros_like(x0), 0
        for solver in self.solvers:
            result = solver.solve(simulator, x, y_target, context, y0=y0)
            x, update, num_steps, y0 = result.x, update + result.update, num_steps + result.num_steps, None
        # A solver returns finite updates whatever it is given.
        bad = ~(batched.all_finite(x0) & batched.all_finite(y_target))
        status = tf.where(bad, int(Status.NON_FINITE), result.status)
        return self.finish(problem, x0, update, status, num_steps, evaluate_result, x=x, optimality=result.optimality)

    def _improve(self, problem, x0, y0, steps):
        simulator, context = problem.simulator, problem.context
        *firsts, last = self.solvers
        # Told to take no step, the solvers before the last take none either.
        wanted = tf.cast(steps, tf.int32) > 0
        best, total = None, 0
        for solver in firsts:
            start, y = (x0, y0) if best is None else (best.x, None)
            y = simulator.forward(start, context) if y is None else y
            point, _, num_steps = solver._improve(problem, start, y, tf.where(wanted, solver.max_steps, 0))
            best, total = _onward(best, point), total + num_steps
        start, y = (x0, y0) if best is None else (best.x, simulator.forward(best.x, context))
        point, status, num_steps = last._improve(problem, start, y, steps)
        return _onward(best, point), status, total + num_steps

    def get_config(self):
        solvers = [keras.saving.serialize_keras_object(solver) for solver in self.solvers]
        return {"on_failure": self.on_failure, "solvers": solvers}

    @classmethod
    def from_config(cls, config):
        solvers = [keras.saving.deserialize_keras_object(solver) for solver in config["solvers"]]
        return cls(*solvers, on_failure=renewed(config).get("on_failure", "zero"))

    def __repr__(self):
        solvers = ", ".join(map(repr, self.solvers))
        return f"Chain({solvers}, on_failure={self.on_failure!r})"


def _onward(before, point):
    """The point, with the update from where the chain started."""
    return point if before is None else point._replace(update=before.update + point.update)
