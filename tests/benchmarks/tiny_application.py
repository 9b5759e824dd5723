"""An application small enough to be compiled in a test: Poisson on 8 x 8 cells in float64."""

import keras

import keras_sip
from experiments.experiment import Experiment, Variant

LEARNING_RATE = 1e-2


def network(simulator, seed):
    """The smallest U-Net, batch norm included.

    In float32, Adam would turn rounding errors of vanishing gradients into steps of full length.
    """
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy("float64")
    try:
        return keras_sip.UNet(simulator.y_shape, 1, levels=1, filters=2, seed=seed)
    finally:
        keras.config.set_dtype_policy(policy)


EXPERIMENT = Experiment(
    name="tiny_application",
    title="Tiny",
    description=__doc__,
    simulator=lambda options: keras_sip.Poisson(tuple(options.resolution), dtype="float64"),
    network=network,
    variants={
        "sip": Variant(
            label="SIP",
            about="with the known inverse",
            method="sip",
            solver=lambda options: keras_sip.AnalyticInverse(),
            optimizer=lambda options: keras.optimizers.Adam(LEARNING_RATE),
        ),
    },
    default_methods=("sip",),
    batch=2,
    resolution=(8, 8),
)
