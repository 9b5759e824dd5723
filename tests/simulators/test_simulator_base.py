"""What a subclass of Simulator gets for free, and what it is told when it or its caller is wrong."""

import json

import numpy as np
import pytest
import tensorflow as tf

import keras_sip
import problems
from numerics import relative_error


class Spring(keras_sip.Simulator):
    """Displacements of springs under loads, weighed by the precision of each sensor."""

    x_shape, y_shape = (2,), (2,)

    def __init__(self, stiffness, sensor=(1.0, 2.0), *, dtype="float64", **options):
        self.stiffness, self.sensor, self.dtype = stiffness, sensor, dtype
        self.options = options

    def forward(self, x, context=None):
        return x / self.stiffness

    def residual(self, y, y_target, context=None):
        return tf.constant(self.sensor, y.dtype) * (y - y_target) ** 3


def error_of(call, kind):
    """The message of an error, which has three parts: expected, received, what to do."""
    with pytest.raises(kind) as caught:
        call()
    parts = str(caught.value).split("\n")
    assert len(parts) >= 3
    assert parts[0].startswith("Expected ")
    assert parts[1].startswith("Received ")
    return str(caught.value)


# Defaults ----------------------------------------------------------------------------------------------------------


def test_objective_is_half_the_sum_of_squared_residuals():
    y, y_target = np.array([[1.0, 2.0], [0.0, 5.0]]), np.array([[0.0, 0.0], [0.0, 1.0]])
    plain = keras_sip.from_function(problems.tanh_process, 2, dtype="float64")
    assert plain.residual(y, y_target).numpy() == pytest.approx(y - y_target)
    assert plain.objective(tf.constant(y), y_target).numpy() == pytest.approx([2.5, 8.0])
    # Residuals (1, 16) and (0, 128): a sensor's weight enters as the residual says.
    assert Spring(1.0).objective(tf.constant(y), y_target).numpy() == pytest.approx([257 / 2, 128**2 / 2])


def test_gradient_of_the_objective_survives_where_the_objective_underflows():
    y = tf.constant([[3e-25, -4e-25]])
    simulator = keras_sip.from_function(problems.tanh_process, 2)
    assert simulator.objective(y, tf.zeros_like(y)).numpy() == 0.0
    assert np.array_equal(simulator.objective_gradient(y, tf.zeros_like(y)), y)


def test_gradient_of_the_objective_follows_an_own_residual():
    y, y_target = tf.constant([[1.0, 2.0]], "float64"), tf.constant([[0.5, 0.0]], "float64")
    expected = 3 * np.array([[0.5**5, 2**2 * 2.0**5]])  # d/dy 1/2 (s d^3)^2 = 3 s^2 d^5
    assert Spring(1.0).objective_gradient(y, y_target).numpy() == pytest.approx(expected)


def test_gradient_of_the_objective_follows_an_own_objective():
    y, y_target = tf.constant([[0.1, 0.2, 3.0, 0.0]], "float64"), tf.zeros((1, 4), "float64")
    received = problems.Directions().objective_gradient(y, y_target)
    assert received.numpy() == pytest.approx(np.sin(y.numpy()))


def test_is_least_squares_says_whether_the_objective_is_overridden():
    assert Spring(1.0).is_least_squares
    assert not problems.Directions().is_least_squares
    assert not keras_sip.Nondimensional(problems.Directions()).is_least_squares


def test_distance_is_the_mean_absolute_error_of_each_example():
    x, x_ref = tf.constant([[1.0, 2.0], [0.0, -1.0]]), tf.constant([[0.0, 0.0], [0.0, 0.0]])
    assert Spring(1.0).distance(x, x_ref).numpy() == pytest.approx([1.5, 0.5])


def test_network_sees_y_and_its_answer_is_not_projected():
    y, x = tf.ones((1, 2)), tf.ones((1, 2))
    assert Spring(1.0).network_input({"y": y, "context": {"mask": y}}) is y
    assert Spring(1.0).network_input(y) is y
    assert Spring(1.0).project(x, y) is x


def test_observation_with_unknown_parts_is_refused():
    message = error_of(lambda: Spring(1.0).network_input({"y": 1.0, "mask": 2.0}), ValueError)
    assert "['mask', 'y']" in message
    assert "under 'context'" in message


def test_has_tells_what_a_simulator_defines():
    assert Spring(1.0).has("residual")
    assert not Spring(1.0).has("inverse")
    assert keras_sip.Poisson((4, 4)).has("inverse")
    assert problems.MaskedSensors().has("sample")


# Scale of x ----------------------------------------------------------------------------------------------------------


class Sampled(keras_sip.Simulator):
    """Samples with components of very different size, one of them 0."""

    x_shape, y_shape, dtype = (4, 3), (4, 3), "float32"
    sizes = np.array([1e-25, 0.0, 1e3])

    def forward(self, x, context=None):
        return 1.0 * x

    def sample(self, batch_size, seed):
        x = tf.cast(self.sizes, self.dtype) * tf.random.stateless_normal((batch_size, *self.x_shape), seed)
        return {"x": x, "y": self.forward(x)}


def test_x_scale_is_measured_on_samples_by_channel():
    scale = np.asarray(Sampled().x_scale)
    # 1024 numbers in each channel: 3 standard deviations of their root mean square are 7 %. Zero counts as 1.
    assert scale / [1e-25, 1.0, 1e3] == pytest.approx(np.ones(3), rel=0.07)


def test_x_scale_can_be_measured_while_a_graph_is_traced():
    simulator = Sampled()
    traced = tf.function(lambda: tf.constant(simulator.x_scale))()
    assert traced.numpy() == pytest.approx(Sampled().x_scale)


