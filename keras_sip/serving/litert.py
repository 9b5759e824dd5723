"""A SIPModel as one file for LiteRT, formerly TensorFlow Lite: for machines too small for TensorFlow."""

import pathlib
import tempfile

import tensorflow as tf

from keras_sip.errors import three_part
from keras_sip.files import write_atomically
from keras_sip.untrusted import one_line

# Of the SavedModel's; error bars need decompositions, which LiteRT has none of.
SIGNATURES = ("infer", "simulate", "refine")


def convert(saved_model: pathlib.Path) -> bytes:
    """The signatures `infer`, `simulate` and `refine` of an exported folder in LiteRT's own operations.

    `steps` of `refine` is int32 `[B]`, and there is no `objective`: it is in float64, which LiteRT has no sums of.

    Raises:
        ValueError: The graph holds operations that LiteRT lacks, such as decompositions; the message names them.
    """
    served = tf.saved_model.load(str(saved_model))
    module = tf.Module()
    module.served = served
    signatures = {name: _traced(served.signatures[name]) for name in SIGNATURES if name in served.signatures}
    with tempfile.TemporaryDirectory() as folder:
        tf.saved_model.save(module, folder, signatures=signatures)
        converter = tf.lite.TFLiteConverter.from_saved_model(folder, signature_keys=list(signatures))
        try:
            return converter.convert()
        except Exception as error:
            raise ValueError(
                three_part(
                    f"a graph of operations that LiteRT has, for {', '.join(signatures)}",
                    one_line(str(error).strip().splitlines()[-1]),
                    "Export a SavedModel, or choose a solver without decompositions, such as AnalyticInverse.",
                )
            ) from error


def write(saved_model: pathlib.Path, path: pathlib.Path) -> None:
    """`convert`, into a file that is whole or not there."""
    write_atomically(path, convert(saved_model))


def _traced(signature):
    """A signature with one number of steps for each example, and without what is in float64."""
    _, inputs = signature.structured_input_signature
    specs = {name: tf.TensorSpec([None], spec.dtype) if name == "steps" else spec for name, spec in inputs.items()}
    kept = [name for name in signature.structured_outputs if name != "objective"]

    named = [tf.TensorSpec(spec.shape, spec.dtype, name=name) for name, spec in specs.items()]

    @tf.function(input_signature=named, autograph=False)
    def endpoint(*values):
        answer = signature(**dict(zip(specs, values, strict=True)))
        return {name: answer[name] for name in kept}

    return endpoint
