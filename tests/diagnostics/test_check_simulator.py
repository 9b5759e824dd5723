"""check_simulator finds what is broken, names it, says what to do, and finds nothing where nothing is."""

import io
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_sip
from keras_sip.diagnostics import Verdict
from problems import PROBLEMS


@keras.saving.register_keras_serializable(package="keras_sip_tests")
class Sound(keras_sip.Simulator):
    """Nothing is wrong with it; each simulator below breaks one thing."""

    x_shape = y_shape = (2,)

    def forward(self, x, context=None):
        return tf.sinh(x)

    def inverse(self, y_target, x_near, context=None):
        return tf.asinh(y_target)

    def sample(self, batch_size, seed):
        x = tf.random.stateless_normal((batch_size, 2), seed)
        return {"x": x, "y": self.forward(x)}


class WithoutInverse(Sound):
    def has(self, method):
        return method != "inverse" and super().has(method)


class WrongGradient(WithoutInverse):
    def forward(self, x, context=None):
        @tf.custom_gradient
        def sinh(x):
            return tf.sinh(x), lambda w: 1.1 * w * tf.cosh(x)

        return sinh(x)


class WrongTranspose(WithoutInverse):
    """Its gradient is not linear in w: clipped, as people do to tame it."""

    def forward(self, x, context=None):
        @tf.custom_gradient
        def sinh(x):
            return tf.sinh(x), lambda w: tf.clip_by_value(w, -0.1, 0.1) * tf.cosh(x)

        return sinh(x)


class NoGradientAtZero(WithoutInverse):
    def forward(self, x, context=None):
        return tf.concat([x[:, :1], tf.sqrt(tf.reduce_sum(tf.square(x), axis=1, keepdims=True))], axis=1)


class NoGradientWhereFlat(WithoutInverse):
    def forward(self, x, context=None):
        return tf.concat([x[:, :1], tf.sqrt(tf.abs(x[:, 1:] - x[:, :1]))], axis=1)

    def sample(self, batch_size, seed):
        # Components of one size, far from each other: flat x is no example.
        x = tf.random.stateless_uniform((batch_size, 1), seed, 1.0, 2.0) * [[1.0, -1.0]]
        return {"x": x, "y": self.forward(x)}


class NoGradient(WithoutInverse):
    def forward(self, x, context=None):
        return tf.round(10 * x)


class Coupled(WithoutInverse):
    def forward(self, x, context=None):
        return tf.sinh(x - tf.reduce_mean(x, axis=0))


class WrongShape(WithoutInverse):
    y_shape = (3,)


class WrongPrecision(WithoutInverse):
    dtype = "float64"

    def forward(self, x, context=None):
        return tf.cast(tf.sinh(x), tf.float32)


class TrainableInside(WithoutInverse):
    def __init__(self):
        self.factor = tf.Variable(2.0)

    def forward(self, x, context=None):
        return self.factor * tf.sinh(x)


class OutsideOfTensorFlow(WithoutInverse):
    def forward(self, x, context=None):
        return tf.ensure_shape(tf.py_function(tf.sinh, [x], x.dtype), (None, 2))


class DynamicShape(WithoutInverse):
    def forward(self, x, context=None):
        return tf.transpose(tf.boolean_mask(tf.transpose(tf.sinh(x)), tf.size(x) * [1, 1] > 0))


class PythonBranch(WithoutInverse):
    def forward(self, x, context=None):
        return tf.sinh(x) if tf.size(x) > 0 else x


class NoInverse(Sound):
    def inverse(self, y_target, x_near, context=None):
        return y_target


class RandomSample(WithoutInverse):
    def sample(self, batch_size, seed):
        x = tf.random.normal((batch_size, 2))
        return {"x": x, "y": self.forward(x)}


class FixedSample(WithoutInverse):
    def sample(self, batch_size, seed):
        return super().sample(batch_size, (0, 0))


class WrongSample(WithoutInverse):
    def sample(self, batch_size, seed):
        return tuple(super().sample(batch_size, seed).values())


class BiasedResidual(WithoutInverse):
    def residual(self, y, y_target, context=None):
        return y - y_target + 1.0


class ObjectiveOverBatch(WithoutInverse):
    def objective(self, y, y_target, context=None):
        return tf.reduce_sum(tf.square(y - y_target))


class SignedDistance(WithoutInverse):
    def distance(self, x, x_ref):
        return tf.reduce_sum(x - x_ref, axis=1)


class WrongProjection(WithoutInverse):
    def project(self, x, observation):
        return x[:, :1]


class NegativeScale(WithoutInverse):
    x_scale = -1.0


class UnstatedInput(WithoutInverse):
    def network_input(self, observation):
        return tf.math.log(observation - 100.0)


@keras.saving.register_keras_serializable(package="keras_sip_tests")
class Forgetful(WithoutInverse):
    def __init__(self, factor=1.0):
        self.factor = 2 * factor

    def forward(self, x, context=None):
        return self.factor * tf.sinh(x)

    def get_config(self):
        return {"factor": self.factor}


class Raises(WithoutInverse):
    def forward(self, x, context=None):
        return x @ tf.zeros((3, 2))


class Unshaped(keras_sip.Simulator):
    pass


