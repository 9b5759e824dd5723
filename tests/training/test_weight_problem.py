"""SIPModel with second-order optimizers: what they see of the loss, what stays untouched, what is refused."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_sip
import problems
from keras_sip.networks.blocks import FusedBatchNormalization
from keras_sip.training import methods
from keras_sip.training.weight_problem import WeightProblem
from numerics import relative_error

POISSON = keras_sip.Poisson((8, 8))


def unet_model(optimizer, method="adjoint", solver=None, simulator=POISSON, **options):
    """The smallest U-Net: two convolutions with fused batch norm."""
    network = keras_sip.UNet(simulator.y_shape, 1, levels=1, filters=2, seed=0)
    model = keras_sip.SIPModel(network, simulator, solver, method)
    model.compile(optimizer, **options)
    return model


def batch_of(model, size=6, weight=1.0):
    y, x = keras_sip.evaluation_set(model.simulator, size, 1)
    return methods.Batch(y, y, None, x, tf.fill([size], weight / size))


def problem_of(model):
    """The first batch's loss as a function of the weights."""
    return WeightProblem(model.physics, model.scaled_network, model.method, batch_of(model))


def hessian_free(**options):
    return keras_sip.HessianFree(cg_steps=3, line_search_steps=2, **options)


@pytest.fixture(scope="module")
def smooth_problem():
    """Fused batch norm between smooth functions, so that finite differences of float32 gradients are good."""
    inputs = keras.Input(POISSON.y_shape)
    hidden = keras.layers.Conv2D(2, 3, padding="same", kernel_initializer=keras.initializers.GlorotUniform(1))(inputs)
    hidden = keras.layers.Activation("tanh")(FusedBatchNormalization()(hidden))
    outputs = keras.layers.Conv2D(1, 1, kernel_initializer=keras.initializers.GlorotUniform(2))(hidden)
    model = keras_sip.SIPModel(keras.Model(inputs, outputs), POISSON, None, "adjoint")
    return problem_of(model)


def test_hessian_product_is_the_difference_of_gradients_also_through_fused_batch_norm(smooth_problem):
    problem = smooth_problem
    v = tf.random.stateless_normal(problem.weights.shape, (0, 1))
    _, product = problem.gradient_and_hessian_product(v)

    def gradient_at(weights):
        with tf.GradientTape() as tape:
            tape.watch(weights)
            loss = problem.loss(weights)
        return tape.gradient(loss, weights).numpy().astype("float64")

    step = 5e-4
    expected = (gradient_at(problem.weights + step * v) - gradient_at(problem.weights - step * v)) / (2 * step)
    # Measured 1e-4; with Keras' own batch norm, which drops a term, 7e-3.
    assert relative_error(product, expected) < 1e-3


@pytest.mark.parametrize("method", ["adjoint", "sip"])
def test_gradient_is_that_of_the_first_order_step(method):
    solver = keras_sip.AnalyticInverse() if method == "sip" else None
    model = unet_model(keras.optimizers.SGD(1.0), method, solver)
    problem = problem_of(model)
    gradient, _ = problem.gradient_and_hessian_product(tf.zeros_like(problem.weights))
    model.method.train_step(model.physics, model.scaled_network, batch_of(model))
    change = problem.join(model.trainable_variables) - problem.weights
    np.testing.assert_allclose(-change, gradient, rtol=0, atol=1e-5 * np.max(np.abs(gradient)))


def test_gauss_newton_product_and_loss_change_belong_to_one_quadratic_model(smooth_problem):
    problem = smooth_problem
    model = problem.gauss_newton()
    v = 1e-2 * tf.random.stateless_normal(problem.weights.shape, (0, 2))
    product = model.product(v)
    w = tf.random.stateless_normal(problem.weights.shape, (0, 3))
    # Symmetric, and |J v|^2 from two evaluations of the residual.
    assert float(tf.tensordot(w, product, 1)) == pytest.approx(float(tf.tensordot(model.product(w), v, 1)), rel=1e-3)
    residual = [problem._weighted_residual(problem.weights + sign * 1e-2 * v) for sign in (1, -1)]
    along = (residual[0] - residual[1]).numpy() / 2e-2
    expected = np.sum(along**2) / problem.loss(problem.weights).numpy()
    assert float(tf.tensordot(v, product, 1)) == pytest.approx(expected, rel=2e-2)
    start, there = (float(problem.loss(problem.weights + step)) for step in (0.0, v))
    assert float(model.loss_change(v)) == pytest.approx(there / start - 1, abs=1e-5)


