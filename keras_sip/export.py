"""A SIPModel as a SavedModel that loads with TensorFlow alone."""

import pathlib

import keras
import tensorflow as tf

from keras_sip.errors import three_part
from keras_sip.simulators.base import join_observation


def export_saved_model(model, path):
    """Write `model` as a SavedModel with the named signatures `infer` and `simulate`.

    - `infer(y=..., context_NAME=...) -> {"x"}`: the network's answer, in physical units;
    - `simulate(x=..., context_NAME=...) -> {"y"}`: y = P(x).

    The batch size is free. The custom gradient of SIP training is not part of a SavedModel; these serve inference.

    Args:
        model: A `SIPModel` whose simulator needs no context, or one with `sample`, from which the context's shapes
            are read.
        path: A folder that does not exist yet.

    Raises:
        FileExistsError: The folder exists.
    """
    path = pathlib.Path(path)
    if path.exists():
        raise FileExistsError(
            three_part("a folder that does not exist yet", f"path={str(path)!r}, which exists", "Choose another name.")
        )
    simulator = model.simulator
    context_spec = _context_spec(simulator)

    def infer(y, context):
        return {"x": model(join_observation(y, context), training=False)}

    def simulate(x, context):
        return {"y": simulator.forward(x, context)}

    archive = keras.export.ExportArchive()
    archive.track(model)
    for name, function, argument, shape in (
        ("infer", infer, "y", simulator.y_shape),
        ("simulate", simulate, "x", simulator.x_shape),
    ):
        spec = tf.TensorSpec((None, *shape), simulator.dtype, name=argument)
        archive.add_endpoint(name, *_flat_signature(function, argument, spec, context_spec))
    archive.write_out(path, verbose=False)


def _context_spec(simulator):
    """Specs of the context's entries with a free batch size, read off one sample; {} without context."""
    context = simulator.sample(1, (0, 0)).get("context") if simulator.has("sample") else None
    return {
        name: tf.TensorSpec((None, *value.shape[1:]), value.dtype, name=f"context_{name}")
        for name, value in (context or {}).items()
    }


def _flat_signature(function, argument, spec, context_spec):
    """`function(value, context)` as a `tf.function` of named tensors, with its signature."""

    @tf.function(input_signature=[spec, *context_spec.values()])
    def endpoint(value, *entries):
        return function(value, dict(zip(context_spec, entries, strict=True)) or None)

    return (endpoint,)
