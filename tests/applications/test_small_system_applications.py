"""Applications to Darcy flow, ODE parameters and wave packets, as small as they go: from the command line to tables."""

import contextlib
import io

import keras
import numpy as np
import pytest

import darcy_flow
import keras_sip
import ode_parameters
import wave_packet
from experiments import networks, results, runner
from experiments.options import degraded, parse_options
from experiments.refined import Refinement
from studies import initial_guess


def rows(text):
    """{label: numbers} of refined.txt."""
    lines = [text_line for text_line in text.splitlines() if text_line[20:].split()]
    return {each[:20].strip(): each[20:].split() for each in lines}


def test_refined_answers_of_a_linear_gaussian_problem_are_covered_as_often_as_said():
    simulator = keras_sip.Degraded(keras_sip.Heat(12, diffusion=0.05), noise=0.05)
    solver = keras_sip.MaximumAPosteriori()
    observation, x_true = keras_sip.evaluation_set(simulator, 96, 3)
    mean = np.broadcast_to(solver.prior_of(simulator).mean, x_true.shape)
    measured, (x, y, stddev) = Refinement(simulator, solver, 2).measured(observation, mean, x_true)
    assert measured["refined"] < measured["network"] and measured["worse"] == 0
    assert x.shape == stddev.shape == (3, 12, 1) and np.all(np.abs(simulator.forward(x) - y) < 1e-12)
    # Boxes, not Gaussian fields: near 90 %, not at it.
    assert 0.8 < measured["within 90 %"] < 1.0


def test_darcy_flow_is_observed_where_the_options_say():
    options = parse_options(darcy_flow.EXPERIMENT, ["--observed", "0.25", "--noise", "0.05", "--resolution", "8"])
    simulator = degraded(darcy_flow.EXPERIMENT.simulator(options), options)
    sample = simulator.sample(2, (0, 1))
    assert np.all(np.sum(sample["context"]["sensor_mask"], axis=(1, 2, 3)) == 16)
    assert simulator.physical.medium == "smooth" and simulator.levels["noise"] == (0.05, 0.05)


def test_two_phase_media_have_two_values():
    options = parse_options(darcy_flow.EXPERIMENT, ["--data", "two_phase", "--resolution", "8"])
    x = darcy_flow.EXPERIMENT.simulator(options).sample(4, (0, 1))["x"].numpy()
    np.testing.assert_allclose(np.unique(x), np.log([3.0, 12.0]), rtol=1e-6)


def test_networks_see_each_datum_with_mean_0_and_deviation_1():
    simulator = keras_sip.LotkaVolterra()
    inputs = keras.Input(simulator.y_shape)
    seen = networks.of_standardised_input(keras.Model(inputs, inputs), simulator)
    x = np.asarray(seen(simulator.sample(256, (1, 0))["y"]))
    # 256 other samples of heavy tails: four standard errors of a mean are 0.25.
    assert np.max(np.abs(x.mean(axis=0))) < 0.35 and 0.6 < np.min(x.std(axis=0)) < np.max(x.std(axis=0)) < 1.6


@pytest.mark.parametrize("coordinates", ["log", "linear"])
def test_networks_of_rates_start_from_the_typical_ones(coordinates):
    options = parse_options(ode_parameters.EXPERIMENT, ["--coordinates", coordinates])
    simulator = ode_parameters.EXPERIMENT.simulator(options)
    model = ode_parameters.EXPERIMENT.build_model("supervised", simulator, options, 0)
    sample = simulator.sample(8, (0, 1))
    x = np.asarray(model(sample["y"]))
    physical = simulator.to_physical(x).numpy() if coordinates == "log" else x
    typical = np.array(keras_sip.LotkaVolterra.typical)
    # Small random weights: within some tens of per cent, and positive.
    assert np.all(np.abs(physical / typical - 1) < 0.6)
    expected = (
        np.mean(np.abs(simulator.to_physical(sample["x"]) - physical) / typical) if coordinates == "log" else None
    )
    if expected is not None:
        assert np.mean(simulator.distance(x, sample["x"])) == pytest.approx(expected, rel=1e-4)


def test_the_study_of_initial_guesses_tells_good_starts_from_bad_ones(tmp_path, monkeypatch):
    # What the runner makes of every experiment has tests of its own.
    monkeypatch.setattr(results, "_export", lambda *_: 0.0)
    monkeypatch.setattr(runner, "TensorBoard", lambda *_, **__: keras.callbacks.Callback())
    study = initial_guess.study({"Levenberg-Marquardt": keras_sip.LevenbergMarquardt()})
    words = ["--methods", "supervised", "--steps", 4, "--batch", 8, "--noise", 0.02, "--guesses", 16, "--refine", 4]
    words += ["--iterations", 6, "--output", tmp_path, "--quiet"]
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        code = study(wave_packet.EXPERIMENT, [str(word) for word in words])
    assert code == 0
    text, refined = ((tmp_path / name).read_text() for name in ("initial_guess.txt", "refined.txt"))
    assert text in printed.getvalue() and refined in printed.getvalue()
    assert all((tmp_path / name).stat().st_size > 0 for name in ("initial_guess.png", "answers_supervised.png"))
    found = {each[:20].strip(): int(each.split()[-1][:-1]) for each in text.splitlines() if each.endswith("%")}
    assert set(found) == {"truth + 10 %", "another x", "mean", "Supervised"}
    assert found["truth + 10 %"] > found["another x"]
    mean = [float(number) for number in rows(refined)["prior's mean"]]
    # Where the mean is near enough refining finds the packet; where it is not the objective does not rise.
    assert mean[1] < mean[0] and mean[2] == 0