def test_moving_statistics_take_in_the_batch_once_whatever_the_number_of_evaluations():
    y, x = keras_sip.evaluation_set(POISSON, 6, 1)
    states = []
    for optimizer in (keras.optimizers.SGD(0.0), keras_sip.AdaHessian(0.0), hessian_free(learning_rate=0.0)):
        model = unet_model(optimizer, run_eagerly=True)
        model.fit(y, x, batch_size=6, epochs=2, shuffle=False, verbose=0)
        states.append([variable.numpy() for variable in model.network.non_trainable_variables])
    for state in states[1:]:
        for one, other in zip(state, states[0], strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "optimizer",
    [keras_sip.AdaHessian(1e-2), hessian_free(), keras_sip.Muon(1e-2)],
    ids=["ada_hessian", "hessian_free", "muon"],
)
def test_a_saved_model_goes_on_exactly(optimizer, tmp_path):
    y, x = keras_sip.evaluation_set(POISSON, 6, 1)
    config = keras.saving.serialize_keras_object(optimizer)
    model = unet_model(keras.saving.deserialize_keras_object(config), run_eagerly=True)
    model.fit(y, x, batch_size=6, epochs=2, shuffle=False, verbose=0)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    for each in (model, loaded):
        each.fit(y, x, batch_size=6, shuffle=False, verbose=0)
    for one, other in zip(
        [*model.variables, *model.optimizer.variables], [*loaded.variables, *loaded.optimizer.variables], strict=True
    ):
        np.testing.assert_array_equal(one, other)


def test_an_example_that_overflows_leaves_the_step_to_the_others():
    simulator = keras_sip.from_function(problems.exponential_process, 1)
    steps = []
    # exp(100) is beyond float32, exp(-300) is 0: neither may spoil the step on the other one.
    for bad in (100.0, 200.0):
        inputs = keras.Input((1,))
        network = keras.Model(inputs, keras.layers.Dense(1, kernel_initializer="ones")(inputs))
        model = keras_sip.SIPModel(network, simulator, None, "adjoint", input_scale=1.0)
        model.compile(hessian_free(), run_eagerly=True)
        history = model.fit(np.array([[0.5], [bad]], "float32"), batch_size=2, verbose=0).history
        assert history["failed"][0] == 0.5
        steps.append(np.concatenate([np.ravel(value) for value in model.get_weights()]))
    assert np.all(np.isfinite(steps[0])) and not np.array_equal(steps[0], [1.0, 0.0])
    np.testing.assert_array_equal(steps[0], steps[1])


def test_objective_that_is_no_half_sum_of_squares_is_for_ada_hessian_only():
    simulator = problems.Directions()
    network = keras.Sequential([keras.Input((4,), dtype="float64"), keras.layers.Dense(3, dtype="float64")])
    model = keras_sip.SIPModel(network, simulator, None, "adjoint", input_scale=1.0)
    with pytest.raises(ValueError, match="no half sum of squares"):
        model.compile(hessian_free())
    model.compile(keras_sip.AdaHessian(1e-2), run_eagerly=True)
    history = model.fit(np.zeros((2, 4)), batch_size=2, verbose=0).history
    assert np.isfinite(history["loss"][0])


def regularized_model():
    inputs = keras.Input(POISSON.y_shape)
    outputs = keras.layers.Conv2D(1, 3, padding="same", kernel_regularizer="l2")(inputs)
    return keras_sip.SIPModel(keras.Model(inputs, outputs), POISSON, None, "adjoint")


def test_weight_penalties_enter_the_hessian_and_are_refused_where_they_are_no_residuals():
    model = regularized_model()
    with pytest.raises(ValueError, match="weight penalties"):
        model.compile(hessian_free())
    model.compile(keras_sip.AdaHessian(1e-2))
    problem = WeightProblem(model.physics, model.scaled_network, model.method, batch_of(model, weight=0.0))
    v = tf.ones_like(problem.weights)
    # Of weight 0, the batch leaves 0.01 |kernel|^2 alone; the bias has no penalty.
    _, product = problem.gradient_and_hessian_product(v)
    np.testing.assert_allclose(product, [0.02] * 9 + [0.0], rtol=1e-5)