def test_x_scale_is_one_without_samples():
    assert Spring(1.0).x_scale == 1.0


# Configuration -------------------------------------------------------------------------------------------------------


def test_arguments_are_recorded_without_get_config():
    spring = Spring(np.float32(2.0), sensor=np.array([1.0, 3.0]), dtype="float32", color="red")
    assert spring.get_config() == {"stiffness": 2.0, "sensor": [1.0, 3.0], "dtype": "float32", "color": "red"}
    assert json.loads(json.dumps(spring.get_config())) == spring.get_config()
    assert Spring.from_config(spring.get_config()).get_config() == spring.get_config()


def test_recorded_arguments_leave_out_defaults():
    assert Spring(2.0).get_config() == {"stiffness": 2.0}
    assert problems.MaskedSensors().get_config() == {}


def test_tensors_and_tuples_are_recorded_as_json_can_hold_them():
    assert Spring(tf.constant([1.0, 2.0]), sensor=(1, (2, np.int64(3)))).get_config() == {
        "stiffness": [1.0, 2.0],
        "sensor": [1, [2, 3]],
    }


def test_repr_shows_the_call():
    assert repr(keras_sip.Poisson((4, 5), dtype="float64")) == "Poisson(resolution=[4, 5], dtype='float64')"


@pytest.mark.parametrize("call", [lambda: Spring(), lambda: problems.MaskedSensors(3)], ids=["missing", "too_many"])
def test_wrong_arguments_are_answered_with_the_signature(call):
    assert "the arguments of `" in error_of(call, TypeError)


def test_unknown_keyword_is_refused():
    message = error_of(lambda: keras_sip.Poisson((4, 4), spaceing=2.0), TypeError)
    assert "spaceing" in message
    assert "spacing=1.0" in message


# Wrong input ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "call, remedy",
    [
        (lambda s: s.forward(None), "Write the physical process y = P(x)"),
        (lambda s: s.inverse(None, None), "GaussNewton() or LevenbergMarquardt()"),
        (lambda s: s.sample(1, (0, 0)), "keras_sip.from_arrays"),
    ],
    ids=["forward", "inverse", "sample"],
)
def test_missing_method_is_named_with_what_to_do(call, remedy):
    message = error_of(lambda: call(keras_sip.Simulator()), NotImplementedError)
    assert "`Simulator` to define" in message
    assert remedy in message


def test_x_of_the_wrong_shape_is_refused():
    message = error_of(lambda: keras_sip.Poisson((8, 8))(np.zeros((2, 8, 8))), ValueError)
    assert "shape ('batch', 8, 8, 1)" in message
    assert "shape (2, 8, 8)" in message


def test_integers_are_no_field():
    message = error_of(lambda: keras_sip.Poisson(4)(np.zeros((2, 4, 1), int)), TypeError)
    assert "dtype int64" in message
    assert "np.asarray(x, 'float32')" in message


def test_observation_less_precise_than_the_simulator_is_refused():
    simulator = keras_sip.Poisson(4, dtype="float64")
    message = error_of(lambda: simulator.as_y(np.zeros((2, 4, 1), "float32")), TypeError)
    assert "`y_target` of shape ('batch', 4, 1) and dtype float64" in message
    assert "dtype float32" in message
    assert "keras_sip.from_arrays" in message


def test_x_less_precise_than_the_simulator_is_widened():
    simulator = keras_sip.Poisson(4, dtype="float64")
    assert simulator(np.ones((2, 4, 1), "float32")).dtype == "float64"


def test_observation_more_precise_than_the_simulator_is_accepted():
    assert keras_sip.Poisson(4).as_y(np.zeros((2, 4, 1))).dtype == "float32"


def test_context_is_a_dict_in_the_simulator_s_precision():
    context = problems.MaskedSensors().as_context({"mask": np.ones((2, 4), "float32"), "sensor": np.array([3, 4])})
    assert context["mask"].dtype == "float64"
    assert context["sensor"].dtype == "int64"
    assert "a ndarray" in error_of(lambda: problems.MaskedSensors().as_context(np.ones((2, 4))), TypeError)


def test_numbers_lists_and_tensors_are_the_same_x():
    spring = Spring(2.0)
    assert np.array_equal(spring([[1.0, 2.0]]), spring(np.array([[1.0, 2.0]])))
    assert np.array_equal(spring([[1.0, 2.0]]), spring(tf.constant([[1.0, 2.0]])))


class WithoutShapes(keras_sip.Simulator):
    pass


@pytest.mark.parametrize("simulator, received", [(WithoutShapes(), "without x_shape, y_shape"), (np.tanh, "a ufunc")])
def test_solver_names_what_a_simulator_lacks(simulator, received):
    message = error_of(lambda: keras_sip.GradientDescent().check(simulator), TypeError)
    assert received in message
    assert "keras_sip.from_function" in message


def test_solution_agrees_with_an_own_inverse():
    """A simulator in about ten lines: forward and inverse serve a solver without anything else."""

    class Shift(keras_sip.Simulator):
        x_shape = y_shape = (3,)

        def forward(self, x, context=None):
            return x + 1.0

        def inverse(self, y_target, x_near, context=None):
            return y_target - 1.0

    x_true = np.array([[1.0, -2.0, 4.0]], "float32")
    result = keras_sip.AnalyticInverse().solve(Shift(), np.zeros((1, 3), "float32"), x_true + 1)
    assert relative_error(result.x, x_true) < 1e-6
