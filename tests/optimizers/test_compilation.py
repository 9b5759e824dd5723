"""Steps under XLA; those of graphs are compared with NumPy elsewhere."""

import numpy as np
import pytest
import tiny_network as tiny

import keras_sip

OPTIMIZERS = {
    "ada_hessian": lambda: keras_sip.AdaHessian(0.05),
    "hessian_free": lambda: keras_sip.HessianFree(damping=1e-4, cg_steps=4),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_xla_takes_the_step_that_is_taken_eagerly(name):
    y, _ = tiny.observations()
    steps = {}
    for way in ("run_eagerly", "jit_compile"):
        model = tiny.model(OPTIMIZERS[name](), **{way: True})
        start = tiny.weights(model)
        model.fit(3 * y, batch_size=5, verbose=0)
        steps[way] = tiny.weights(model) - start
    # float64; four conjugate-gradient steps on a condition number of some 1e4 keep eight digits.
    size = np.max(np.abs(steps["run_eagerly"]))
    np.testing.assert_allclose(steps["jit_compile"], steps["run_eagerly"], rtol=0, atol=1e-8 * size)
