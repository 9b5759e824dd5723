"""Trajectories, exponential and sine as scripts: small runs, and the settings of the paper."""

import csv

import numpy as np
import pytest

import exponential
import sine
import trajectories
from ensembles import exponential_figure, sine_figure, sine_panels
from ensembles.sweep import Curves
from experiments import figures, runner
from keras_sip import plotting
from studies import sine_options, sine_two_stage


@pytest.fixture
def no_matplotlib(monkeypatch):
    monkeypatch.setattr(figures, "available", lambda: False)


# Trajectories (Fig. 1) ------------------------------------------------------------------------------------------------


def rows(path):
    with path.open() as file:
        return list(csv.DictReader(file))


def points(written, minimiser, kind):
    return np.array(
        [
            [float(row["x1"]), float(row["x2"])]
            for row in written
            if (row["minimiser"], row["kind"]) == (minimiser, kind)
        ]
    )


def test_trajectories_are_the_closed_forms_of_the_paper(tmp_path):
    assert trajectories.main(["--figure", "--output", str(tmp_path)]) == 0
    written = rows(tmp_path / "trajectories.csv")
    # Newton's step on x1^2 is to 0, on x2^4 a third of the way; half of each is taken.
    count = np.arange(11)
    newton = points(written, "Newton's method", "coarse")
    np.testing.assert_allclose(newton, np.stack([3 * 0.5**count, 3 * (5 / 6) ** count], axis=1), rtol=1e-9)
    # In y space the inversion goes straight, half of the way in each step.
    inversion = points(written, "physics inversion", "coarse")
    np.testing.assert_allclose(inversion, np.stack([3 * 0.5**count, np.sqrt(9 * 0.5**count)], axis=1), rtol=1e-9)
    # Gradient descent on |y|^2 = x1^2 + x2^4 with the rate 0.5 / 36.
    x = np.array([3.0, 3.0])
    for descended in points(written, "gradient descent", "coarse")[1:]:
        x = x - 0.5 / 36 * np.array([2 * x[0], 4 * x[1] ** 3])
        np.testing.assert_allclose(descended, x, rtol=1e-9)
    assert len(points(written, "gradient descent", "fine")) == 1001
    assert (tmp_path / "trajectories.png").stat().st_size > 10_000


# Settings -------------------------------------------------------------------------------------------------------------


def test_networks_and_rates_are_those_of_the_paper():
    options = runner.parse_options(sine.EXPERIMENT, ["--xi", "32", "--phi", "45"])
    simulator = sine.EXPERIMENT.simulator(options)
    assert (simulator.xi, simulator.phi, simulator.map, simulator.gamma) == (32.0, 45.0, "paper", 1.0)
    model = sine.EXPERIMENT.build_model("sgd", simulator, options, seed=0)
    assert model.network.count_params() == 4354
    assert float(model.optimizer.learning_rate) == pytest.approx(1e-2 / 32**2)
    assert exponential.network(None, 0).count_params() == 2177
    clipped = exponential.VARIANTS["newton_clipped"].solver(None)
    # At x = -1 for y* = e^-5: g / h = (e^-1 - e^-5) / (2 e^-1 - e^-5), longer than 0.1.
    update = clipped.solve(
        exponential.EXPERIMENT.simulator(_log_input(False)), [[-1.0]], np.exp([[-5.0]], dtype="float32")
    ).update
    np.testing.assert_allclose(update, [[-0.1]], rtol=1e-5)


class _log_input:
    def __init__(self, log_input):
        self.log_input = log_input


# Small runs -----------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("eagerly")
def test_sine_figure_searches_trains_and_draws_and_is_done_the_second_time(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sine_figure, "METHODS", ("adam", "sgd"))
    monkeypatch.setattr(sine_figure, "XIS", (1, 32))
    monkeypatch.setattr(sine_figure, "PHIS", (0, 45))
    monkeypatch.setattr(sine_figure, "FACTORS", (1.0, 10.0))
    monkeypatch.setattr(sine_figure, "TIMED_STEPS", 2)
    monkeypatch.setattr(sine_panels, "WINDOW", 5)
    command = [
        "--figure",
        "--steps",
        "20",
        "--search-steps",
        "10",
        "--seeds",
        "0",
        "1",
        "--output",
        str(tmp_path / "run"),
        "--quiet",
    ]
    assert sine.run(command) == 0
    table = (tmp_path / "run" / "table.txt").read_text()
    assert "Adam" in table and "SGD" in table
    assert (tmp_path / "run" / "rates.txt").read_text().count("chosen") == 2
    assert (tmp_path / "run" / "sine_paper.png").stat().st_size > 10_000
    with pytest.raises(SystemExit):
        sine.run(command)
    assert "which holds files" in capsys.readouterr().err
    monkeypatch.setattr(sine_figure, "build", None)
    assert sine.run([*command, "--resume"]) == 0
    assert (tmp_path / "run" / "table.txt").read_text() == table


