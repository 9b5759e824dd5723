"""The three ways to run a TensorFlow function, and the law that examples don't touch each other."""

import numpy as np
import pytest
import tensorflow as tf

MODES = {
    "eager": lambda function: function,
    "graph": lambda function: tf.function(function, autograph=False),
    "xla": lambda function: tf.function(function, autograph=False, jit_compile=True),
}


@pytest.fixture(params=MODES.values(), ids=MODES.keys())
def mode(request):
    """Wraps a function so that it runs eagerly, as a graph, or compiled by XLA."""
    return request.param


@pytest.fixture
def check_examples_are_apart(mode):
    """Checks that a NaN in example 1 of 3 shows in its own result and leaves the others bit-identical."""

    def check(function, batch):
        function = mode(function)
        spoiled = np.array(batch)
        spoiled[1].flat[spoiled[1].size // 2] = np.nan
        clean, with_nan = (tf.nest.flatten(function(tf.constant(b))) for b in (batch, spoiled))
        for expected, received in zip(clean, with_nan, strict=True):
            np.testing.assert_array_equal(np.delete(received, 1, axis=0), np.delete(expected, 1, axis=0))
        assert any(np.isnan(received[1]).any() for received in with_nan)

    return check
