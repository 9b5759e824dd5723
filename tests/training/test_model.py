"""SIPModel: fit, evaluate, predict, refine, saving, bad input, and the training methods."""

import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_sip
import problems

POISSON = keras_sip.Poisson((8, 8))


def small_network(seed=0, simulator=POISSON):
    """A network with batch norm, the layer through which one bad example reaches the others."""
    keras.utils.set_random_seed(seed)
    inputs = keras.Input(simulator.y_shape)
    hidden = keras.layers.Conv2D(4, 3, padding="same")(inputs)
    hidden = keras.layers.Activation("relu")(keras.layers.BatchNormalization(momentum=0.9)(hidden))
    return keras.Model(inputs, keras.layers.Conv2D(1, 3, padding="same")(hidden))


def make_model(method="sip", solver=None, simulator=POISSON, optimizer=None, compile_options=None, **options):
    solver = keras_sip.AnalyticInverse() if solver is None else solver
    model = keras_sip.SIPModel(small_network(simulator=simulator), simulator, solver, method, **options)
    model.compile(optimizer or keras.optimizers.Adam(1e-2), **(compile_options or {}))
    return model


def batches(seed=0, start_step=0, simulator=POISSON):
    return keras_sip.dataset(simulator, 16, seed, start_step)


def test_poisson_is_learnt_by_fit_on_a_dataset():
    model = make_model()
    observation, x = keras_sip.evaluation_set(POISSON, 64, 1)
    before = model.evaluate(observation, x, verbose=0, return_dict=True)
    model.fit(batches(), steps_per_epoch=150, verbose=0)
    after = model.evaluate(observation, x, verbose=0, return_dict=True)
    # A mean absolute error of E|x| = 0.8 is what predicting 0 costs; one hidden layer halves it well within 150 steps.
    assert before["x_error"] > 0.6
    assert after["x_error"] < 0.4


def test_sip_with_exact_linear_inverse_is_supervised_regression():
    weights = []
    for method in ("sip", "supervised"):
        model = make_model(method, optimizer=keras.optimizers.SGD(1e-3))
        model.fit(batches(), steps_per_epoch=3, verbose=0)
        weights.append(np.concatenate([np.ravel(w) for w in model.get_weights()]))
    # The inverse is exact to float32 rounding of the Laplacian, 3e-5 on x of size 1.
    np.testing.assert_allclose(weights[0], weights[1], atol=1e-5)


def test_adjoint_and_gradient_descent_sip_take_the_same_steps():
    weights = []
    for method, solver in (("adjoint", None), ("sip", keras_sip.GradientDescent())):
        model = make_model(method, solver, optimizer=keras.optimizers.SGD(1e-4))
        model.fit(batches(), steps_per_epoch=3, verbose=0)
        weights.append(np.concatenate([np.ravel(w) for w in model.get_weights()]))
    np.testing.assert_allclose(weights[0], weights[1], rtol=1e-4, atol=1e-6)


# Powers of two: x = x_scale z then rounds nothing, which ten steps of CG would make 1e-4 of.
@pytest.mark.parametrize("x_scale", [1.0, 4.0])
def test_functional_route_and_model_give_the_same_weight_update(x_scale):
    solver = keras_sip.GaussNewton(cg_steps=10)
    observation, x = keras_sip.evaluation_set(POISSON, 16, 1)
    moving = {"batch_statistics": "moving"}
    sgd = keras.optimizers.SGD(1e-2)
    model = make_model(solver=solver, optimizer=sgd, compile_options=moving, x_scale=x_scale, input_scale=1.0)
    start = model.get_weights()
    model.fit(observation, x, batch_size=16, shuffle=False, verbose=0)

    network = small_network()
    x_of_network = keras_sip.Scale(POISSON, x_scale)(network.output)
    layer = keras_sip.SIPPhysicsLayer(POISSON, solver, x_scale=x_scale)
    functional = keras.Model(network.input, layer(x_of_network, y_target=network.input))
    functional.compile(keras.optimizers.SGD(1e-2), keras_sip.HalfSumOfSquares())
    functional.fit(observation, observation, batch_size=16, shuffle=False, verbose=0)
    for one, other, initial in zip(model.get_weights(), functional.get_weights(), start, strict=True):
        change = np.max(np.abs(one - initial)) + 1e-3
        np.testing.assert_allclose(one - initial, other - initial, atol=1e-5 * change)


