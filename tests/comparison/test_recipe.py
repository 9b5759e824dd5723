"""recipe: choices that follow from what is measured, and compare's method of that name."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_sip
from keras_sip.diagnostics import diagnosis


class Turned(keras_sip.Simulator):
    """A rotation of the plane: all directions of x act alike, and back-propagation is as good as any inverse."""

    x_shape = y_shape = (2,)
    dtype = "float64"
    prefers_xla = False

    def forward(self, x, context=None):
        return tf.linalg.matmul(x, tf.constant([[0.6, 0.8], [-0.8, 0.6]], x.dtype))

    def sample(self, batch_size, seed):
        x = keras_sip.ops.random_fields.normal([batch_size, 2], seed, dtype=self.dtype)
        return {"x": x, "y": self.forward(x)}


@pytest.fixture(scope="module")
def uneven():
    return keras_sip.recipe(keras_sip.Exponential(), steps=400)


def test_uneven_gradients_take_sip_with_the_diagnosed_solver(uneven):
    assert isinstance(uneven.method, keras_sip.SIP)
    assert uneven.solver == uneven.diagnosis.solver == keras_sip.AnalyticInverse()
    assert f"10^{uneven.diagnosis.gradient_decades:.1f}" in uneven.reasons["method"]
    assert uneven.diagnosis.gradient_decades > 3


def test_the_rate_of_vectors_falls_to_zero_over_the_steps(uneven):
    optimizer = uneven.optimizer()
    assert isinstance(optimizer, keras.optimizers.Adam) and optimizer is not uneven.optimizer()
    schedule = keras.saving.deserialize_keras_object(optimizer.get_config()["learning_rate"])
    halfway = 0.5 * (1 + np.cos(np.pi / 2))
    np.testing.assert_allclose([schedule(0), schedule(200), schedule(400)], 3e-3 * np.array([1, halfway, 0]), atol=1e-9)


def test_it_prints_each_choice_with_its_reason(uneven):
    text = str(uneven)
    for name, reason in uneven.reasons.items():
        assert f"\n{name}" in text
        assert reason.split()[-1] in text
    assert max(map(len, text.splitlines())) <= diagnosis.WIDTH


def test_it_makes_the_model(uneven):
    model = uneven.model(keras_sip.MLP(1, 1, (2,)), steps_per_execution=5)
    assert (model.solver, model.method, model.steps_per_execution) == (uneven.solver, uneven.method, 5)


def test_even_gradients_take_back_propagation_and_compare_trains_by_it():
    simulator = Turned()
    comparison = keras_sip.compare(simulator, ["recipe"], steps=10, batch=4)
    assert not comparison.failures
    model = comparison.models["recipe"]
    assert isinstance(model.method, keras_sip.Adjoint) and model.solver is None
    assert model.training_steps == 10
    # Adam with a cosine over the ten steps, not that of the other methods.
    assert float(model.optimizer.learning_rate) == pytest.approx(0.0, abs=1e-9)


def test_fields_take_orthogonal_steps_of_kernels():
    simulator = keras_sip.Poisson((8, 8))
    found = keras_sip.recipe(simulator, steps=None)
    assert isinstance(found.optimizer(), keras_sip.Muon) and isinstance(found.method, keras_sip.SIP)
    assert found.solver == keras_sip.AnalyticInverse()
    assert "constant" in str(found)
