"""The registry of simulators and solvers that the property tests run over."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp

import covering
import keras_sip


@keras.saving.register_keras_serializable(package="keras_sip_tests")
def tanh_process(x):
    return tf.tanh(x)


@keras.saving.register_keras_serializable(package="keras_sip_tests")
def exponential_process(x):
    return tf.exp(x)


@keras.saving.register_keras_serializable(package="keras_sip_tests")
def tiny_tanh_process(x):
    """tanh in a unit in which numbers are near 1e-21, as the strain of a gravitational wave is."""
    return 1e-21 * tf.tanh(x)


@keras.saving.register_keras_serializable(package="keras_sip_tests")
def curved_process(x):
    """Smooth, nonlinear, three unknowns seen by four sensors; its Jacobian has full rank everywhere near 0."""
    mixed = tf.linalg.matmul(x, tf.constant(MIXING, x.dtype))
    return mixed + 0.1 * tf.sin(mixed)


MIXING = np.array([[1.0, 0.5, -0.3, 0.2], [0.2, 2.0, 0.4, -0.5], [-0.4, 0.3, 1.5, 0.8]])


@keras.saving.register_keras_serializable(package="keras_sip_tests")
class MaskedSensors(keras_sip.Simulator):
    """A simulator with a context: only some sensors work, and which is known."""

    x_shape, y_shape, dtype = (3,), (4,), "float64"

    def forward(self, x, context=None):
        return context["mask"] * curved_process(x)

    def sample(self, batch_size, seed):
        x_seed, mask_seed = tf.unstack(tf.random.split(seed))
        x = tf.random.stateless_normal((batch_size, 3), x_seed, dtype=tf.float64)
        mask = tf.cast(tf.random.stateless_uniform((batch_size, 4), mask_seed) > 0.2, tf.float64)
        context = {"mask": mask}
        return {"x": x, "y": self.forward(x, context), "context": context}


@keras.saving.register_keras_serializable(package="keras_sip_tests")
class MotionBlur(keras_sip.SpectralSimulator):
    """A convolution with a kernel that is not symmetric: each cell leaves a trail exp(-distance) to one side."""

    def transfer_function(self, frequencies):
        decay = np.exp(-1 - 2j * np.pi * self.spacing * frequencies[0])
        return (1 - np.exp(-1)) / (1 - decay) + 0.0 * frequencies[1]


@keras.saving.register_keras_serializable(package="keras_sip_tests")
class Directions(keras_sip.Simulator):
    """Angles as observations, whose objective sum(1 - cos(y - y*)) is no half sum of squares."""

    x_shape, y_shape, dtype = (3,), (4,), "float64"

    def forward(self, x, context=None):
        return curved_process(x)

    def objective(self, y, y_target, context=None):
        return tf.reduce_sum(1 - tf.cos(y - y_target), axis=1)


@dataclasses.dataclass(frozen=True, eq=False)
class Problem:
    """A simulator with a start and a target for every example, and solvers that serve it."""

    name: str
    simulator: Any
    points: Callable  # (seed) -> (x0, x_true), NumPy [B, *x_shape]
    context: Any = None
    # Those whose properties are tested on it, where that is not all: tracing a flow takes seconds.
    solvers: tuple | None = None
    linear: bool = False
    underflows: bool = False  # squares of y are 0 in its precision

    def start_and_target(self, seed=0):
        x0, x_true = (tf.constant(value, self.simulator.dtype) for value in self.points(seed))
        return x0, self.simulator.forward(x_true, self.context), x_true

    def shapes(self):
        return self.simulator.x_shape, self.simulator.y_shape

    def known(self, examples=slice(None)):
        """(context,) of some examples, () where there is no context: the last argument of the compiled functions."""
        return tuple({name: entry[examples] for name, entry in part.items()} for part in (self.context,) if part)

    def compiled(self, function, *specs, jit_compile=False):
        """`function(*fields, context=None)`, compiled for batches of any size; `specs` say which fields are x or y."""
        shapes = {"x": self.simulator.x_shape, "y": self.simulator.y_shape}
        fields = [tf.TensorSpec((None, *shapes[name]), self.simulator.dtype) for name in specs]
        context = tf.nest.map_structure(
            lambda entry: tf.TensorSpec((None, *entry.shape[1:]), entry.dtype), self.known()
        )
        # Without autograph tracing is quicker; the package has no Python branches on tensors.
        signature = (*fields, *context)
        return tf.function(function, input_signature=signature, jit_compile=jit_compile, autograph=False)

    def __repr__(self):
        return self.name


def _normal_pair(*shape, spread=0.3, unit=1.0):
    def points(seed):
        generator = np.random.default_rng(seed)
        x_true = generator.standard_normal(shape)
        return unit * (x_true + spread * generator.standard_normal(shape)), unit * x_true

    return points


def _around(centre, spread=0.3):
    """Points near `centre`, for systems that are regular there and not near 0."""

    def points(seed):
        generator = np.random.default_rng(seed)
        x_true = np.array(centre) + spread * generator.standard_normal((BATCH, len(centre)))
        return x_true + spread * generator.standard_normal(x_true.shape), x_true

    return points


def _mask(batch):
    mask = np.ones((batch, 4))
    mask[::2, 1] = 0.0
    return {"mask": tf.constant(mask)}


def _silent_sensor(batch):
    """Noise of a known size and one silent sensor in every other example, as `Degraded` hands them on."""
    mask = np.ones((batch, 9, 1))
    mask[::2, 4] = 0.0
    return {"sensor_mask": tf.constant(mask), "noise_level": tf.fill([batch], tf.constant(1e-3, tf.float64))}


def _marker(batch, *resolution):
    return {"marker": tf.constant(np.random.default_rng(1).uniform(size=(batch, *resolution, 1)))}


BATCH = 4
CURVED = keras_sip.from_function(curved_process, 3, dtype="float64")
PROBLEMS = [
    Problem("poisson_float32", keras_sip.Poisson((6, 4)), _normal_pair(BATCH, 6, 4, 1), linear=True),
    Problem("poisson_float64", keras_sip.Poisson((4, 5), dtype="float64"), _normal_pair(BATCH, 4, 5, 1), linear=True),
    Problem(
        "poisson_periodic",
        keras_sip.Poisson((4, 5), boundary="periodic", dtype="float64"),
        _normal_pair(BATCH, 4, 5, 1),
        linear=True,
    ),
    Problem("poisson_1d", keras_sip.Poisson(9, spacing=0.5, dtype="float64"), _normal_pair(BATCH, 9, 1), linear=True),
    Problem(
        "laplacian_periodic",
        keras_sip.Laplacian((5, 4), boundary="periodic", dtype="float64"),
        _normal_pair(BATCH, 5, 4, 1),
        solvers=(keras_sip.AnalyticInverse,),
        linear=True,
    ),
    Problem("heat", keras_sip.Heat((6, 5), diffusion=0.2), _normal_pair(BATCH, 6, 5, 1), linear=True),
    Problem(
        "heat_insulated",
        keras_sip.Heat(9, diffusion=0.05, spacing=0.5, boundary="insulated"),
        _normal_pair(BATCH, 9, 1),
        linear=True,
    ),
    Problem("motion_blur", MotionBlur((4, 3), channels=2), _normal_pair(BATCH, 4, 3, 2), linear=True),
    Problem("tanh", keras_sip.from_function(tanh_process, 2, dtype="float64"), _normal_pair(BATCH, 2)),
    Problem("tanh_times_1e-21", keras_sip.from_function(tiny_tanh_process, 2), _normal_pair(BATCH, 2), underflows=True),
    Problem("curved", CURVED, _normal_pair(BATCH, 3)),
    Problem(
        "curved_nondimensional",
        keras_sip.Nondimensional(CURVED, x_scale=[0.1, 1.0, 10.0]),
        _normal_pair(BATCH, 3, unit=1 / np.array([0.1, 1.0, 10.0])),
    ),
    Problem(
        "positive",
        keras_sip.Constrained(CURVED, tfp.bijectors.Softplus()),
        _normal_pair(BATCH, 3),
        solvers=(keras_sip.GaussNewton, keras_sip.GradientDescent),
    ),
    Problem("masked_sensors", MaskedSensors(), _normal_pair(BATCH, 3), _mask(BATCH)),
    Problem(
        "poisson_degraded",
        keras_sip.Degraded(keras_sip.Poisson(9, dtype="float64"), noise=1e-3, missing_sensors=0.1),
        _normal_pair(BATCH, 9, 1),
        _silent_sensor(BATCH),
        linear=True,
    ),
    Problem("directions", Directions(), _normal_pair(BATCH, 3)),
    Problem("quartic_bowl", keras_sip.QuarticBowl(dtype="float64"), _around([1.0, 2.0])),
    Problem("exponential", keras_sip.Exponential(dtype="float64"), _around([-6.0])),
    Problem(
        "rotated_sines",
        keras_sip.RotatedSine(map="released", dtype="float64"),
        _normal_pair(BATCH, 2, spread=0.05, unit=0.1),
        {"xi": tf.constant([1.0, 2.0, 4.0, 8.0], tf.float64), "phi": tf.constant([0.0, 15.0, 45.0, 90.0], tf.float64)},
    ),
    Problem(
        "wave_packet",
        keras_sip.WavePacket(24, width=0.3, frequencies=(0.5, 1.5), dtype="float64"),
        _around([0.5, 1.0], spread=0.05),
        solvers=(keras_sip.LevenbergMarquardt,),
    ),
    Problem(
        "darcy_flow",
        keras_sip.DarcyFlow((3, 2), dtype="float64"),
        _normal_pair(BATCH, 3, 2, 1),
        solvers=(keras_sip.GaussNewton,),
    ),
    Problem(
        "acoustic_wave",
        keras_sip.AcousticWave(6, num_steps=4, receivers=2, dtype="float64"),
        _normal_pair(BATCH, 6, 1, unit=0.2),
        solvers=(),
    ),
    Problem(
        "acoustic_survey",
        keras_sip.AcousticSurvey(
            (4, 3), num_steps=4, steps_between=2, shots=1, receivers=2, absorbing=1, dtype="float64"
        ),
        _normal_pair(BATCH, 4, 3, 1, unit=0.2),
        solvers=(),
    ),
    Problem(
        "burgers",
        keras_sip.Burgers(5, num_steps=2, duration=0.1, force_scale=0.5, dtype="float64"),
        _normal_pair(BATCH, 5, 2, unit=0.3),
        solvers=(),
    ),
    Problem(
        "lorenz",
        keras_sip.Lorenz(window=0.2, num_times=2, step_size=0.05, dtype="float64"),
        _around([5.0, 7.0, 20.0]),
        solvers=(),
    ),
    Problem(
        "oscillators",
        keras_sip.Oscillators(8, step_size=0.3, dtype="float64"),
        _normal_pair(BATCH, 8),
        {"initial_state": tf.constant(np.random.default_rng(2).uniform(size=(BATCH, 4)))},
        solvers=(keras_sip.GaussNewton,),
    ),
    Problem(
        "quantum_dipole",
        keras_sip.QuantumDipole(6, points=3, step_size=0.2, dtype="float64"),
        _normal_pair(BATCH, 6),
        # Its observation is of unit norm: another unit of y is another problem.
        solvers=(),
    ),
    Problem(
        "navier_stokes",
        keras_sip.NavierStokes((8, 5), num_steps=1, viscosity=0.1, dtype="float64"),
        _normal_pair(BATCH, 8, 5, 2, unit=3.0),
        _marker(BATCH, 8, 5),
        solvers=(keras_sip.ReverseSimulation,),
    ),
]
CONVERGED_GAUSS_NEWTON = keras_sip.GaussNewton(cg_steps=60, cg_tolerance=1e-9)
SOLVERS = [
    keras_sip.AnalyticInverse(),
    keras_sip.DampedSpectralInverse(),
    keras_sip.WienerInverse(noise=1e-3),
    keras_sip.GradientDescent(step_size=0.1, max_steps=3),
    CONVERGED_GAUSS_NEWTON,
    keras_sip.LevenbergMarquardt(max_steps=2, cg_steps=12),
    keras_sip.Newton(),
    keras_sip.SaddleFreeNewton(max_steps=2, max_relative_loss_change=2.0),
    keras_sip.NormalizedGradient(step_size=0.1, max_steps=3),
    keras_sip.SignStep(step_size=0.1, max_steps=3),
    keras_sip.LBFGS(max_steps=2),
    keras_sip.LBFGS(max_steps=2, full_matrix=True),
    keras_sip.LimitedStep(CONVERGED_GAUSS_NEWTON, max_norm=0.2),
    keras_sip.LineSearch(CONVERGED_GAUSS_NEWTON),
    keras_sip.Fallback(CONVERGED_GAUSS_NEWTON, keras_sip.GradientDescent(step_size=0.1)),
    keras_sip.Chain(keras_sip.GradientDescent(step_size=0.1), keras_sip.AnalyticInverse()),
    keras_sip.ReverseSimulation(max_steps=2),
    keras_sip.MaximumAPosteriori(max_steps=2),
]


def problem(name):
    return next(entry for entry in PROBLEMS if entry.name == name)


def serves(solver, problem):
    """Whether the simulator has what the solver needs, and the problem is one that the solver is tested on."""
    if problem.solvers is not None and not isinstance(solver, problem.solvers):
        return False
    if problem.name == "poisson_degraded" and isinstance(solver, keras_sip.Newton | keras_sip.SaddleFreeNewton):
        # A silent sensor leaves directions without curvature, along which a step of theirs is made of rounding.
        return False
    try:
        solver.check(problem.simulator)
    except TypeError:
        return False
    return True


SERVED = [(solver, problem) for solver in SOLVERS for problem in PROBLEMS if serves(solver, problem)]
PAIRS = covering.cover(SERVED)
PAIR_IDS = [f"{type(s).__name__}-{s.max_steps}-{p.name}" for s, p in PAIRS]


@functools.cache
def compiled_solve(solver, problem, *, jit_compile=False):
    """`solve(x0, y_target, *problem.known()) -> SolverResult`, traced once for the whole session."""

    def solve(x0, y_target, context=None):
        return solver.solve(problem.simulator, x0, y_target, context, evaluate_result=True)

    return problem.compiled(solve, "x", "y", jit_compile=jit_compile)
