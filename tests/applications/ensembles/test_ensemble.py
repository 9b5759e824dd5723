"""Ensembles take the steps of SIPModel.fit; sweeps lose nothing to an interruption."""

import functools
import os
import signal

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_sip
from ensembles.ensemble import Ensemble, Member
from ensembles.sweep import Sweep, window

BATCH, STEPS = 10, 6
SYSTEMS = ((("xi", 2.0), ("phi", 30.0)), (("xi", 8.0), ("phi", 0.0)), (("xi", 2.0), ("phi", 30.0)))
MEMBERS = tuple(
    Member(seed, rate, system) for seed, rate, system in zip((0, 1, 1), (1e-2, 1e-3, 3e-3), SYSTEMS, strict=True)
)
OPTIMIZERS = {
    "sip": lambda rate: keras.optimizers.Adam(rate),
    "adjoint": lambda rate: keras.optimizers.RMSprop(rate, rho=0.99),
}


def network(seed):
    return keras_sip.MLP(2, 2, (8, 8), seed=seed)


def solver(method):
    return keras_sip.SaddleFreeNewton(max_loss_change=0.2) if method == "sip" else None


def ensemble(members=MEMBERS, method="adjoint", **options):
    return Ensemble(
        members,
        keras_sip.RotatedSine(),
        network,
        method=method,
        solver=solver(method),
        optimizer=OPTIMIZERS[method](1.0),
        batch=BATCH,
        **options,
    )


@functools.cache
def trained_by(method):
    """(method, the ensemble after some steps, its errors and losses)."""
    together = ensemble(method=method)
    return method, together, together.train(STEPS)


@pytest.fixture(params=["sip", "adjoint"])
def trained(request):
    return trained_by(request.param)


@pytest.mark.parametrize("index", [0, 1])
def test_a_member_follows_sip_model_fit(trained, index):
    method, together, (errors, losses) = trained
    member = MEMBERS[index]
    simulator = keras_sip.RotatedSine(**dict(member.context))
    model = keras_sip.SIPModel(network(member.seed), simulator, solver(method), method, x_scale=1.0, input_scale=1.0)
    # Step by step: a reference that nothing has compiled, and compiling it would take longer.
    model.compile(OPTIMIZERS[method](member.rate), run_eagerly=True)
    measured = []

    class Measure(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            measured.append((logs["x_error"], logs["loss"]))
            self.model.reset_metrics()

    start = model.get_weights()
    model.fit(
        keras_sip.dataset(simulator, BATCH, member.seed).take(STEPS),
        steps_per_epoch=STEPS,
        verbose=0,
        callbacks=[Measure()],
    )
    for one, stacked, initial in zip(model.get_weights(), together.model.get_weights(), start, strict=True):
        moved = np.max(np.abs(one - initial))
        # Six steps; products of matrices are summed in another order, and Adam divides by small gradients.
        np.testing.assert_allclose(stacked[index].reshape(one.shape), one, atol=2e-3 * moved)
    np.testing.assert_allclose(errors[:, index], [error for error, _ in measured], rtol=1e-3)
    np.testing.assert_allclose(losses[:, index], [loss for _, loss in measured], rtol=1e-3)


def test_a_decaying_rate_is_that_of_keras():
    member = MEMBERS[:1]
    together = ensemble(member, decay_steps=STEPS)
    together.train(STEPS)
    model = keras_sip.SIPModel(
        network(0), keras_sip.RotatedSine(**dict(member[0].context)), None, "adjoint", x_scale=1.0, input_scale=1.0
    )
    rate = keras.optimizers.schedules.CosineDecay(member[0].rate, STEPS)
    model.compile(OPTIMIZERS["adjoint"](rate), run_eagerly=True)
    model.fit(keras_sip.dataset(model.simulator, BATCH, 0).take(STEPS), steps_per_epoch=STEPS, verbose=0)
    np.testing.assert_allclose(together.model.get_weights()[0][0], model.get_weights()[0], atol=2e-5)


def test_a_member_that_diverges_leaves_the_others_alone():
    wild = (MEMBERS[0], Member(1, 1e30, MEMBERS[1].context), MEMBERS[2])
    errors, losses = ensemble(wild).train(STEPS)
    calm = trained_by("adjoint")[2]
    np.testing.assert_array_equal(errors[:, [0, 2]], calm[0][:, [0, 2]])
    assert not np.isfinite(losses[-1, 1]) or losses[-1, 1] > 1e6
    assert window(np.array([[1.0, np.nan], [3.0, 1.0]]), 2).tolist() == [2.0, np.inf]


def test_prediction_of_a_member_is_that_of_its_network():
    together = ensemble()
    y = tf.constant([[0.1, 0.2], [0.3, -0.4]])
    np.testing.assert_allclose(together.predict(y)[1], network(1)(y), rtol=1e-5, atol=1e-6)


def test_a_method_with_norms_over_the_batch_takes_one_member():
    arguments = {"method": keras_sip.SIP(adjoint_mix=1.0), "solver": solver("sip")}
    optimizer = keras.optimizers.Adam(1e-3)
    Ensemble(MEMBERS[:1], keras_sip.RotatedSine(), network, optimizer=optimizer, batch=BATCH, **arguments)
    with pytest.raises(ValueError, match="treats each example alone"):
        Ensemble(MEMBERS, keras_sip.RotatedSine(), network, optimizer=optimizer, batch=BATCH, **arguments)


class _Interrupted(Ensemble):
    """A user who presses Ctrl-C in the second execution."""

    def train(self, steps):
        if self.step == 4:
            os.kill(os.getpid(), signal.SIGINT)
        return super().train(steps)


def test_an_interrupted_sweep_goes_on_bit_identically_and_keeps_what_is_finished(tmp_path, monkeypatch):
    monkeypatch.setattr("ensembles.sweep.STEPS_PER_EXECUTION", 4)
    members = MEMBERS[:1]
    whole = Sweep(tmp_path / "whole", quiet=True).curves("a", members, lambda: ensemble(members), 12)

    def interrupted():
        together = ensemble(members)
        together.__class__ = _Interrupted
        return together

    sweep = Sweep(tmp_path / "parts", quiet=True)
    with pytest.raises(KeyboardInterrupt):
        sweep.curves("a", members, interrupted, 12)
    assert [path.name for path in (tmp_path / "parts").iterdir()] == ["a.part.npz"]
    resumed = sweep.curves("a", members, lambda: ensemble(members), 12)
    np.testing.assert_array_equal(resumed.errors, whole.errors)
    np.testing.assert_array_equal(resumed.losses, whole.losses)

    def never():
        raise AssertionError("a finished ensemble was trained again")

    again = sweep.curves("a", members, never, 12)
    np.testing.assert_array_equal(again.errors, whole.errors)
    assert again.members == [{"seed": 0, "rate": 1e-2, "xi": 2.0, "phi": 30.0}]
    assert again.select(xi=2.0) == [0] and again.select(xi=3.0) == []
    with pytest.raises(ValueError, match="seeds, rates or systems have changed"):
        sweep.curves("a", MEMBERS, never, 12)
