"""SimulatorWrapper: what a subclass changes is changed, and what no longer holds is gone."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_sip
import problems

POISSON = keras_sip.Poisson((4, 5), dtype="float64")
SEED = (1, 2)


@keras.saving.register_keras_serializable(package="keras_sip_tests")
class Doubled(keras_sip.SimulatorWrapper):
    """y in another unit."""

    def __init__(self, simulator, factor=2.0):
        super().__init__(simulator)
        self.factor = factor

    def forward(self, x, context=None):
        return self.factor * self.physical.forward(x, context)


class DoubledWithInverse(Doubled):
    adds_abilities = False

    def inverse(self, y_target, x_near, context=None):
        return self.physical.inverse(y_target / self.factor, x_near, context)


class Weighted(keras_sip.SimulatorWrapper):
    def residual(self, y, y_target, context=None):
        return 3.0 * self.physical.residual(y, y_target, context)


def test_samples_are_simulated_with_an_own_forward():
    expected, received = POISSON.sample(2, SEED), Doubled(POISSON).sample(2, SEED)
    np.testing.assert_array_equal(received["x"], expected["x"])
    np.testing.assert_array_equal(received["y"], 2 * expected["y"])


def test_an_own_forward_leaves_no_inverse_of_the_process_before():
    wrapper = Doubled(POISSON)
    assert not any(wrapper.has(ability) for ability in ("inverse", "diagonal_form", "reverse_form"))
    with pytest.raises(NotImplementedError, match="`Doubled` to define `inverse"):
        wrapper.inverse(tf.zeros((1, 4, 5, 1)), tf.zeros((1, 4, 5, 1)))
    # What a linear factor leaves standing must be found by a solver that needs no inverse.
    with pytest.raises(TypeError, match="inverse"):
        keras_sip.AnalyticInverse().check(wrapper)


def test_an_own_inverse_counts_where_there_was_one_or_where_it_is_new():
    assert DoubledWithInverse(POISSON).has("inverse")
    assert not DoubledWithInverse(problems.CURVED).has("inverse")

    class Inverted(keras_sip.SimulatorWrapper):
        def inverse(self, y_target, x_near, context=None):
            return x_near

    assert Inverted(problems.CURVED).has("inverse")
    sample = DoubledWithInverse(POISSON).sample(1, SEED)
    received = DoubledWithInverse(POISSON).inverse(sample["y"], sample["x"])
    np.testing.assert_allclose(received, sample["x"], rtol=0, atol=1e-12 * np.max(np.abs(sample["x"])))


def test_an_own_residual_makes_the_objective_and_its_gradient():
    y, y_target = tf.constant([[1.0, 2.0, 0.0, 1.0]], tf.float64), tf.zeros((1, 4), tf.float64)
    weighted = Weighted(problems.CURVED)
    assert weighted.objective(y, y_target).numpy() == pytest.approx([9 * 3.0])
    assert weighted.objective_gradient(y, y_target).numpy() == pytest.approx(9 * y.numpy())
    assert Weighted(problems.Directions()).has("objective")


def test_wrappers_of_wrappers_are_saved_with_their_arguments():
    wrapper = Doubled(keras_sip.Degraded(POISSON, noise=0.1), factor=3.0)
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(wrapper))
    assert repr(again) == repr(wrapper) and again.get_config() == wrapper.get_config()
    assert again.factor == 3.0 and again.levels == wrapper.levels and again.resolution == (4, 5)
    first, second = (s.sample(2, SEED) for s in (wrapper, again))
    tf.nest.map_structure(np.testing.assert_array_equal, first, second)


def test_a_value_that_the_wrapper_sets_is_its_own():
    class Cut(keras_sip.SimulatorWrapper):
        def __init__(self, simulator):
            super().__init__(simulator)
            self.y_shape = (2,)

    assert Cut(problems.CURVED).y_shape == (2,) and Cut(problems.CURVED).x_shape == (3,)


def test_unknown_ability_is_refused_by_name():
    with pytest.raises(ValueError, match="(?s)Expected the name of an ability: residual, objective.*'inverted'"):
        POISSON.has("inverted")


def test_a_fluid_in_other_units_or_with_noise_asks_users_for_a_marker_too():
    fluid = keras_sip.NavierStokes((8, 8), num_steps=1)
    for wrapper in (keras_sip.Nondimensional(fluid, 2.0), keras_sip.Degraded(fluid, noise=0.1)):
        assert wrapper.has("reverse_form")
        with pytest.raises(ValueError, match="hold the first marker"):
            wrapper.as_context({})
    # The velocity is too fast in its own units, not in those of the network.
    fast = np.full((1, 8, 8, 2), 50.0, "float32")
    with pytest.warns(UserWarning, match="CFL"):
        keras_sip.Nondimensional(fluid, 2.0).as_x(fast)
