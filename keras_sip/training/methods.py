"""Training methods: what takes the place of the physics gradient, each a small object."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import keras
import tensorflow as tf

from keras_sip.data import unpack
from keras_sip.errors import check_arguments, check_choice, check_number, check_positive_int, must_define, three_part
from keras_sip.ops import batched
from keras_sip.simulators.base import split_observation
from keras_sip.solvers.base import InverseSolver
from keras_sip.solvers.problem import half_square
from keras_sip.training.adjoint_mix import AdjointMix
from keras_sip.training.adjoint_mix import adjoint_mix as as_adjoint_mix
from keras_sip.training.network import ScaledNetwork
from keras_sip.training.physics import ScaledPhysics


class Batch(NamedTuple):
    """One training batch as the methods see it; non-finite observations are zeros of weight 0 already.

    Attributes:
        observation: What the network is given.
        y_target, context: The observation's parts for the solver.
        z_true: True x in units of x_scale, or None.
        weight: `[B]`, the factor on each example's objective: sample weight and batch reduction.
        step: Training steps taken before this one, an integer scalar; None outside of training.
    """

    observation: Any
    y_target: tf.Tensor
    context: Any
    z_true: Any
    weight: tf.Tensor
    step: Any = None


def as_batch(physics: ScaledPhysics, data: Any, reduction: str) -> tuple[Batch, tf.Tensor, dict]:
    """A batch as Keras hands it over: (`Batch`, sample weights `[B]`, {"bad_input": boolean `[B]`}).

    Observations that are not finite have sample weight 0. With reduction "mean" the factors on the objectives are
    divided by the examples of all replicas together; with "sum" they are the sample weights.
    """
    observation, x, sample_weight, good = unpack(physics.simulator, data)
    weight = sample_weight
    if reduction == "mean":
        replicas = tf.distribute.get_strategy().num_replicas_in_sync
        weight /= tf.cast(tf.shape(weight)[0] * replicas, weight.dtype)
    z_true = None if x is None else physics.from_physical(x)
    batch = Batch(observation, *split_observation(observation), z_true, weight)
    return batch, sample_weight, {"bad_input": ~good}


class StepReport(NamedTuple):
    """What a method saw, per example, for the metrics.

    Attributes:
        z: The prediction before the update, in units of x_scale.
        y: P at it.
        update: What the network was asked to move by, in units of x_scale.
        failed: Boolean `[B]`.
        solver_steps: int `[B]`, or None where no solver took part.
    """

    z: tf.Tensor
    y: tf.Tensor
    update: tf.Tensor
    failed: tf.Tensor
    solver_steps: Any = None


class TrainingMethod:
    """How a batch becomes an update of the network's weights.

    **Must override** `desired_update(physics, batch, z) -> StepReport`: the change U of the prediction z that is asked
    for, for each example. The network then takes a step on 1/2 |z - (z0 + U)|^2, z0 + U a constant (Section 3.2).

    **May override** `direction(update)`, where the network is to descend another norm of z - (z0 + U);
    `train_step(physics, network, batch) -> StepReport`, where one step on such a loss is not what is wanted;
    `check(physics)`, which refuses a simulator or solver that lacks what the method needs; `needs_labels`, or
    `needs_labels_at(step)` where that changes during training; `optimizer_steps`, the number of optimizer steps in one
    training step; `residual` and `objective`, where second-order optimizers are to see more than that loss.

    `physics` is a `ScaledPhysics`, simulator and solver in units of x_scale; `network` a `ScaledNetwork`.
    """

    def __new__(cls, *args: Any, **kwargs: Any):
        check_arguments(cls, args, kwargs)
        return super().__new__(cls)

    # The solver to train with, where it is not the model's.
    solver: InverseSolver | None = None
    needs_labels = False
    optimizer_steps = 1
    # Norm of z - (z0 + U) that the network descends; second-order optimizers need the half square.
    proxy = "l2"

    def check(self, physics: ScaledPhysics) -> None:
        """Refuse a simulator or solver that lacks what the method needs."""

    def needs_labels_at(self, step: int) -> bool:
        """Whether a training step needs true causes, so many steps having been taken."""
        return self.needs_labels

    def check_unlabelled(self, step: int) -> None:
        """Refuse a batch without labels where the method needs them, so many training steps having been taken."""
        if self.needs_labels_at(step):
            raise ValueError(
                three_part(
                    f"true causes for method '{type(self).__name__}'",
                    "observations only",
                    "Fit on (observation, x), or choose method='sip'.",
                )
            )

    def desired_update(self, physics: ScaledPhysics, batch: Batch, z: tf.Tensor) -> StepReport:
        """U `[B, *x_shape]` of the prediction z, and what was seen on the way."""
        raise must_define(
            self,
            "desired_update(self, physics, batch, z)` or `train_step",
            "a training method with neither",
            "Return a StepReport with the update that the prediction z should make.",
        )

    def train_step(self, physics: ScaledPhysics, network: ScaledNetwork, batch: Batch) -> StepReport:
        """One training step of the network."""
        with tf.GradientTape() as tape:
            z, penalties = network(batch.observation, training=True)
        report = self.desired_update(physics, batch, z)
        network.apply_update(tape, z, penalties, self.direction(report.update), batch.weight)
        return report

    def direction(self, update: tf.Tensor) -> tf.Tensor:
        """Minus the gradient of the loss with respect to z; of 1/2 |z - (z0 + U)|^2 at z0 it is U."""
        return update

    def residual(self, physics: ScaledPhysics, batch: Batch, report: StepReport) -> Callable:
        """z -> r `[B, ...]` with 1/2 sum r^2 the loss of an example, constants taken from a report at the start."""
        # In this order U is never rounded against x.
        return lambda z: (z - report.z) - report.update

    def objective(self, physics: ScaledPhysics, batch: Batch, report: StepReport) -> Callable:
        """z -> the loss of each example `[B]`."""
        residual = self.residual(physics, batch, report)
        return lambda z: half_square(residual(z))

    def is_least_squares(self, physics: ScaledPhysics) -> bool:
        """Whether `residual` gives the loss."""
        return True

    def get_config(self):
        return dataclasses.asdict(self)

    @classmethod
    def from_config(cls, config):
        return cls(**config)


PROXIES = ("l2", "l1")
# What earlier versions' SIP set in the model's solver, by the names that solvers have for it.
SOLVER_OPTIONS = {
    "solver_steps": "max_steps",
    "solver_tolerance": "tolerance",
    "curvature_power": "curvature_power",
}


@keras.saving.register_keras_serializable(package="keras_sip")
@dataclasses.dataclass(frozen=True, kw_only=True)
class SIP(TrainingMethod):
    """The update of the model's inverse solver takes the place of the physics gradient (Eqs. 6 and 7).

    The regimes of Section 3 of the paper are settings of it:

        SIP()                                                               one solver step, Eq. 6
        SIP(GaussNewton(max_steps=m))                                       U = dx_0 + ... + dx_m
        SIP(GaussNewton(max_steps=1000, residual_tolerance=1e-6))           the solver run to convergence, Eq. 5
        SIP(updates_per_solve=K, sufficient_decrease=tau)                   Theorem 3

    Args:
        solver: The `InverseSolver` to train with; None takes the model's.
        step_size: Factor on U.
        updates_per_solve: Network updates towards one x_tilde = x0 + U before the solver is asked again (Theorem 3).
        sufficient_decrease: tau of Eq. 11, or None. With it, an example takes part in further updates of one solve only
            until its objective has fallen by tau/2 of L(x0), the stopping rule of Theorem 3 where L(x*) = 0.
        adjoint_mix: beta. With the downhill adjoint a of back-propagation, U becomes U + beta a |U| / |a|, |.| the root
            mean square over the batch: better in y, where the solver alone spends all effort on x. A number, a Keras
            schedule of the training step, or an `AdjointMix`, which may wait until updates are small.
        proxy: Norm of z - (z0 + U) that the network descends: "l2", half its square, or "l1", for which only the sign
            of each component of U counts (the authors' published code for the rotated sine).
    """

    solver: InverseSolver | None = dataclasses.field(default=None, kw_only=False)
    step_size: float = 1.0
    updates_per_solve: int = 1
    sufficient_decrease: float | None = None
    adjoint_mix: float | keras.optimizers.schedules.LearningRateSchedule | AdjointMix = 0.0
    proxy: str = "l2"

    def __post_init__(self):
        if self.solver is not None and not isinstance(self.solver, InverseSolver):
            raise TypeError(
                three_part(
                    "`solver` to be a keras_sip.InverseSolver, or None for the model's",
                    f"solver={self.solver!r}",
                    "Pass an instance such as GaussNewton(max_steps=3).",
                )
            )
        check_number("step_size", self.step_size, exclusive=True)
        check_positive_int("updates_per_solve", self.updates_per_solve)
        as_adjoint_mix(self.adjoint_mix)
        check_choice("proxy", self.proxy, PROXIES)
        if self.sufficient_decrease is not None:
            check_number("sufficient_decrease", self.sufficient_decrease, exclusive=True, maximum=1.0)

    @property
    def optimizer_steps(self):
        return self.updates_per_solve

    def check(self, physics):
        if self.solver is not None:
            self.solver.check(physics.scaled)
        elif physics.solver is None:
            raise ValueError(
                three_part(
                    "a solver for method 'sip'",
                    "solver=None",
                    "Pass one, such as GaussNewton(), or choose method='adjoint'.",
                )
            )

    def desired_update(self, physics, batch, z):
        y, result = physics.solve(z, batch.y_target, batch.context, self.solver)
        update = self.step_size * result.update
        mix = as_adjoint_mix(self.adjoint_mix)
        if mix is not None:
            _, downhill, _ = physics.adjoint(z, batch.y_target, batch.context)
            update += mix.added(update, downhill, batch.step)
        return StepReport(z, y, update, result.failed, result.num_steps)

    def direction(self, update):
        return tf.sign(update) if self.proxy == "l1" else update

    def train_step(self, physics, network, batch):
        report = super().train_step(physics, network, batch)
        # Unrolled: an optimizer step inside a while_loop fails under replicas.
        for _ in range(self.updates_per_solve - 1):
            with tf.GradientTape() as tape:
                z, penalties = network(batch.observation, training=True)
            # The part of U that is left, formed so that U itself is never rounded against x.
            left = report.update - (z - report.z)
            weight = batch.weight * self._unfinished(physics, batch, report, z)
            network.apply_update(tape, z, penalties, self.direction(left), weight)
        return report

    def _unfinished(self, physics, batch, report, z):
        """1 for examples whose objective has not yet fallen enough, else 0, `[B]`."""
        if self.sufficient_decrease is None:
            return tf.ones_like(batch.weight)
        before = physics.loss(report.y, batch.y_target, batch.context)
        now = physics.loss(physics.simulate(z, batch.context), batch.y_target, batch.context)
        reached = before - now >= 0.5 * self.sufficient_decrease * before
        return tf.cast(~reached, batch.weight.dtype)

    def get_config(self):
        config = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        solver = self.solver and keras.saving.serialize_keras_object(self.solver)
        mix = self.adjoint_mix
        mix = mix if isinstance(mix, (int, float)) else keras.saving.serialize_keras_object(mix)
        return {**config, "solver": solver, "adjoint_mix": mix}

    @classmethod
    def from_config(cls, config):
        earlier = {name: config[name] for name in SOLVER_OPTIONS if config.get(name) is not None}
        if earlier:
            raise ValueError(
                three_part(
                    "options of the solver to be given to the solver",
                    ", ".join(f"{name}={value!r}" for name, value in earlier.items()),
                    "Write SIP(GaussNewton(max_steps=3)); models saved with such options load as they are.",
                )
            )
        config = {name: value for name, value in config.items() if name not in SOLVER_OPTIONS}
        if isinstance(config.get("adjoint_mix"), dict):
            config["adjoint_mix"] = keras.saving.deserialize_keras_object(config["adjoint_mix"])
        solver = config.get("solver") and keras.saving.deserialize_keras_object(config["solver"])
        return cls(**{**config, "solver": solver})


@keras.saving.register_keras_serializable(package="keras_sip")
@dataclasses.dataclass(frozen=True, kw_only=True)
class Adjoint(TrainingMethod):
    """Back-propagation through the simulator: the network descends L itself (Eqs. 3 and 8)."""

    def desired_update(self, physics, batch, z):
        y, update, finite = physics.adjoint(z, batch.y_target, batch.context)
        return StepReport(z, y, update, ~finite)

    def residual(self, physics, batch, report):
        return lambda z: physics.simulator.residual(physics.simulate(z, batch.context), batch.y_target, batch.context)

    def objective(self, physics, batch, report):
        return lambda z: physics.objective(physics.simulate(z, batch.context), batch.y_target, batch.context)

    def is_least_squares(self, physics):
        return physics.simulator.is_least_squares


@keras.saving.register_keras_serializable(package="keras_sip")
@dataclasses.dataclass(frozen=True, kw_only=True)
class Supervised(TrainingMethod):
    """Regression on known causes: 1/2 |x - x*|^2 (Eq. 4)."""

    needs_labels = True

    def desired_update(self, physics, batch, z):
        update = batch.z_true - z
        finite = batched.all_finite(update)
        update = batched.where_example(finite, update, tf.zeros_like(update))
        return StepReport(z, physics.simulate(z, batch.context), update, ~finite)


@keras.saving.register_keras_serializable(package="keras_sip")
@dataclasses.dataclass(frozen=True, kw_only=True)
class SupervisedThenSIP(SIP):
    """Regression on known causes for the first training steps, `SIP` from then on: a warm start.

        model = SIPModel(network, simulator, solver, method=SupervisedThenSIP(supervised_steps=200))
        model.fit(simulated, steps_per_epoch=500)                       # (observation, x): the last 300 steps by SIP
        model.fit(measured_y, epochs=10)                                # then no labels are needed any more

    Labels teach a network roughly where x is, at the cost of no solver; the solver then starts where its steps are
    good, and goes on with observations that nobody has labelled. Which step it is, the count of the model's optimizer
    says, which is saved with it: training that is resumed goes on in the same phase. A model that is compiled anew
    starts anew, with labels.

    Args:
        supervised_steps: Training steps with labels, `SIPModel.training_steps`.
        solver, **options: As of `SIP`. What concerns the network's own steps (updates_per_solve, proxy) holds with
            labels too.
    """

    supervised_steps: int

    def __post_init__(self):
        super().__post_init__()
        check_positive_int("supervised_steps", self.supervised_steps, minimum=0)

    def needs_labels_at(self, step):
        return step < self.supervised_steps

    def desired_update(self, physics, batch, z):
        by_solver = functools.partial(super().desired_update, physics, batch, z)
        if batch.z_true is None or batch.step is None:
            return by_solver()

        def by_labels():
            report = Supervised().desired_update(physics, batch, z)
            return report._replace(solver_steps=tf.zeros_like(report.failed, tf.int32))

        # One graph for both: resumed or not, a step goes by the count alone.
        return tf.cond(batch.step < self.supervised_steps, by_labels, by_solver)


METHODS = {"sip": SIP, "adjoint": Adjoint, "supervised": Supervised}


def get(method: str | TrainingMethod) -> TrainingMethod:
    """The training method of a name ("sip", "adjoint", "supervised"), or the object itself."""
    if isinstance(method, TrainingMethod):
        return method
    if isinstance(method, str) and method in METHODS:
        return METHODS[method]()
    raise ValueError(
        three_part(
            f"`method` to be one of {', '.join(map(repr, METHODS))}, or a TrainingMethod object",
            f"method={method!r}",
            "Choose a listed name, or pass an object such as SIP(updates_per_solve=4).",
        )
    )


def moved_to_solver(method: dict, solver: dict | None) -> dict:
    """The config of a method of an earlier version, its options of the solver in a solver of its own."""
    options = {SOLVER_OPTIONS[name]: method["config"].get(name) for name in SOLVER_OPTIONS}
    options = {name: value for name, value in options.items() if value is not None}
    if solver is None or method["registered_name"] != "keras_sip>SIP" or not options:
        return method
    own = {name: value for name, value in method["config"].items() if name not in SOLVER_OPTIONS}
    own["solver"] = {**solver, "config": {**solver["config"], **options}}
    return {**method, "config": own}