BROKEN = {
    WrongGradient: {"jvp", "vjp"},
    WrongTranspose: {"vjp", "dot test"},
    NoGradientAtZero: {"gradient, x = 0"},
    NoGradientWhereFlat: {"gradient, x = 0", "gradient, flat x"},
    NoGradient: {"gradient"},
    Coupled: {"NaN example", "batch"},
    WrongShape: {"sample", "forward"},
    WrongPrecision: {"sample", "forward"},
    TrainableInside: {"variables"},
    DynamicShape: {"graph = eager"},
    PythonBranch: {"seed", "graph = eager"},
    NoInverse: {"inverse"},
    RandomSample: {"seed"},
    FixedSample: {"seed"},
    WrongSample: {"sample"},
    BiasedResidual: {"residual"},
    ObjectiveOverBatch: {"objective"},
    SignedDistance: {"distance"},
    WrongProjection: {"project"},
    NegativeScale: {"x_scale"},
    UnstatedInput: {"network input"},
    Forgetful: {"configuration"},
    Raises: {"sample", "forward"},
    Unshaped: {"interface"},
}


def check(simulator, *, solver_steps=False, **options):
    """Solvers' steps compile the most: where they are what is tested only."""
    return keras_sip.check_simulator(simulator, solver_steps=solver_steps, print_report=False, **options)


def names(findings):
    return {finding.name for finding in findings}


# The fluid's grid in the registry is too coarse for its own samples.
@pytest.mark.parametrize("problem", [entry for entry in PROBLEMS if entry.name != "navier_stokes"], ids=repr)
def test_every_simulator_of_the_registry_passes(problem):
    x = problem.start_and_target()[2]
    report = check(problem.simulator, x=x, context=problem.context)
    assert report.passed, str(report)


@pytest.mark.parametrize("broken", BROKEN, ids=lambda broken: broken.__name__)
def test_what_is_broken_is_named_with_a_remedy_and_nothing_else(broken):
    report = check(broken())
    assert names(report.failures) == BROKEN[broken], str(report)
    assert not report.passed
    assert all(finding.remedy for finding in report.failures)


def test_what_xla_cannot_compile_is_named():
    report = check(OutsideOfTensorFlow())
    # TensorFlow cannot differentiate a py_function twice either, which J v needs.
    assert names(report.failures) - {"jvp", "vjp", "dot test"} == {"XLA = eager"}
    assert "py_function" in report["XLA = eager"].remedy


def test_sound_simulator_passes_every_check_that_applies():
    report = check(Sound(), solver_steps=True)
    for name in ("CG step", "dense step", "Newton step"):
        assert "adjoint steps" in report[name].measured
    assert names(f for f in report.findings if f.verdict is not Verdict.PASSED) == {"project"}
    assert report["project"].verdict is Verdict.SKIPPED


def test_what_is_no_simulator_is_a_finding_too():
    report = check(42)
    assert names(report.failures) == {"interface"}
    assert "keras_sip.Simulator" in report["interface"].remedy


def test_unregistered_simulator_is_told_the_line_to_add():
    report = check(WithoutInverse())
    assert report["configuration"].verdict is Verdict.NOTE
    assert "@keras.saving.register_keras_serializable" in report["configuration"].remedy


def test_physics_that_is_undefined_at_zero_is_noted_and_not_failed():
    positive = keras_sip.from_function(tf.math.log, 2)
    report = check(positive, x=np.float32([[1.0, 2.0], [3.0, 0.5]]))
    assert report["gradient, x = 0"].verdict is Verdict.NOTE
    assert report.passed


def test_missing_context_is_explained():
    needs_context = keras_sip.from_function(lambda x, context: x * context["gain"], 2, y_shape=2)
    report = check(needs_context)
    assert names(report.failures) == {"forward"}
    assert "context" in report["forward"].remedy


def test_report_is_printed_and_fits_80_columns(capsys):
    report = keras_sip.check_simulator(Coupled(), solver_steps=False)
    printed = capsys.readouterr().out
    assert printed == f"{report}\n"
    assert max(map(len, printed.splitlines())) <= 80
    assert "FAIL  batch" in printed
    assert "2 of 23 checks failed." in printed


class Says(WithoutInverse):
    """Notes what has been printed when it is first differentiated."""

    def __init__(self, said):
        self.said = said

    def objective(self, y, y_target, context=None):
        self.said.append(sys.stdout.getvalue())
        return super().objective(y, y_target, context)


def test_findings_are_printed_as_they_come(monkeypatch):
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    said = []
    keras_sip.check_simulator(Says(said), solver_steps=False)
    assert "residual" in said[0]
    assert "network input" not in said[0]


class Stepping(WithoutInverse):
    """A raw loop that reads a constant: y and J^T w compile, J v does not."""

    def forward(self, x, context=None):
        matrix = tf.constant([[0.9, 0.1], [-0.1, 0.8]])

        def step(i, s):
            return i + 1, tf.tanh(tf.matmul(s, matrix))

        return tf.while_loop(lambda i, s: i < 4, step, (0, x), maximum_iterations=4)[1]


def test_a_loop_that_solvers_cannot_compile_is_named_with_the_remedy():
    report = check(Stepping(), solver_steps=True)
    assert names(report.failures) == {"J v under XLA"}
    assert "ops.integrate" in report["J v under XLA"].remedy


class Inverting(WithoutInverse):
    """Its kernel raises where an example is NaN."""

    def forward(self, x, context=None):
        matrix = tf.linalg.diag(1 + x * x)
        return tf.linalg.solve(matrix, x[..., None])[..., 0]


def test_a_kernel_that_raises_is_named_with_the_remedy_and_other_checks_go_on():
    report = check(Inverting())
    assert names(report.failures) == {"NaN example"}
    assert "MatrixSolve" in report["NaN example"].measured
    assert "ops.solve" in report["NaN example"].remedy
    assert report["jvp"].verdict is Verdict.PASSED


def test_a_single_given_example_is_not_enough():
    report = check(Sound(), x=np.zeros((1, 2), "float32"))
    assert "at least two examples" in report["forward"].measured


def test_a_single_example_is_refused():
    with pytest.raises(ValueError, match="num_examples"):
        keras_sip.check_simulator(Sound(), num_examples=1)
