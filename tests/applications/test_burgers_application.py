"""Control through time: chains of SIP layers share what they are asked for, and training lowers the error."""

import contextlib
import io

import numpy as np
import tensorflow as tf

import burgers
from studies.burgers_control import Control

SMALL = Control(cells=8, horizon=3, substeps=1, cg_steps=8)


def test_examples_are_a_function_of_the_seed_and_targets_are_others():
    state, target = SMALL.examples(4, (0, 1))
    again, _ = SMALL.examples(4, (0, 1))
    np.testing.assert_array_equal(state, again)
    assert np.min(np.linalg.norm(state - target, axis=1)) > 0.1


def test_the_updates_of_all_steps_together_make_the_change_that_is_missing():
    """Slow diffusion and hardly any transport: every force passes unchanged into the final state."""
    still = Control(cells=8, horizon=3, duration=1e-3, substeps=1, cg_steps=8)
    controller = still.controller(0)
    model = still.model("sip", controller)
    state, target = still.examples(2, (0, 1))
    with tf.GradientTape() as tape:
        final, _, forces = model([state, target])
        loss = 0.5 * tf.reduce_sum(tf.square(final - target))
    weights = controller.trainable_weights
    gradient = tape.gradient(loss, weights)
    assert all(each is not None for each in gradient)
    # dL/dbias of the last layer is the sum over steps and examples of -U in c; in u the shares are 1/3, 1/3 and, as the
    # first step's state is given, half of 1/3.
    scales = [still.force_scale(step) for step in range(3)]
    missing = np.sum(target - final, axis=0)[:, 0]
    shares = [1 / 6, 1 / 3, 1 / 3]
    expected = -sum(share / scale for share, scale in zip(shares, scales, strict=True)) * missing
    np.testing.assert_allclose(gradient[-1], expected, rtol=0.02, atol=0.02 * np.max(np.abs(expected)))


def test_training_lowers_the_error_and_the_table_says_so(tmp_path):
    words = [
        "--methods",
        "sip",
        "--steps",
        8,
        "--batch",
        8,
        "--horizon",
        2,
        "--resolution",
        8,
        "--rate",
        0.01,
        "--quiet",
    ]
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        code = burgers.run([str(word) for word in [*words, "--output", tmp_path / "run"]])
    assert code == 0
    text = (tmp_path / "run" / "table.txt").read_text()
    assert text in printed.getvalue()
    rows = {each[:20].strip(): each[20:].split() for each in text.splitlines()}
    first, last = (float(rows["SIP, chained"][column]) for column in (0, 1))
    assert last < 0.97 * first
    assert (tmp_path / "run" / "control.png").stat().st_size > 0
