"""SIPPhysicsLayer, PhysicsLayer and Project: chains, bad examples, precision, and when the solver runs."""

import dataclasses

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_sip
import problems

TANH = keras_sip.from_function(problems.tanh_process, 2)
EXPONENTIAL = keras_sip.from_function(problems.exponential_process, 2)


@dataclasses.dataclass(frozen=True, kw_only=True)
class CountingSolver(keras_sip.GradientDescent):
    """Counts how often it is run, on the host."""

    calls: list = dataclasses.field(default_factory=list)

    def solve(self, *args, **kwargs):
        tf.py_function(lambda: self.calls.append(1), [], [])
        return super().solve(*args, **kwargs)


def random_batch(seed=0, batch=6, size=2):
    generator = np.random.default_rng(seed)
    return tf.constant(generator.standard_normal((batch, size)), tf.float32)


def gradient(function, *inputs):
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        value = function(*inputs)
    return tape.gradient(value, inputs)


def test_gradient_of_x_is_minus_the_update_of_each_example_times_its_weight():
    x, y_target = random_batch(0), problems.tanh_process(random_batch(1))
    weight = tf.constant([1.0, 2.0, 0.0, 0.5, 3.0, 1e-3])
    solver = keras_sip.GaussNewton(cg_steps=4, cg_tolerance=1e-6)
    layer = keras_sip.SIPPhysicsLayer(TANH, solver, step_size=0.5)
    loss = keras_sip.HalfSumOfSquares(reduction="sum")
    (received,) = gradient(lambda x: loss(y_target, layer(x, y_target=y_target), weight), x)
    update = solver.solve(TANH, x, y_target).update
    np.testing.assert_allclose(received, -0.5 * weight[:, None] * update, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(
    "loss",
    ["mse", keras_sip.HalfSumOfSquares(), keras_sip.Objective(TANH)],
    ids=["mse", "half_sum_of_squares", "objective"],
)
def test_listed_losses_scale_the_update_exactly_as_their_gradient(loss):
    x, y_target = random_batch(0), problems.tanh_process(random_batch(1))
    loss = keras.losses.get(loss)
    plain = keras_sip.PhysicsLayer(TANH)
    layer = keras_sip.SIPPhysicsLayer(TANH, keras_sip.GradientDescent())
    (expected,) = gradient(lambda x: loss(y_target, plain(x)), x)
    (received,) = gradient(lambda x: loss(y_target, layer(x, y_target=y_target)), x)
    np.testing.assert_allclose(received, expected, rtol=1e-5, atol=1e-8)


def test_without_target_a_summed_half_square_is_exact_and_a_mean_aims_short():
    x, y_target = random_batch(0), problems.tanh_process(random_batch(1))
    solver = keras_sip.GaussNewton(cg_steps=4, cg_tolerance=1e-7)
    layer = keras_sip.SIPPhysicsLayer(TANH, solver)
    update = solver.solve(TANH, x, y_target).update
    summed = keras_sip.HalfSumOfSquares(reduction="sum")
    (exact,) = gradient(lambda x: summed(y_target, layer(x)), x)
    np.testing.assert_allclose(exact, -update, rtol=1e-4, atol=1e-6)
    # The mean over 6 examples puts the target a sixth of the way: for Gauss-Newton on one step, a sixth of the update.
    (short,) = gradient(lambda x: keras_sip.HalfSumOfSquares()(y_target, layer(x)), x)
    np.testing.assert_allclose(short, -update / 6, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("weights", [None, [1.0, 2.0, 0.5, 0.0, 3.0, 1.5]], ids=["unweighted", "sample_weights"])
@pytest.mark.parametrize("loss_scale", [1.0, 2.0**15])
def test_chain_through_time_with_links_equals_back_propagation(weights, loss_scale):
    x, y_target = random_batch(0), 0.1 * random_batch(1)
    loss = keras_sip.HalfSumOfSquares()
    plain = keras_sip.PhysicsLayer(TANH)
    layers = [keras_sip.SIPPhysicsLayer(TANH, keras_sip.GradientDescent()) for _ in range(3)]

    def unrolled(x):
        state, link = layers[0](x, return_link=True)
        state, link = layers[1](state, link=link, return_link=True)
        return loss_scale * loss(y_target, layers[2](state, y_target=y_target, link=link), weights)

    (expected,) = gradient(lambda x: loss_scale * loss(y_target, plain(plain(plain(x))), weights), x)
    (received,) = gradient(unrolled, x)
    np.testing.assert_allclose(received, expected, rtol=2e-5, atol=2e-7 * loss_scale)


def test_two_layers_in_one_model_train():
    inputs = keras.Input((2,))
    hidden = keras.layers.Dense(16, "tanh")(inputs)
    solver = keras_sip.GaussNewton(cg_steps=4)
    outputs = [
        keras_sip.SIPPhysicsLayer(simulator, solver, name=name)(keras.layers.Dense(2)(hidden), y_target=inputs)
        for simulator, name in ((TANH, "tanh"), (EXPONENTIAL, "exponential"))
    ]
    model = keras.Model(inputs, outputs)
    model.compile(keras.optimizers.Adam(1e-2), [keras_sip.HalfSumOfSquares(), keras_sip.HalfSumOfSquares()])
    y = tf.random.stateless_uniform((512, 2), (0, 1), 0.2, 0.8)
    first = model.evaluate(y, [y, y], verbose=0)
    model.fit(y, [y, y], epochs=30, verbose=0)
    # Both heads see the same data; each must have come at least a factor 50 closer in its own loss.
    assert np.all(np.array(model.evaluate(y, [y, y], verbose=0)) < np.array(first) / 50)


def functional_model(layer):
    y_target = keras.Input((2,))
    model = keras.Model(y_target, layer(keras.layers.Dense(2)(y_target), y_target=y_target))
    model.compile("sgd", keras_sip.HalfSumOfSquares())
    return model


def test_solver_runs_once_for_each_training_step_and_never_at_predict_or_evaluate():
    solver = CountingSolver()
    model = functional_model(keras_sip.SIPPhysicsLayer(TANH, solver))
    y = random_batch()
    model.predict(y, verbose=0)
    model.evaluate(y, y, verbose=0)
    assert len(solver.calls) == 0
    model.fit(y, y, batch_size=2, epochs=2, verbose=0)
    assert len(solver.calls) == 6


@pytest.mark.parametrize("where", ["x", "y_target"])
def test_one_bad_example_gets_zero_and_leaves_the_others_bit_identical(where):
    x, y_target = random_batch(0).numpy(), problems.tanh_process(random_batch(1)).numpy()
    layer = keras_sip.SIPPhysicsLayer(TANH, keras_sip.GaussNewton(cg_steps=4))

    def input_gradient(x, y_target):
        loss = keras_sip.HalfSumOfSquares()
        return gradient(lambda x: loss(y_target, layer(x, y_target=y_target)), tf.constant(x))[0].numpy()

    clean = input_gradient(x, y_target)
    {"x": x, "y_target": y_target}[where][2, 1] = np.nan
    received = input_gradient(x, y_target)
    others = [0, 1, 3, 4, 5]
    np.testing.assert_array_equal(received[others], clean[others])
    np.testing.assert_array_equal(received[2], 0.0)


def test_an_overflow_of_the_arriving_gradient_stays_visible():
    x, y_target = random_batch(0), problems.tanh_process(random_batch(1))
    layer = keras_sip.SIPPhysicsLayer(TANH, keras_sip.GradientDescent())
    for arguments in ({"y_target": y_target}, {}):
        (received,) = gradient(lambda x, a=arguments: 1e38 * 1e38 * tf.reduce_sum(layer(x, **a) - y_target), x)
        assert not np.isfinite(received.numpy()).any()


def test_zero_residual_gives_zero_gradient():
    x = random_batch(0)
    layer = keras_sip.SIPPhysicsLayer(TANH, keras_sip.GaussNewton())
    y_target = layer(x)
    (received,) = gradient(lambda x: keras_sip.HalfSumOfSquares()(y_target, layer(x, y_target=y_target)), x)
    np.testing.assert_array_equal(received, 0.0)


def test_target_and_context_are_constants():
    simulator = problems.MaskedSensors()
    x, y_target = simulator.sample(3, (0, 0))["x"], simulator.sample(3, (0, 1))["y"]
    context = {"mask": tf.ones((3, 4), tf.float64)}
    layer = keras_sip.SIPPhysicsLayer(simulator, keras_sip.GaussNewton())
    to_target, to_mask = gradient(
        lambda y, mask: tf.reduce_sum(layer(x, y_target=y, context={"mask": mask})), y_target, context["mask"]
    )
    assert to_target is None and to_mask is None


def test_observation_less_precise_than_the_simulator_is_refused_unless_stated():
    simulator = keras_sip.Poisson((4, 4), dtype="float64")
    x, y = tf.zeros((2, 4, 4, 1)), tf.ones((2, 4, 4, 1), tf.float32)
    solver = keras_sip.GaussNewton()
    with pytest.raises(
        TypeError, match=r"Expected `y_target` .* float64(?s:.*)Received dtype float32(?s:.*)y_precision"
    ):
        keras_sip.SIPPhysicsLayer(simulator, solver)(x, y_target=y)
    simulated = keras_sip.SIPPhysicsLayer(simulator, solver, y_precision="float32")(x, y_target=y)
    assert simulated.dtype == tf.float64


def test_stated_precision_reaches_the_solver_as_noise_level():
    seen = {}

    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Listening(keras_sip.GradientDescent):
        def solve(self, simulator, x0, y_target, context=None, **kwargs):
            seen.update(context)
            return super().solve(simulator, x0, y_target, None, **kwargs)

    simulator = keras_sip.Poisson((4, 4), dtype="float64")
    y = tf.constant(np.full((2, 4, 4, 1), [[[[3.0]]], [[[0.5]]]]), tf.float32)
    layer = keras_sip.SIPPhysicsLayer(simulator, Listening(), y_precision="float32")
    gradient(lambda x: tf.reduce_sum(layer(x, y_target=y)), tf.zeros((2, 4, 4, 1), tf.float64))
    # One rounding of the largest value of each example.
    np.testing.assert_allclose(seen["noise_level"], np.finfo(np.float32).eps * np.array([3.0, 0.5]))


def test_float64_physics_under_a_float32_network_keeps_float64(mixed_float16):
    simulator = keras_sip.Poisson((4, 4), dtype="float64")
    y_target = keras.Input((4, 4, 1), dtype="float64")
    x = keras.layers.Conv2D(1, 3, padding="same")(y_target)
    y = keras_sip.SIPPhysicsLayer(simulator, keras_sip.AnalyticInverse())(x, y_target=y_target)
    assert y.dtype == "float64"
    assert keras_sip.HalfSumOfSquares()(
        tf.zeros((1, 4, 4, 1), tf.float64), tf.ones((1, 4, 4, 1), tf.float64)
    ).dtype == (tf.float64)


def test_simulator_with_trainable_variables_is_refused_with_a_remedy():
    variable = tf.Variable(2.0, name="stiffness")
    simulator = keras_sip.from_function(lambda x: variable * x, 2)
    with pytest.raises(ValueError, match=r"trainable variables \['stiffness(?s:.*)trainable=False"):
        keras_sip.PhysicsLayer(simulator)(random_batch())


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"simulator": "poisson", "solver": keras_sip.GaussNewton()}, TypeError, "keras_sip.Simulator"),
        ({"simulator": TANH, "solver": "newton"}, TypeError, "keras_sip.InverseSolver"),
        ({"simulator": TANH, "solver": keras_sip.AnalyticInverse()}, TypeError, "defines `inverse"),
        ({"simulator": TANH, "solver": keras_sip.GaussNewton(), "step_size": -1}, ValueError, "step_size=-1"),
        ({"simulator": TANH, "solver": keras_sip.GaussNewton(), "y_precision": "half"}, ValueError, "'float16'"),
    ],
)
def test_wrong_arguments_get_a_three_part_error(arguments, error, message):
    with pytest.raises(error, match=message) as caught:
        keras_sip.SIPPhysicsLayer(**arguments)
    assert str(caught.value).startswith("Expected") and "\nReceived" in str(caught.value)


