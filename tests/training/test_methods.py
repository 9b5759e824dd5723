"""The regimes of Section 3 as settings of the SIP method, and its options for the loss in y."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_sip
from problems import curved_process

CURVED = keras_sip.from_function(curved_process, 3)
SINE = keras_sip.RotatedSine(xi=4.0, phi=30.0)
NEWTON = keras_sip.SaddleFreeNewton(max_relative_loss_change=2.0)
# Traced quickest.
EXACT = keras_sip.AnalyticInverse()


def weight_change(method, solver, simulator=SINE, steps=1, rate=1e-3):
    """By how much SGD moves the weights of a small network, as one vector."""
    size = simulator.y_shape[0]
    network = keras_sip.MLP(size, simulator.x_shape[0], (8,), activation="tanh", seed=0)
    model = keras_sip.SIPModel(network, simulator, solver, method, x_scale=1.0, input_scale=1.0)
    model.compile(keras.optimizers.SGD(rate), jit_compile=False)
    start = flat(model)
    y = simulator(np.random.default_rng(0).uniform(-1, 1, (16, *simulator.x_shape)).astype("float32"))
    for _ in range(steps):
        model.train_on_batch(y)
    return flat(model) - start


def flat(model):
    return np.concatenate([np.ravel(weight) for weight in model.get_weights()])


def updates(method, solver, simulator=SINE):
    """(U that the method asks for, the solver's own, the adjoint) at one batch of predictions."""
    model = keras_sip.SIPModel(keras_sip.MLP(2, 2, (8,), seed=0), simulator, solver, method, x_scale=1.0)
    generator = np.random.default_rng(1)
    z = tf.constant(generator.uniform(-1, 1, (16, 2)), tf.float32)
    y = simulator(generator.uniform(-1, 1, (16, 2)).astype("float32"))
    batch = keras_sip.Batch(y, y, None, None, tf.ones(16))
    own = solver.solve(simulator, z, y).update
    with tf.GradientTape() as tape:
        tape.watch(z)
        objective = simulator.objective(simulator.forward(z), y)
    return (
        model.method.desired_update(model.physics, batch, z).update.numpy(),
        own.numpy(),
        -tape.gradient(objective, z).numpy(),
    )


def test_a_solver_of_the_method_s_own_takes_the_place_of_the_model_s():
    gauss_newton = keras_sip.GaussNewton(cg_steps=8)
    one = weight_change(keras_sip.SIP(), gauss_newton, CURVED)
    three = weight_change(keras_sip.SIP(gauss_newton.with_options(max_steps=3)), gauss_newton, CURVED)
    same = weight_change(keras_sip.SIP(), gauss_newton.with_options(max_steps=3), CURVED)
    np.testing.assert_array_equal(three, same)
    assert np.max(np.abs(three - one)) > 1e-2 * np.max(np.abs(one))


def test_solver_run_to_convergence_is_supervised_learning_where_the_cause_is_unique():
    """Eq. 5 equals Eq. 4: x_tilde is x*, whatever the prediction."""
    solver = keras_sip.GaussNewton(cg_steps=20, cg_tolerance=1e-7, max_steps=30, residual_tolerance=1e-6)
    converged = weight_change(keras_sip.SIP(solver), None, CURVED)
    network = keras_sip.MLP(4, 3, (8,), activation="tanh", seed=0)
    model = keras_sip.SIPModel(network, CURVED, None, "supervised", x_scale=1.0, input_scale=1.0)
    model.compile(keras.optimizers.SGD(1e-3))
    start = flat(model)
    x = np.random.default_rng(0).uniform(-1, 1, (16, 3)).astype("float32")
    model.train_on_batch(CURVED(x), x)
    # The weights are float32 numbers near 0.5, of which the change of 1e-3 keeps four digits.
    np.testing.assert_allclose(converged, flat(model) - start, atol=2e-7)


def test_adjoint_mix_adds_the_adjoint_in_units_of_the_update():
    mixed, own, downhill = updates(keras_sip.SIP(adjoint_mix=3.0), NEWTON)

    def rms(values):
        return np.sqrt(np.mean(np.square(values, dtype="float64")))

    np.testing.assert_allclose(mixed, own + 3.0 * downhill * rms(own) / rms(downhill), rtol=1e-4, atol=1e-6)


def test_adjoint_mix_of_a_solved_batch_is_zero_and_finite():
    solver = keras_sip.GaussNewton()
    model = keras_sip.SIPModel(keras_sip.MLP(2, 2, (8,), seed=0), SINE, solver, keras_sip.SIP(adjoint_mix=1.0))
    z = tf.constant([[0.1, 0.2], [0.3, -0.4]])
    y = model.physics.simulate(z, None)
    batch = keras_sip.Batch(y, y, None, None, tf.ones(2))
    np.testing.assert_array_equal(model.method.desired_update(model.physics, batch, z).update, np.zeros((2, 2)))


@pytest.mark.parametrize("power", [0.25, 1.0])
def test_curvature_power_weights_each_eigenvector_by_its_eigenvalue(power):
    method = keras_sip.SIP(keras_sip.SaddleFreeNewton(curvature_power=power))
    weighted, own, downhill = updates(method, keras_sip.SaddleFreeNewton())
    generator = np.random.default_rng(1)
    z = generator.uniform(-1, 1, (16, 2))
    y = SINE(generator.uniform(-1, 1, (16, 2)).astype("float32")).numpy()
    phi, xi = np.deg2rad(30.0), 4.0
    rotation = np.array([[np.cos(phi), -np.sin(phi)], [np.sin(phi), np.cos(phi)]])
    for point, target, update, newton in zip(z, y, weighted, own, strict=True):
        u = rotation @ point
        jacobian = np.diag([np.cos(u[0]) / xi, xi]) @ rotation
        residual = np.array([np.sin(u[0]) / xi, xi * u[1]]) - target
        bending = -residual[0] * np.sin(u[0]) / xi * np.outer(rotation[0], rotation[0])
        eigenvalues, vectors = np.linalg.eigh(jacobian.T @ jacobian + bending)
        expected = vectors @ (np.abs(eigenvalues) ** power * (vectors.T @ newton))
        np.testing.assert_allclose(update, expected, rtol=1e-3, atol=1e-4 * np.max(np.abs(expected)))
    if power == 1.0:
        # |lambda| / |lambda|: what is left is the gradient.
        np.testing.assert_allclose(weighted, downhill, rtol=1e-3, atol=1e-4 * np.max(np.abs(downhill)))


def test_l1_proxy_follows_the_sign_of_each_component():
    small, large = (weight_change(keras_sip.SIP(proxy="l1", step_size=s), EXACT) for s in (1e-3, 1e3))
    np.testing.assert_array_equal(small, large)
    plain = weight_change(keras_sip.SIP(), EXACT)
    assert np.max(np.abs(plain - small)) > 1e-2 * np.max(np.abs(small))


def test_l1_proxy_is_the_gradient_of_the_sum_of_magnitudes():
    network = keras_sip.MLP(2, 2, (8,), activation="tanh", seed=0)
    y = SINE(np.random.default_rng(0).uniform(-1, 1, (16, 2)).astype("float32"))
    with tf.GradientTape() as tape:
        x = network(SINE.network_input(y))
        target = tf.stop_gradient(x + EXACT.solve(SINE, x, y).update)
        loss = tf.reduce_mean(tf.reduce_sum(tf.abs(x - target), axis=1))
    expected = [-1e-3 * np.ravel(gradient) for gradient in tape.gradient(loss, network.trainable_variables)]
    change = weight_change(keras_sip.SIP(proxy="l1"), EXACT)
    np.testing.assert_allclose(change, np.concatenate(expected), atol=1e-7)


def test_regimes_survive_saving(tmp_path):
    solver = keras_sip.SaddleFreeNewton(max_steps=3, curvature_power=0.25)
    method = keras_sip.SIP(solver, adjoint_mix=2.0, proxy="l1", updates_per_solve=2)
    model = keras_sip.SIPModel(keras_sip.MLP(2, 2, (4,), seed=0), SINE, NEWTON, method)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert (loaded.method, loaded.solver) == (method, NEWTON)


def test_solver_options_in_the_method_of_an_earlier_version_become_a_solver_of_its_own():
    model = keras_sip.SIPModel(keras_sip.MLP(2, 2, (4,), seed=0), SINE, keras_sip.SaddleFreeNewton())
    config = model.get_config()
    # As version 0.1 wrote it.
    config["method"]["config"] = {
        "step_size": 0.5, "solver_steps": 3, "solver_tolerance": None, "updates_per_solve": 1,
        "sufficient_decrease": None, "curvature_power": 0.25, "adjoint_mix": 0.0, "proxy": "l2",
    }  # fmt: skip
    loaded = keras_sip.SIPModel.from_config(config)
    assert loaded.method == keras_sip.SIP(keras_sip.SaddleFreeNewton(max_steps=3, curvature_power=0.25), step_size=0.5)
    assert loaded.solver == keras_sip.SaddleFreeNewton()


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"proxy": "l3"}, ValueError, "one of 'l2', 'l1'"),
        ({"adjoint_mix": -1.0}, ValueError, "`adjoint_mix` to be a finite number at least 0"),
        ({"solver": "newton"}, TypeError, "`solver` to be a keras_sip.InverseSolver"),
        ({"solver": keras_sip.AnalyticInverse()}, TypeError, "inverse"),
    ],
)
def test_arguments_out_of_range_are_refused(arguments, error, message):
    simulator = keras_sip.from_function(curved_process, 3)
    with pytest.raises(error, match=message):
        keras_sip.SIPModel(keras_sip.MLP(4, 3, (4,)), simulator, None, keras_sip.SIP(**arguments))