@pytest.mark.parametrize("optimizer", [keras_sip.AdaHessian, keras_sip.HessianFree])
def test_several_updates_for_one_solve_are_refused_in_three_parts(optimizer):
    with pytest.raises(ValueError, match="2 optimizer steps") as error:
        unet_model(optimizer(), methods.SIP(updates_per_solve=2), keras_sip.AnalyticInverse())
    assert str(error.value).startswith("Expected a model that ") and str(error.value).count("\n") >= 2


class SignProxy(methods.Supervised):
    """A method whose network descends the sum of magnitudes."""

    proxy = "l1"


def test_a_proxy_without_curvature_is_refused():
    with pytest.raises(ValueError, match="proxy='l1'"):
        unet_model(keras_sip.AdaHessian(), SignProxy())


def test_float16_networks_are_refused(mixed_float16):
    with pytest.raises(ValueError, match="computes in float16"):
        unet_model(keras_sip.AdaHessian())


def test_two_replicas_are_refused():
    with tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]).scope(), pytest.raises(ValueError, match="2 replicas"):
        unet_model(keras_sip.AdaHessian())


@pytest.mark.parametrize("optimizer", [keras_sip.AdaHessian, keras_sip.HessianFree])
def test_plain_keras_and_clipping_are_refused(optimizer):
    with pytest.raises(ValueError, match="clipnorm=1.0"):
        optimizer(clipnorm=1.0)
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile(optimizer(), "mse", run_eagerly=True)
    with pytest.raises(RuntimeError, match="gradients alone"):
        model.fit(np.ones((2, 2)), np.ones((2, 1)), verbose=0)


FIRST_ORDER = {
    "momentum": lambda: keras.optimizers.SGD(3e-2, momentum=0.9),
    "adam": lambda: keras.optimizers.Adam(5e-2),
    "adadelta": lambda: keras.optimizers.Adadelta(30.0),
    "adagrad": lambda: keras.optimizers.Adagrad(3e-1),
    "rmsprop": lambda: keras.optimizers.RMSprop(1e-2),
    "muon": lambda: keras_sip.Muon(6e-2),
}


@pytest.mark.parametrize("name", FIRST_ORDER)
def test_optimizers_of_sips_network_updates_approach_the_inverse_of_a_linear_process(name):
    # On a line of two cells the inverse is the Laplacian, and a linear network must become it.
    simulator = keras_sip.Poisson(2)
    laplacian = np.array([[-2.0, 1.0], [1.0, -2.0]])
    inputs = keras.Input((2, 1))
    dense = keras.layers.Dense(2, kernel_initializer="zeros", name="linear")
    network = keras.Model(inputs, keras.layers.Reshape((2, 1))(dense(keras.layers.Flatten()(inputs))))
    model = keras_sip.SIPModel(network, simulator, keras_sip.AnalyticInverse(), input_scale=1.0)
    model.compile(FIRST_ORDER[name](), steps_per_execution=100)
    y = np.random.default_rng(0).standard_normal((16, 2, 1)).astype("float32")
    model.fit(tf.data.Dataset.from_tensors(y).repeat(500), verbose=0)
    assert np.max(np.abs(dense.kernel.numpy() - laplacian)) < 0.2


def test_the_jacobian_of_a_loop_in_time_is_the_same_where_physics_are_compiled():
    """A program of its own that holds a loop, differentiated twice from outside: eagerly and by XLA."""
    simulator = keras_sip.Oscillators(3, target="initial")
    found = []
    for compiled in (False, True):
        model = keras_sip.SIPModel(keras_sip.MLP(4, 3, (2,), seed=0), simulator, None, "adjoint")
        model.physics.compile_alone(compiled)
        y, context = (simulator.sample(2, (1, 2))[name] for name in ("y", "context"))
        batch = methods.Batch({"y": y, "context": context}, y, context, None, tf.fill([2], 0.5))

        @tf.function(autograph=False)
        def jacobian(model=model, batch=batch):
            return WeightProblem(model.physics, model.scaled_network, model.method, batch).jacobian()

        found.append(jacobian())
    for ours, expected in zip(found[1], found[0], strict=True):
        assert relative_error(ours, expected) < 1e-5
