"""Steps with the simulator's own examples in one compiled program: those of Keras' loop, resumed to the bit."""

import keras
import numpy as np
import pytest

import keras_sip

SIMULATOR = keras_sip.Exponential()
STEPS, PER_EXECUTION = 7, 3


def compiled_model(steps_per_execution=PER_EXECUTION):
    network = keras_sip.MLP(1, 1, (4,), seed=0)
    model = keras_sip.SIPModel(network, SIMULATOR, keras_sip.AnalyticInverse(), x_scale=1.0, input_scale=1.0)
    model.compile(keras.optimizers.Adam(1e-2), steps_per_execution=steps_per_execution)
    return model


class Calls(keras.callbacks.Callback):
    """What callbacks see of each execution."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def on_train_batch_end(self, batch, logs=None):
        self.seen.append((batch, dict(logs)))


@pytest.fixture(scope="module")
def fitted():
    """{whether in one program: (model, calls)} after the same steps."""
    found = {}
    for one_program in (True, False):
        model, calls = compiled_model(), Calls()
        data = keras_sip.dataset(SIMULATOR, 16, seed=5)
        # Taken of another dataset, the batches are the same, and nobody knows where they are from.
        model.fit(
            data if one_program else data.take(STEPS), steps_per_epoch=STEPS, epochs=1, verbose=0, callbacks=[calls]
        )
        assert bool(model._executions._programs) == one_program
        found[one_program] = model, calls
    return found


def test_weights_are_those_of_keras_loop(fitted):
    """To the rounding of float32 in the sums of 7 steps of Adam."""
    for ours, theirs in zip(fitted[True][0].get_weights(), fitted[False][0].get_weights(), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-5)
    assert fitted[True][0].training_steps == STEPS


def test_callbacks_and_logs_are_those_of_keras_loop(fitted):
    ours, theirs = (fitted[way][1].seen for way in (True, False))
    assert [batch for batch, _ in ours] == [batch for batch, _ in theirs] == [2, 5, 8]
    for (_, logs), (_, expected) in zip(ours, theirs, strict=True):
        assert logs.keys() == expected.keys()
        np.testing.assert_allclose(list(logs.values()), list(expected.values()), rtol=1e-4)


def test_a_run_that_goes_on_ends_to_the_bit_like_one_that_did_not_stop(fitted):
    resumed = compiled_model()
    for first, steps in ((0, 3), (3, 4)):
        data = keras_sip.dataset(SIMULATOR, 16, seed=5, start_step=first)
        resumed.fit(data, steps_per_epoch=steps, verbose=0)
    assert len(resumed._executions._programs) == 1
    for ours, whole in zip(resumed.get_weights(), fitted[True][0].get_weights(), strict=True):
        np.testing.assert_array_equal(ours, whole)


def test_other_data_after_it_are_trained_on_in_keras_way(fitted):
    model, _ = fitted[True]
    y, x = keras_sip.evaluation_set(SIMULATOR, 32, seed=1)
    before = model.training_steps
    model.fit(y, x, batch_size=16, verbose=0)
    assert model.training_steps == before + 2