def test_rate_with_the_smallest_error_over_both_systems_is_chosen():
    assert sine_figure.best({1e-3: [0.1, 1.0], 1e-2: [0.3, 0.1], 1e-1: [float("inf"), 0.01]}) == 1e-2
    assert sine_figure.rate_rule("sgd", 1.0)(4.0) == 1 / 16
    assert sine_figure.rate_rule("adam", 1.0)(4.0) == 1.0


@pytest.mark.usefixtures("eagerly")
def test_options_study_writes_windows_of_each_variant(no_matplotlib, tmp_path):
    command = ["--study", "options", "--variants", "adam", "sip_adjoint", "--schedules", "decay"]
    words = ["--steps", "12", "--seeds", "0", "1", "--output", str(tmp_path / "run"), "--quiet"]
    assert sine.run([*command, *words]) == 0
    lines = (tmp_path / "run" / "options.txt").read_text().splitlines()
    assert any(line.startswith("Adam, decay") and line.count("/") == 1 for line in lines)
    assert any(line.startswith("SIP + 3 adjoints, decay") for line in lines)
    # The norms of the mix are over a batch of one network.
    assert {path.stem for path in (tmp_path / "run" / "curves").iterdir()} == {
        "adam_decay", "sip_adjoint_decay_0", "sip_adjoint_decay_1"
    }  # fmt: skip


@pytest.mark.usefixtures("eagerly")
def test_labels_from_random_starts_lie_on_many_branches(tmp_path):
    options = sine_two_stage.parse_options(["--output", str(tmp_path)])
    simulator = sine.keras_sip.RotatedSine(xi=options.xi, phi=options.phi)
    y = simulator.sample(400, (0, 0))["y"]
    solver = sine.saddle_free_newton(options)
    spread = {}
    for start in ("random", "zero"):
        x, weight = sine_two_stage.label(simulator, solver, y, start)
        solved = np.linalg.norm(simulator(x) - y, axis=1) < 1e-3
        # A few starts end at a stationary point that solves nothing.
        assert np.mean(solved) > 0.8
        spread[start] = np.std(sine_two_stage.phase(simulator, x)[solved])
    assert spread["random"] > 2 * spread["zero"]


@pytest.mark.usefixtures("eagerly")
def test_exponential_figure_trains_and_draws(tmp_path, monkeypatch):
    panels = {"one": (("rescaled", False),), "two": (("sip_relu", True),)}
    monkeypatch.setattr(exponential_figure, "PANELS", panels)
    monkeypatch.setattr(exponential_figure, "LAYOUT", (1, 2))
    command = ["--figure", "--steps", "6", "--seeds", "0", "1", "--output", str(tmp_path / "run"), "--quiet"]
    assert exponential.run(command) == 0
    table = (tmp_path / "run" / "table.txt").read_text()
    assert "Rescaled" in table and "SIP, ReLU, log y" in table
    assert (tmp_path / "run" / "exponential.png").stat().st_size > 10_000


def test_curves_of_a_diverged_member_leave_a_gap_and_not_a_wrong_line():
    errors = np.ones((512, 2), "float32")
    errors[300:, 1] = np.nan
    members = [{"seed": 0, "rate": 1.0, "xi": 1.0, "phi": 45.0}, {"seed": 1, "rate": 1.0, "xi": 1.0, "phi": 45.0}]
    with plotting.figure(width=2, height=2) as figure:
        axes = figure.subplots()
        sine_panels.time_curve(axes, Curves(members, errors, errors, 0.1, 0.0), 1.0, 1, "SIP", "blue")
    drawn = axes.lines[0].get_ydata()
    assert drawn[0] == 1.0 and np.isnan(drawn[1])


def test_shared_runner_takes_the_sine(no_matplotlib, tmp_path):
    words = ["--methods", "sip", "--steps", "60", "--quiet", "--output", str(tmp_path / "run")]
    assert sine.run(words) == 0
    assert (tmp_path / "run" / "saved_models" / "sip" / "saved_model.pb").exists()
    assert sine_options.TABLE_STEPS[-1] == 100_000