def test_wrong_shape_of_x_is_named():
    with pytest.raises(ValueError, match=r"Expected `x` of shape \('batch', 2\)(?s:.*)Received shape \(3, 5\)"):
        keras_sip.PhysicsLayer(TANH)(tf.zeros((3, 5)))


def test_target_and_link_together_are_refused():
    layer = keras_sip.SIPPhysicsLayer(TANH, keras_sip.GradientDescent())
    with pytest.raises(ValueError, match="last layer only"):
        layer(random_batch(), y_target=random_batch(), return_link=True)


@pytest.mark.parametrize("kind", ["sip", "plain", "project", "scale"])
def test_layers_save_and_load_inside_a_model(kind, tmp_path):
    simulator = keras_sip.Poisson((4, 4))
    y_target = keras.Input((4, 4, 1))
    x = keras.layers.Conv2D(1, 3, padding="same")(y_target)
    outputs = {
        "sip": lambda: keras_sip.SIPPhysicsLayer(simulator, keras_sip.GaussNewton(cg_steps=7), 0.5)(
            x, y_target=y_target
        ),
        "plain": lambda: keras_sip.PhysicsLayer(simulator)(x),
        "project": lambda: keras_sip.Project(simulator)(x, y_target),
        "scale": lambda: keras_sip.Scale(simulator, 7.0)(x),
    }[kind]()
    model = keras.Model(y_target, outputs)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    y = tf.random.stateless_normal((2, 4, 4, 1), (0, 0))
    np.testing.assert_array_equal(loaded(y), model(y))
    if kind == "sip":
        # Version 0.1, whose config has no x_scale, measured the proxy in the units of x.
        config = model.layers[-1].get_config()
        del config["x_scale"]
        assert keras_sip.SIPPhysicsLayer.from_config(config).x_scale == 1.0
        assert loaded.layers[-1].solver == keras_sip.GaussNewton(cg_steps=7)
        assert loaded.layers[-1].step_size == 0.5