def test_metrics_are_the_named_ones_and_measure_what_they_say():
    model = make_model(optimizer=keras.optimizers.SGD(0.0))
    observation, x = keras_sip.evaluation_set(POISSON, 32, 1)
    history = model.fit(observation, x, batch_size=32, verbose=0).history
    assert set(history) == {
        "loss", "x_error", "x_error_scaled", "solver_steps", "failed", "not_descending", "bad_input", "update_norm"
    }  # fmt: skip
    # A zero rate leaves the weights: the figures are those of the start, in training mode.
    prediction = model(observation, training=True).numpy()
    y = POISSON.forward(prediction).numpy()
    np.testing.assert_allclose(history["loss"][0], np.mean(0.5 * np.sum((y - observation) ** 2, (1, 2, 3))), rtol=1e-5)
    np.testing.assert_allclose(history["x_error"][0], np.mean(np.abs(prediction - x)), rtol=1e-5)
    scaled = np.mean(np.abs(prediction - x)) / float(model.x_scale)
    np.testing.assert_allclose(history["x_error_scaled"][0], scaled, rtol=1e-5)
    rms = np.sqrt(np.mean((prediction - x) ** 2, axis=(1, 2, 3))) / float(model.x_scale)
    np.testing.assert_allclose(history["update_norm"][0], np.mean(rms), rtol=1e-4)
    assert history["failed"][0] == history["not_descending"][0] == history["bad_input"][0] == 0
    assert history["solver_steps"][0] == 1
    assert set(model.evaluate(observation, x, verbose=0, return_dict=True)) == {
        "loss", "x_error", "x_error_scaled", "bad_input"
    }  # fmt: skip


def test_evaluate_reports_the_solver_only_when_asked():
    model = make_model(compile_options={"evaluate_solver": True})
    observation, x = keras_sip.evaluation_set(POISSON, 8, 1)
    measured = model.evaluate(observation, x, verbose=0, return_dict=True)
    assert measured["not_descending"] == 0 and measured["solver_steps"] == 1


