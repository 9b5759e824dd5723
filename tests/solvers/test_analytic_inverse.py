"""One update with the known inverse lands on the solution."""

import numpy as np
import pytest

import keras_sip


@pytest.mark.parametrize("start", [0.0, 1.0, 30.0])
def test_one_update_from_any_x_lands_on_the_solution_in_float32(start):
    simulator = keras_sip.Poisson((64, 64))
    sample = simulator.sample(4, (0, 1))
    x0 = (start * np.random.default_rng(0).standard_normal(sample["x"].shape)).astype("float32")
    error = np.abs(keras_sip.AnalyticInverse().solve(simulator, x0, sample["y"]).x - sample["x"])
    # y is near 14 and one rounding of it, times the 8 of the five-point Laplacian, is 1e-5.
    assert np.mean(error) < 5e-5
    assert np.max(error) < 1e-3


@pytest.mark.parametrize("boundary", ["dirichlet", "periodic"])
def test_one_update_from_any_x_lands_on_the_solution_in_float64(boundary):
    simulator = keras_sip.Poisson((64, 64), boundary=boundary, dtype="float64")
    sample = simulator.sample(2, (0, 1))
    x0 = np.random.default_rng(0).standard_normal(sample["x"].shape)
    x0 -= x0.mean(axis=(1, 2, 3), keepdims=True)  # a periodic y does not tell it
    result = keras_sip.AnalyticInverse().solve(simulator, x0, sample["y"], evaluate_result=True)
    assert np.max(np.abs(result.x - sample["x"])) < 1e-11
    assert np.all(result.status == keras_sip.Status.CONVERGED)
    assert np.all(result.num_steps == 1)


def test_it_does_not_simulate():
    calls = []

    class Counting(keras_sip.Poisson):
        def forward(self, x, context=None):
            calls.append(x)
            return super().forward(x, context)

    simulator = Counting((4, 4))
    field = np.ones((1, 4, 4, 1), "float32")
    keras_sip.AnalyticInverse().solve(simulator, field, field)
    assert not calls


def test_simulator_without_an_inverse_is_refused_naming_the_method():
    simulator = keras_sip.from_function(lambda x: 2 * x, 3)
    for call in (
        lambda: keras_sip.AnalyticInverse().check(simulator),
        lambda: keras_sip.AnalyticInverse().solve(simulator, np.ones((1, 3)), np.ones((1, 3))),
        lambda: keras_sip.SIPPhysicsLayer(simulator, keras_sip.AnalyticInverse()),
    ):
        with pytest.raises(TypeError, match="defines `inverse.self, y_target, x_near") as caught:
            call()
        assert "Add the method, or use a solver that needs none: GaussNewton()" in str(caught.value)


def test_iterations_are_refused():
    with pytest.raises(ValueError, match="a direct inverse takes one step"):
        keras_sip.AnalyticInverse(max_steps=3)
