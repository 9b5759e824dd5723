"""What the training-step benchmarks measure: a model of each method on a physical system, and the parts of a step."""

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import tensorflow as tf

import keras_sip


class System(NamedTuple):
    """A physical system of the paper.

    Attributes:
        title: Its name in tables.
        simulator: `resolution -> Simulator`.
        solver: `() -> InverseSolver` of the method "sip".
        padding: Of the U-Net.
        compared: (method, what it is compared with, limit of the ratio).
    """

    title: str
    simulator: Callable
    solver: Callable
    padding: str
    compared: tuple


SYSTEMS = {
    "poisson": System(
        title="Poisson",
        simulator=keras_sip.Poisson,
        solver=keras_sip.AnalyticInverse,
        padding="zero",
        compared=(
            ("sip", "keras", 1.10),
            ("sip", "supervised", 1.10),
            ("sip", "adjoint", 1.05),
            ("gauss_newton", "supervised", None),
        ),
    ),
    "heat": System(
        title="Heat",
        simulator=keras_sip.Heat,
        solver=keras_sip.DampedSpectralInverse,
        padding="periodic",
        compared=(
            ("sip", "keras", None),
            ("sip", "supervised", 1.15),
            ("sip", "adjoint", None),
            ("gauss_newton", "supervised", None),
        ),
    ),
}


@dataclasses.dataclass(frozen=True)
class Problem:
    """A system with the paper's U-Net.

    Args:
        system: Name of a `System`.
        resolution: Cells along each of the two axes.
        batch: Examples in a batch.
        levels: Resolutions of the U-Net.
        cg_steps: Conjugate-gradient steps of Gauss-Newton.
    """

    system: str = "poisson"
    resolution: int = 64
    batch: int = 128
    levels: int = 4
    cg_steps: int = 60

    def simulator(self):
        return SYSTEMS[self.system].simulator((self.resolution, self.resolution))

    def network(self, simulator):
        padding = SYSTEMS[self.system].padding
        return keras_sip.UNet(simulator.y_shape, simulator.x_shape[-1], levels=self.levels, padding=padding, seed=0)

    def model(self, method, **options):
        """The model of a method in `METHODS`, compiled with Adam and `options`."""
        simulator = self.simulator()
        return METHODS[method](self, self.network(simulator), simulator, options)

    def data(self):
        return keras_sip.dataset(self.simulator(), self.batch, seed=0)

    def fixed_batch(self):
        return next(iter(self.data()))


def keras_regression(problem, network, simulator, options):
    """The floor: the same network on (y, x) with nothing of this package around it."""
    network.compile("adam", "mse", **options)
    return network


def sip_model(method, solver=None):
    """The builder of a `SIPModel`; `solver` is `problem -> InverseSolver`."""

    def build(problem, network, simulator, options):
        model = keras_sip.SIPModel(network, simulator, solver(problem) if solver else None, method)
        model.compile("adam", **options)
        return model

    return build


METHODS = {
    "keras": keras_regression,
    "supervised": sip_model("supervised"),
    "adjoint": sip_model("adjoint"),
    "sip": sip_model("sip", lambda problem: SYSTEMS[problem.system].solver()),
    "gauss_newton": sip_model("sip", lambda problem: keras_sip.GaussNewton(cg_steps=problem.cg_steps)),
}


class Part(NamedTuple):
    """A piece of a training step: `function(*arguments)`."""

    function: Callable
    arguments: tuple


def parts(problem):
    """{name: Part} of the training steps; each can be compiled alone, with XLA or without."""
    # Not compiled inside: whether to use XLA is what is measured.
    sip = problem.model("sip", jit_compile=False)
    newton = problem.model("gauss_newton", jit_compile=False)
    simulator = sip.simulator
    y_target, x_true = problem.fixed_batch()
    z = tf.zeros_like(x_true)
    y = simulator.forward(z)
    weight = tf.fill([problem.batch], tf.constant(1.0 / problem.batch, simulator.dtype))

    def data(step):
        return simulator.sample(problem.batch, tf.stack([tf.constant(0, tf.int64), step]))

    def network(y_target, update, weight):
        with tf.GradientTape() as tape:
            z, penalties = sip.scaled_network(y_target, training=True)
        sip.scaled_network.apply_update(tape, z, penalties, update, weight)
        return z

    def physics(z):
        return sip.physics.simulate(z, None)

    def physics_gradient(z, cotangent):
        with tf.GradientTape() as tape:
            tape.watch(z)
            y = sip.physics.simulate(z, None)
        return y, tape.gradient(y, z, output_gradients=cotangent)

    def solver_of(model):
        return lambda z, y_target, y: model.solver.solve(model.physics.scaled, z, y_target, y0=y).update

    return {
        "data": Part(data, (tf.constant(0, tf.int64),)),
        "network": Part(network, (y_target, x_true, weight)),
        "physics": Part(physics, (z,)),
        "physics + adjoint": Part(physics_gradient, (z, y - y_target)),
        "solver sip": Part(solver_of(sip), (z, y_target, y)),
        "solver gauss_newton": Part(solver_of(newton), (z, y_target, y)),
    }
