"""A model for tests of the server, in NumPy: it answers 2 y, and y + steps."""

import threading

import numpy as np

from keras_sip.serving.server.served_model import Input

Y = Input(np.dtype("float32"), (2,), True)


class Arithmetic:
    """What `ServedModel` is to the server; `batches` lists (signature, examples) of what was run.

    While `gate` is cleared, no batch is answered. A batch with a 13 in it fails.
    """

    name, version = "arithmetic", "3"
    signatures = {
        "serving_default": {"y": Y},
        "refine": {"y": Y, "steps": Input(np.dtype("int32"), (), True)},
        "shared": {"y": Y, "steps": Input(np.dtype("int32"), (), False)},
    }

    def __init__(self):
        self.batches = []
        self.gate = threading.Event()
        self.gate.set()

    def __call__(self, signature, inputs):
        self.gate.wait(20)
        y = inputs["y"]
        self.batches.append((signature, len(y)))
        if np.any(y == 13):
            raise ArithmeticError("unlucky")
        if signature == "serving_default":
            return {"x": 2 * y, "valid": y[:, 0] < 100}
        steps = inputs["steps"][:, None] if inputs["steps"].ndim else inputs["steps"]
        return {"x": y + steps}
