"""Training does not depend on the units of x and y: metrics, guards, refined answers and the functional route."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_sip
from keras_sip.callbacks import NonFiniteGuard

UNIT_OF_X = np.array([1e-3, 1.0, 1e3], "float32")
MIX = np.random.default_rng(0).standard_normal((3, 12)).astype("float32")


class Unsampled(keras_sip.Simulator):
    """Three unknowns of sizes 1e-3, 1 and 1e3, in twelve mixtures that bend a little; y in any unit."""

    x_shape, y_shape = (3,), (12,)
    prefers_xla = False
    x_scale = UNIT_OF_X.tolist()

    def __init__(self, unit_of_y=1.0):
        self.unit_of_y = unit_of_y

    def forward(self, x, context=None):
        u = x / UNIT_OF_X
        return self.unit_of_y * ((u + 0.3 * tf.sin(2 * tf.roll(u, 1, 1))) @ MIX)


class Mixed(Unsampled):
    def sample(self, batch_size, seed):
        x = UNIT_OF_X * (1 + tf.random.stateless_uniform((batch_size, 3), seed, -0.5, 0.5))
        return {"x": x, "y": self.forward(x)}


def network():
    return keras_sip.MLP(12, 3, (16,), activation="tanh", seed=0)


def errors(x, x_true):
    """Mean absolute errors of the components, in units of their size."""
    return np.mean(np.abs(x - x_true) / UNIT_OF_X, axis=0)


def test_functional_route_learns_components_of_all_sizes_as_the_model_does():
    simulator, solver = Mixed(), keras_sip.GaussNewton()
    y, x_true = keras_sip.evaluation_set(simulator, 128, seed=1)
    data = keras_sip.dataset(simulator, 64, seed=0).take(200)
    options = {"steps_per_execution": 50, "jit_compile": False}

    model = keras_sip.SIPModel(network(), simulator, solver, input_scale=1.0)
    before = errors(model.predict(y, verbose=0), x_true)
    model.compile(keras.optimizers.Adam(5e-3), **options)
    model.fit(data, verbose=0)
    of_model = errors(model.predict(y, verbose=0), x_true)

    of_functional = network()
    x = keras_sip.Scale(simulator)(of_functional.output)
    simulated = keras_sip.SIPPhysicsLayer(simulator, solver)(x, y_target=of_functional.input)
    functional = keras.Model(of_functional.input, simulated)
    functional.compile(keras.optimizers.Adam(5e-3), keras_sip.HalfSumOfSquares(), **options)
    functional.fit(data.map(lambda y, x: (y, y)), shuffle=False, verbose=0)
    received = errors(keras.Model(of_functional.input, x).predict(y, verbose=0), x_true)
    # Each component has learnt, and as well as in the model.
    assert np.all(of_model < before / 4)
    assert np.all(received < 1.5 * of_model) and np.all(of_model < 1.5 * received)


@pytest.mark.parametrize("unit", [1e-30, 1e30])
def test_losses_and_guards_hold_any_unit_of_y(unit):
    simulator, plain = Mixed(unit), Mixed()
    y, x_true = keras_sip.evaluation_set(plain, 8, seed=1)
    model = keras_sip.SIPModel(network(), simulator, keras_sip.GaussNewton())
    model.compile(keras.optimizers.SGD(1e-3), run_eagerly=True, evaluate_solver=True)
    x = model.predict(unit * y, verbose=0)
    residual = (plain(x) - y).numpy().astype("float64")
    expected = unit**2 * np.mean(0.5 * np.sum(residual**2, axis=1))
    measured = model.evaluate(unit * y, x_true, verbose=0, return_dict=True)
    assert measured["loss"] == pytest.approx(expected, rel=1e-5)
    assert measured["not_descending"] == 0 and measured["failed"] == 0
    history = model.fit(unit * y, x_true, epochs=2, verbose=0, callbacks=[NonFiniteGuard()]).history
    assert history["loss"][0] == pytest.approx(expected, rel=1e-5)
    assert history["not_descending"][0] == 0


@pytest.mark.parametrize("unit", [1e-30, 1e30])
def test_refined_answers_of_model_and_export_hold_any_unit_of_y(unit, tmp_path):
    # Without samples, of which a prior would be measured and exported too.
    simulator = Unsampled(unit)
    y = keras_sip.evaluation_set(Mixed(unit), 4, seed=1)[0]
    model = keras_sip.SIPModel(network(), simulator, keras_sip.GaussNewton(), input_scale=unit)
    start = simulator.objective(simulator(model(y)) / unit, y / unit).numpy()
    model.export(tmp_path / "served")
    served = tf.saved_model.load(str(tmp_path / "served")).signatures["refine"](y=y, steps=tf.constant(8))
    result = model.refine(y, 8)
    assert served["valid"].numpy().all()
    for objective in (served["objective"], result.objective):
        # The rounding of float32, squared, on twelve sensors of size 3.
        assert np.max(objective) < 1e-10 * unit**2
    assert np.all(result.objective.numpy() / np.float64(unit) ** 2 <= start)
    np.testing.assert_allclose(served["x"], result.x, rtol=1e-4)


# Gauss-Newton: in units that are harder, above.
SOLVERS = [
    keras_sip.LevenbergMarquardt(),
    keras_sip.SaddleFreeNewton(curvature_power=0.5),
    keras_sip.Chain(keras_sip.GradientDescent(step_size=1e-2), keras_sip.GaussNewton()),
]


@pytest.mark.parametrize("solver", SOLVERS, ids=lambda solver: type(solver).__name__)
def test_model_and_export_refine_alike_and_never_for_the_worse(solver, tmp_path):
    simulator = Unsampled()
    y = keras_sip.evaluation_set(Mixed(), 4, seed=2)[0]
    model = keras_sip.SIPModel(network(), simulator, solver, input_scale=1.0)
    answer = model(y)
    start = simulator.objective(simulator(answer), y).numpy()
    model.export(tmp_path / "served")
    served = tf.saved_model.load(str(tmp_path / "served")).signatures["refine"](y=y, steps=tf.constant(3))
    result = model.refine(y, 3)
    np.testing.assert_allclose(served["objective"], result.objective, rtol=1e-3, atol=1e-6 * start.max())
    np.testing.assert_allclose(served["x"] / UNIT_OF_X, result.x / UNIT_OF_X, atol=1e-3)
    assert np.all(result.objective.numpy() <= start * (1 + 1e-5))
    again = simulator.objective(simulator(result.x), y)
    np.testing.assert_allclose(again, result.objective, rtol=1e-3, atol=1e-6 * start.max())
