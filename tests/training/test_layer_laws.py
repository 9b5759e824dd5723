"""With the gradient solver, SIP training is back-propagation: in every setting that Keras offers, to rounding."""

import contextlib
import dataclasses
import functools
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_sip
import problems

BATCH = 8


@dataclasses.dataclass(frozen=True)
class Case:
    """A process, where the network's output lies, and weights that keep its gradients within float32.

    The SIP side has `step` in its solver and `weight` on its examples; back-propagation has weight * step on its
    examples. Both mean the same; in units of 1e-21 the plain product r * J = 1e-42 would be 0 in float32.
    """

    name: str
    process: Any
    offset: float
    unit: float = 1.0
    step: float = 1.0
    weight: float = 1.0


CASES = [
    Case("tanh", problems.tanh_process, 0.0),
    Case("exponential_at_-12", problems.exponential_process, -12.0, unit=np.exp(-12.0), weight=1e6),
    Case("units_of_1e-21", problems.tiny_tanh_process, 0.0, unit=1e-21, step=1e21, weight=1e12),
]


@dataclasses.dataclass(frozen=True)
class Setting:
    """What Keras does to the loss and the step."""

    name: str
    policy: str = "float32"
    reduction: str = "sum_over_batch_size"
    sample_weights: bool = False
    accumulation: int | None = None
    replicas: bool = False
    jit_compile: bool = False
    # Both sides agree to rounding: of float32, or of float16 where cotangents pass through it.
    tolerance: float = 2e-6


SETTINGS = [
    Setting("float32"),
    Setting("sum", reduction="sum"),
    Setting("sample_weights", sample_weights=True),
    Setting("accumulation", accumulation=2),
    Setting("xla", jit_compile=True, sample_weights=True),
    Setting("replicas", replicas=True),
    Setting("float16", policy="mixed_float16", tolerance=2e-3),
    Setting("float16_accumulation", policy="mixed_float16", accumulation=2, tolerance=2e-3),
    Setting("float16_replicas", policy="mixed_float16", replicas=True, tolerance=2e-3),
]
PLAIN = [setting for setting in SETTINGS if setting.name in ("float32", "float16")]


# Each policy in each case, whose numbers a policy may lose; what else Keras does, in one case each, turn by turn.
CASES_AND_SETTINGS = [(case, setting) for case in CASES for setting in SETTINGS if setting in PLAIN] + [
    (CASES[turn % len(CASES)], setting) for turn, setting in enumerate(s for s in SETTINGS if s not in PLAIN)
]
over_cases_and_settings = pytest.mark.parametrize(
    "case, setting", CASES_AND_SETTINGS, ids=[f"{case.name}-{setting.name}" for case, setting in CASES_AND_SETTINGS]
)


def make_network(case, policy, dtype="float32"):
    """Two unknowns from two observations, with weights that do not depend on the build order."""
    inputs = keras.Input((2,), dtype=dtype)
    hidden = keras.layers.Dense(5, "tanh", dtype=policy, kernel_initializer=keras.initializers.RandomNormal(seed=1))(
        inputs / tf.constant(case.unit, dtype)
    )
    x = keras.layers.Dense(2, dtype="float32", kernel_initializer=keras.initializers.RandomNormal(seed=2))(hidden)
    network = keras.Model(inputs, x + case.offset)
    # A mixed policy of the layers is the policy of the model: Keras decides on loss scaling by it.
    network.dtype_policy = keras.dtype_policies.get(policy)
    return network


def functional(case, setting, layer):
    network = make_network(case, setting.policy)
    y_target = network.input
    arguments = {"y_target": y_target} if isinstance(layer, keras_sip.SIPPhysicsLayer) else {}
    model = keras.Model(y_target, layer(network.output, **arguments))
    model.dtype_policy = keras.dtype_policies.get(setting.policy)
    return model, {"loss": keras_sip.HalfSumOfSquares(setting.reduction)}


def sip_model(case, setting, simulator, method, solver):
    reduction = "sum" if setting.reduction == "sum" else "mean"
    network = make_network(case, setting.policy)
    model = keras_sip.SIPModel(
        network, simulator, solver, method, batch_reduction=reduction, x_scale=1.0, input_scale=1.0
    )
    return model, {}


def data(case, factor, setting):
    generator = np.random.default_rng(3)
    x = case.offset + generator.standard_normal((BATCH, 2)).astype("float32")
    y = case.process(tf.constant(x)).numpy()
    weights = generator.uniform(0.2, 2.0, BATCH) if setting.sample_weights else np.ones(BATCH)
    return y, (weights * factor).astype("float32")


def weight_updates(build, setting, y, weights, targets=None):
    """`learning_rate -> ` the change of all weights by one epoch of fit from their first values, traced once."""
    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]) if setting.replicas else None
    with strategy.scope() if strategy else contextlib.nullcontext():
        model, options = build()
        optimizer = keras.optimizers.SGD(gradient_accumulation_steps=setting.accumulation)
        model.compile(optimizer=optimizer, jit_compile=setting.jit_compile, **options)
    before = [np.copy(w) for w in model.get_weights()]
    steps = setting.accumulation or 1
    rows = tf.data.Dataset.from_tensor_slices((y, targets if targets is not None else y, weights))

    def update(learning_rate):
        model.set_weights(before)
        optimizer.learning_rate = learning_rate
        model.fit(rows.batch(BATCH // steps), verbose=0)
        change = [after - start for after, start in zip(model.get_weights(), before, strict=True)]
        return np.concatenate([np.ravel(part) for part in change])

    return update


@functools.cache
def back_propagation(case, setting):
    """(learning rate, change of the weights): what both routes of SIP training are compared with."""
    y, weights = data(case, case.weight * case.step, setting)
    layer = keras_sip.PhysicsLayer(keras_sip.from_function(case.process, 2))
    update = weight_updates(lambda: functional(case, setting, layer), setting, y, weights)
    # A rate at which weights change by about 1, so that nothing of the update is lost in the weights' own rounding.
    rate = float(1.0 / np.max(np.abs(update(1.0))))
    expected = update(rate)
    assert 0.3 < np.max(np.abs(expected)) < 3
    return rate, expected


def compare(case, setting, build, *, labelled=False):
    """Largest difference between a SIP build and back-propagation, relative to the largest change of a weight."""
    simulator = keras_sip.from_function(case.process, 2)
    rate, expected = back_propagation(case, setting)
    y, weights = data(case, case.weight, setting)
    x = np.zeros((BATCH, 2), "float32") if labelled else None
    received = weight_updates(lambda: build(simulator), setting, y, weights, x)(rate)
    return np.max(np.abs(received - expected)) / np.max(np.abs(expected))


@over_cases_and_settings
def test_layer_with_gradient_solver_equals_back_propagation(case, setting):
    solver = keras_sip.GradientDescent(step_size=case.step)

    def build(simulator):
        # Any x_scale: the gradient solver's step and the proxy's gradient have it once each.
        return functional(case, setting, keras_sip.SIPPhysicsLayer(simulator, solver, x_scale=[0.5, 3.0]))

    difference = compare(case, setting, build)
    assert difference < setting.tolerance


@over_cases_and_settings
def test_sip_model_with_gradient_solver_equals_back_propagation(case, setting):
    solver = keras_sip.GradientDescent(step_size=case.step)
    difference = compare(
        case, setting, lambda simulator: sip_model(case, setting, simulator, "sip", solver), labelled=True
    )
    assert difference < setting.tolerance