def test_a_model_refines_with_the_method_s_solver_where_it_has_no_other():
    solver = keras_sip.SaddleFreeNewton()
    model = keras_sip.SIPModel(keras_sip.MLP(2, 2, (4,), seed=0), SINE, method=keras_sip.SIP(solver))
    assert model.solver == solver


# Labels by a solver (Eq. 4) -------------------------------------------------------------------------------------------


def test_labels_are_causes_and_failures_have_no_weight():
    simulator = keras_sip.Exponential(dtype="float64")
    # log y runs from -3 to 0.5; nothing simulates to -1.
    y = np.array([[np.exp(-3.0)], [1.0], [np.exp(0.5)], [-1.0]])
    solver = keras_sip.LevenbergMarquardt(max_steps=40, residual_tolerance=1e-6)
    x, weight = keras_sip.label_with_solver(simulator, solver, y, batch_size=3)
    np.testing.assert_allclose(x[:3, 0], [-3.0, 0.0, 0.5], atol=1e-5)
    np.testing.assert_array_equal(weight[:3], np.ones(3))
    exact, failed = keras_sip.label_with_solver(simulator, keras_sip.AnalyticInverse(), y)
    np.testing.assert_allclose(exact[:3, 0], [-3.0, 0.0, 0.5], atol=1e-12)
    np.testing.assert_array_equal(failed, [1, 1, 1, 0])