def test_bad_observation_is_dropped_counted_and_leaves_the_model_finite():
    observation, x = (value.numpy() for value in keras_sip.evaluation_set(POISSON, 8, 1))
    observation[3, 2, 2, 0] = np.nan
    model = make_model()
    data = tf.data.Dataset.from_tensors((observation, x))
    history = model.fit(data, verbose=0).history
    assert history["bad_input"][0] == 1
    assert all(np.isfinite(values[0]) for values in history.values())
    assert all(np.isfinite(w).all() for w in model.get_weights())

    # The same step as with any other content of that example: it has weight 0 and enters batch norm as zeros.
    other = make_model()
    observation[3] = np.inf
    other.fit(tf.data.Dataset.from_tensors((observation, x)), verbose=0)
    for one, two in zip(model.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_array_equal(one, two)


@pytest.mark.parametrize("method", ["sip", "adjoint"])
def test_example_whose_physics_overflows_gets_no_update_and_is_counted(method):
    simulator = keras_sip.from_function(problems.exponential_process, 1)
    inputs = keras.Input((1,))
    # The identity at the start: an observation of 100 simulates e^100, beyond float32.
    network = keras.Model(inputs, keras.layers.Dense(1, kernel_initializer="ones")(inputs))
    model = keras_sip.SIPModel(network, simulator, keras_sip.GaussNewton(), method, input_scale=1.0)
    model.compile(keras.optimizers.SGD(1e-3))
    history = model.fit(np.array([[0.5], [100.0]], "float32"), batch_size=2, verbose=0).history
    assert history["failed"][0] == 0.5
    assert all(np.isfinite(w).all() for w in model.get_weights())


def test_a_diverged_network_shows_nan_not_zero():
    model = make_model()
    model.set_weights([np.full_like(w, np.nan) for w in model.get_weights()])
    observation, x = keras_sip.evaluation_set(POISSON, 8, 1)
    measured = model.evaluate(observation, x, verbose=0, return_dict=True)
    assert np.isnan(measured["loss"]) and np.isnan(measured["x_error"])


def test_several_updates_for_one_solve_go_towards_the_same_point():
    observation, x = keras_sip.evaluation_set(POISSON, 16, 1)
    one, many = (make_model(keras_sip.SIP(updates_per_solve=k), optimizer=keras.optimizers.SGD(1e-3)) for k in (1, 4))
    # The inverse is exact, so x_tilde = x* in every step: four updates of one solve are four steps of one update.
    for _ in range(4):
        one.train_on_batch(observation, x)
    many.train_on_batch(observation, x)
    assert int(many.optimizer.iterations.numpy()) == 4
    for a, b in zip(one.get_weights(), many.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


def test_sufficient_decrease_stops_further_updates_of_the_examples_that_reached_it():
    simulator = keras_sip.from_function(problems.tanh_process, 1)
    inputs = keras.Input((1,))

    def trained(method):
        dense = keras.layers.Dense(1, use_bias=False, kernel_initializer=keras.initializers.Constant(0.1))
        network = keras.Model(inputs, dense(inputs))
        model = keras_sip.SIPModel(network, simulator, keras_sip.GaussNewton(), method, input_scale=1.0, x_scale=1.0)
        model.compile(keras.optimizers.SGD(0.9))
        model.train_on_batch(np.array([[0.5]], "float32"))
        return float(model.get_weights()[0][0, 0])

    # L falls from 0.101 to 0.043 with the first update (factor 0.57 gone): tau/2 = 0.3 is reached, tau/2 = 0.5 too.
    single = trained(keras_sip.SIP())
    assert trained(keras_sip.SIP(updates_per_solve=5)) > single
    assert trained(keras_sip.SIP(updates_per_solve=5, sufficient_decrease=1e-3)) == single


def test_physics_compiled_apart_takes_the_same_steps():
    class Compiled(keras_sip.Poisson):
        prefers_xla = True

    changes = []
    for simulator in (POISSON, Compiled((8, 8))):
        options = {"optimizer": keras.optimizers.SGD(1e-3), "compile_options": {"batch_statistics": "moving"}}
        model = make_model(solver=keras_sip.GradientDescent(max_steps=2), simulator=simulator, **options)
        start = np.concatenate([np.ravel(w) for w in model.get_weights()])
        model.fit(batches(simulator=simulator), steps_per_epoch=2, verbose=0)
        changes.append(np.concatenate([np.ravel(w) for w in model.get_weights()]) - start)
    # float32 knows the Laplacian's inverse to its condition number, 30 on 8 x 8 cells, and the weights to 1e-7 of 1.
    np.testing.assert_allclose(changes[0], changes[1], atol=1e-4 * np.max(np.abs(changes[0])) + 1e-6)


def test_a_saved_model_keeps_the_choice_of_compiling_and_not_what_this_machine_made_of_it(tmp_path):
    for asked in ("auto", False):
        model = make_model(compile_options={"jit_compile": asked})
        model.save(tmp_path / "model.keras")
        loaded = keras.saving.load_model(tmp_path / "model.keras")
        assert model.jit_compile is loaded.jit_compile is False
        assert loaded.get_compile_config()["jit_compile"] == asked


def test_on_gpus_the_whole_step_is_compiled_unless_the_solver_calls_the_simulation_at_many_places(monkeypatch):
    # As Keras decides where there is a GPU.
    monkeypatch.setattr(keras_sip.SIPModel, "_resolve_auto_jit_compile", lambda model: True)
    assert make_model(solver=keras_sip.GaussNewton()).jit_compile is True
    assert make_model(solver=keras_sip.LBFGS()).jit_compile is False
    assert make_model(solver=keras_sip.LBFGS(), compile_options={"jit_compile": True}).jit_compile is True


def test_refine_never_raises_the_objective_and_reaches_the_solution():
    model = make_model(solver=keras_sip.GaussNewton(cg_steps=100, cg_tolerance=1e-6))
    observation, x = keras_sip.evaluation_set(POISSON, 8, 1)
    prediction = model(observation)
    before = POISSON.objective(POISSON.forward(prediction), observation)
    result = model.refine(observation, max_steps=5)
    assert np.all(result.objective.numpy() <= before.numpy() * (1 + 1e-6))
    np.testing.assert_allclose(result.x, x, atol=2e-2)
    np.testing.assert_allclose(result.x, prediction + result.update, atol=1e-6)


def test_refine_with_the_exact_inverse_is_never_worse():
    model = make_model()
    observation, _ = keras_sip.evaluation_set(POISSON, 8, 1)
    before = POISSON.objective(POISSON.forward(model(observation)), observation)
    assert np.all(model.refine(observation).objective.numpy() <= before.numpy() * (1 + 1e-6))


def test_training_goes_on_bit_identically_after_saving_and_loading(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        # TensorFlow's own variables, under NumPy 2: nothing that a caller could mend.
        warnings.filterwarnings("ignore", "__array__ implementation doesn't accept a copy keyword")
        solver = keras_sip.GradientDescent(step_size=0.5, max_steps=2)
        straight = make_model(keras_sip.SIP(updates_per_solve=2), solver=solver)
        straight.fit(batches(), steps_per_epoch=3, verbose=0)
        straight.save(tmp_path / "model.keras")
        resumed = keras.saving.load_model(tmp_path / "model.keras")
        for model in (straight, resumed):
            model.fit(batches(start_step=3), steps_per_epoch=3, verbose=0)
    assert resumed.solver == straight.solver and resumed.method == straight.method
    assert repr(resumed.simulator) == repr(POISSON)
    pairs = zip(straight.get_weights(), resumed.get_weights(), strict=True)
    assert all(np.array_equal(one, other) for one, other in pairs)
    states = zip(straight.optimizer.variables, resumed.optimizer.variables, strict=True)
    assert all(np.array_equal(one.numpy(), other.numpy()) for one, other in states)


def test_model_trained_by_train_on_batch_alone_saves_its_optimizer(tmp_path):
    model = make_model()
    observation, x = keras_sip.evaluation_set(POISSON, 8, 1)
    model.train_on_batch(observation, x)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert int(loaded.optimizer.iterations.numpy()) == 1


def test_own_simulator_with_context_trains_refines_and_saves(tmp_path):
    simulator = problems.MaskedSensors()
    network = keras_sip.MLP(4, 3, (16,), activation="tanh", seed=0)
    model = keras_sip.SIPModel(network, simulator, keras_sip.LevenbergMarquardt())
    model.compile(keras.optimizers.Adam(1e-2))
    unseen = keras_sip.evaluation_set(simulator, 256, 2)
    before = model.evaluate(*unseen, verbose=0, return_dict=True)["x_error"]
    model.fit(keras_sip.dataset(simulator, 32, 0), steps_per_epoch=120, verbose=0)
    # Measured with eight initial weights: 0.26 to 0.33 of the error before. Dead sensors keep it from falling further.
    assert model.evaluate(*unseen, verbose=0, return_dict=True)["x_error"] < 0.5 * before
    observation, _ = keras_sip.evaluation_set(simulator, 8, 1)
    assert model.predict(observation, verbose=0).dtype == np.float64
    assert np.all(model.refine(observation, 3).objective.numpy() >= 0)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded(observation), model(observation))


def test_float64_observations_stay_float64_through_fit_evaluate_and_predict():
    seen = []

    class Watching(keras_sip.Poisson):
        def network_input(self, observation):
            seen.append(observation.dtype)
            return super().network_input(observation)

    simulator = Watching((8, 8), dtype="float64")
    model = keras_sip.SIPModel(small_network(simulator=simulator), simulator, keras_sip.AnalyticInverse())
    model.compile("adam")
    observation, x = (value.numpy() for value in keras_sip.evaluation_set(simulator, 8, 1))
    model.fit(observation, x, validation_data=(observation, x), verbose=0)
    model.evaluate(observation, x, verbose=0)
    model.predict(observation, verbose=0)
    assert set(seen) == {tf.float64}


def test_network_works_in_units_of_the_measured_scales():
    simulator = keras_sip.from_function(
        lambda x: 1e-3 * x, 2, sample=lambda n, seed: 1e4 * tf.random.stateless_normal((n, 2), seed)
    )
    model = keras_sip.SIPModel(keras_sip.MLP(2, 2, (4,)), simulator, keras_sip.GaussNewton())
    # 256 samples give a root mean square within 4 standard errors, 4 / sqrt(2 * 256) = 18 %.
    np.testing.assert_allclose(model.x_scale, [1e4, 1e4], rtol=0.18)
    np.testing.assert_allclose(model.input_scale, [10.0, 10.0], rtol=0.18)


def test_raise_on_failure_stops_fit_after_the_batch():
    simulator = keras_sip.from_function(problems.exponential_process, 1)
    inputs = keras.Input((1,))
    network = keras.Model(inputs, keras.layers.Dense(1, kernel_initializer="ones")(inputs))
    model = keras_sip.SIPModel(network, simulator, keras_sip.GaussNewton(on_failure="raise"), input_scale=1.0)
    model.compile("sgd")
    with pytest.raises(keras_sip.SolverError, match="share of 0.5 that failed, by batch 0"):
        model.fit(np.array([[0.5], [100.0]], "float32"), batch_size=2, verbose=0)


def test_what_keras_cannot_distribute_is_refused_with_the_reason():
    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    with strategy.scope():
        model = keras_sip.SIPModel(small_network(), POISSON, keras_sip.AnalyticInverse())
        with pytest.raises(ValueError, match="gradient_accumulation_steps=2"):
            model.compile(keras.optimizers.SGD(gradient_accumulation_steps=2))
        with pytest.raises(ValueError, match="jit_compile=True"):
            model.compile("sgd", jit_compile=True)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"method": "spi"}, ValueError, "'sip', 'adjoint', 'supervised'"),
        ({"solver": None}, ValueError, "solver=None"),
        ({"solver": "newton"}, TypeError, "keras_sip.InverseSolver"),
        ({"batch_reduction": "max"}, ValueError, "'sum', 'mean'"),
        ({"network": keras.Sequential([keras.layers.Dense(3)])}, TypeError, "built keras.Model"),
        ({"simulator": keras_sip.Poisson((16, 16))}, ValueError, r"\('batch', 16, 16, 1\)"),
    ],
)
def test_wrong_arguments_get_a_three_part_error(arguments, error, message):
    defaults = {"network": small_network(), "simulator": POISSON, "solver": keras_sip.AnalyticInverse()}
    with pytest.raises(error, match=message) as caught:
        keras_sip.SIPModel(**{**defaults, **arguments})
    assert str(caught.value).startswith("Expected") and "\nReceived" in str(caught.value)


def test_supervised_without_labels_is_refused():
    model = make_model("supervised")
    observation, _ = keras_sip.evaluation_set(POISSON, 8, 1)
    with pytest.raises(ValueError, match="true causes"):
        model.fit(observation, verbose=0)


def test_nan_in_user_arrays_is_named_before_training():
    observation, x = (value.numpy() for value in keras_sip.evaluation_set(POISSON, 8, 1))
    observation[[2, 5], 0] = np.nan
    with pytest.raises(ValueError, match=r"2 of 8 examples: \[2, 5\]"):
        make_model().fit(observation, x, verbose=0)
