"""What the guides to physics and solvers show runs as it stands, one block after the other in an empty folder."""

import numpy as np

import documentation
import keras_sip


def test_tutorial_leads_to_error_bars_that_are_right_and_served(folder):
    names = documentation.run_page(
        "docs/tutorial.md",
        shorter=[
            ("steps_per_epoch=1000", "steps_per_epoch=100"),
            ("examples=500", "examples=100"),
            ("check_simulator(process)", "check_simulator(process, solver_steps=False)"),
        ],
    )
    assert names["report"].passed and names["calibration"].passed
    # Of 2,000 central 95 % intervals of a sound posterior fewer than 90 % hold the truth once in a lifetime; x is
    # uniform and not normal, the noise level is not quite one number, and Laplace's posterior is an approximation.
    held = np.abs(names["x"] - names["x_true"]) < 1.96 * names["error_bar"]
    assert np.mean(held) > 0.9
    # The truth behind the measurement is (12, 10, 12, 0.4).
    mean, deviation = names["posterior"].mean().numpy()[0], names["posterior"].stddev().numpy()[0]
    assert np.all(np.abs(mean - [12.0, 10.0, 12.0, 0.4]) < 3 * deviation)
    np.testing.assert_allclose(names["answer"]["x"][0], mean, atol=0.1 * np.min(deviation))
    np.testing.assert_allclose(names["answer"]["stddev"][0], deviation, rtol=1e-2)


def test_own_simulator_checks_diagnoses_trains_and_refines(folder):
    # Refinement starts well enough after a fifth of the training.
    shorter = [
        ("steps_per_epoch=1000", "steps_per_epoch=200"),
        ("check_simulator(simulator)", "check_simulator(simulator, solver_steps=False)"),
    ]
    names = documentation.run_page("docs/own_simulator.md", shorter=shorter)
    assert names["report"].passed
    assert isinstance(names["diagnosis"].solver, keras_sip.InverseSolver)
    # Noise-free intensities determine the position to the rounding of float32.
    assert np.median(np.abs(names["refined"] - names["x_true"])) < 1e-5
    # The guide says 0.9: two starts of twenty end in another valley.
    assert names["solved"] >= 0.85


def test_own_solver_solves_trains_and_is_saved(folder):
    names = documentation.run_page("docs/own_solver.md", shorter=[("steps_per_epoch=300", "steps_per_epoch=50")])
    assert names["report"].passed
    # Gradient descent on a problem of condition 30: 50 steps leave a few digits.
    assert np.median(np.abs(names["result"].x - names["x_true"])) < 1e-3
    # The noise-free decay is a straight line, to the rounding of its logarithm.
    assert np.max(np.abs(names["found"].x - names["x_true"])) < 1e-5
    assert names["loaded"].solver == names["model"].solver