def test_labels_start_where_they_are_told():
    simulator = keras_sip.QuarticBowl(dtype="float64")
    y = np.array([[1.0, 4.0]])
    for start, found in ((3.0, 2.0), (-3.0, -2.0)):
        x, _ = keras_sip.label_with_solver(simulator, keras_sip.AnalyticInverse(), y, x0=[0.0, start])
        np.testing.assert_allclose(x, [[1.0, found]], atol=1e-12)


def test_labels_use_the_context_of_each_example():
    simulator = keras_sip.RotatedSine(dtype="float64")
    context = {"xi": np.array([1.0, 4.0]), "phi": np.array([0.0, 45.0])}
    y = np.array([[0.3, -0.5], [0.1, 0.7]])
    solver = keras_sip.SaddleFreeNewton(max_steps=30)
    x, _ = keras_sip.label_with_solver(simulator, solver, {"y": y, "context": context}, batch_size=1)
    np.testing.assert_allclose(simulator(x, context), y, atol=1e-10)


def labels_then_sip():
    method = keras_sip.SupervisedThenSIP(supervised_steps=2)
    model = keras_sip.SIPModel(keras_sip.MLP(2, 2, (8,), seed=0), SINE, EXACT, method, x_scale=1.0, input_scale=1.0)
    model.compile(keras.optimizers.SGD(1e-2), jit_compile=False)
    return model


def test_labels_come_first_and_sip_after_them(tmp_path):
    x = np.random.default_rng(2).uniform(-1, 1, (16, 2)).astype("float32")
    y = SINE(x)
    model = labels_then_sip()
    by_hand = {}
    for name in ("supervised", "sip"):
        by_hand[name] = keras_sip.SIPModel(model.network, SINE, EXACT, name, x_scale=1.0, input_scale=1.0)
        by_hand[name].compile(keras.optimizers.SGD(1e-2), jit_compile=False)
    start = model.get_weights()
    for name in ("supervised", "supervised", "sip", "sip"):
        by_hand[name].train_on_batch(y, x)
    expected = flat(model)
    model.set_weights(start)
    model.train_on_batch(y, x)
    # Half of the labels' phase is over, and a loaded model knows it.
    model.save(tmp_path / "model.keras")
    resumed = keras.saving.load_model(tmp_path / "model.keras")
    assert resumed.training_steps == 1
    for _ in range(3):
        resumed.train_on_batch(y, x)
    np.testing.assert_allclose(flat(resumed), expected, atol=1e-7)


def test_labels_are_needed_in_the_first_phase_alone():
    model = labels_then_sip()
    x = np.random.default_rng(2).uniform(-1, 1, (32, 2)).astype("float32")
    y = SINE(x)
    with pytest.raises(ValueError, match="Expected true causes for method 'SupervisedThenSIP'"):
        model.fit(y, batch_size=16, verbose=0)
    history = model.fit(y, x, batch_size=16, verbose=0).history
    assert history["solver_steps"] == [0.0]
    history = model.fit(y, batch_size=16, verbose=0).history
    assert history["solver_steps"] == [1.0]
    assert model.training_steps == 4
