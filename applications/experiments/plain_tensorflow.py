"""Answer with exported models where there is nothing but TensorFlow; `check_shipped.py` runs it as a program.

  python plain_tensorflow.py SAVED_MODEL CASE.npz ...

A case holds the inputs of the signature "infer" by their names, and `expected`. Prints for each the largest difference
from it, relative to the largest expected value, and the share of examples whose objective `refine` has lowered.
"""

import importlib.util
import sys

import numpy as np
import tensorflow as tf


def main(words):
    if importlib.util.find_spec("keras_sip") is not None:
        sys.exit("keras_sip is installed here: this shows nothing")
    for saved_model, case in zip(words[::2], words[1::2], strict=True):
        with np.load(case) as arrays:
            inputs = {name: tf.constant(arrays[name]) for name in arrays.files if name != "expected"}
            expected = arrays["expected"]
        signatures = tf.saved_model.load(saved_model).signatures
        x = signatures["infer"](**inputs)["x"].numpy()
        difference = np.max(np.abs(x - expected)) / np.max(np.abs(expected))
        start = signatures["refine"](**inputs, steps=tf.constant(0))["objective"].numpy()
        refined = signatures["refine"](**inputs, steps=tf.constant(1))["objective"].numpy()
        print(f"{difference:.1e} {np.mean(refined <= start):.3f}")


if __name__ == "__main__":
    main(sys.argv[1:])
