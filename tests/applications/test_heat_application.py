"""The heat experiment and its two studies, as small as they go."""

import contextlib
import io

import numpy as np
import pytest

import heat
from experiments.options import parse_options
from keras_sip.comparison.records import Metrics
from studies import heat_hyperparameters


def run(*words):
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        code = heat.run([str(word) for word in words])
    return code, printed.getvalue()


def test_variants_are_built_with_what_they_name():
    simulator = heat.EXPERIMENT.simulator(type("Options", (), {"resolution": [16, 16]}))
    assert simulator.dtype == "float64"
    options = type("Options", (), {"cg_steps": 20, "steps": 1})
    expected = {
        **dict.fromkeys(("sip", "sip_muon"), "DampedSpectralInverse"),
        **dict.fromkeys(("sip_wiener", "sip_wiener_muon"), "WienerInverse"),
        "gauss_newton": "GaussNewton",
        "sip_generic": "MaximumAPosteriori",
    }
    solvers = {name: variant.solver(options) for name, variant in heat.VARIANTS.items() if variant.solver}
    assert {name: type(solver).__name__ for name, solver in solvers.items()} == expected
    assert solvers["gauss_newton"].cg_steps == 20
    assert heat.VARIANTS["fno"].network(simulator, 0).name == "fno"


def recorded_run(trained):
    """Stands in for the training: notes what it was asked for, and writes errors that tell the runs apart."""

    def train(experiment, argv):
        options = parse_options(experiment, argv)
        trained[options.batch] = experiment
        options.output.mkdir(parents=True)
        metrics = Metrics(options.output / "metrics.csv")
        for number, method in enumerate(options.methods):
            for step in (0, options.steps):
                metrics.append(method, 0, step, x_error=options.batch + 0.1 * number)
        return 0

    return train


def test_hyperparameter_study_trains_every_rate_with_every_batch(tmp_path, monkeypatch):
    trained = {}
    monkeypatch.setattr(heat_hyperparameters, "run", recorded_run(trained))
    words = ["--study", "hyperparameters", "--rates", 1e-2, 2e-4, "--batches", 2, 3, "--steps", 5]
    code, printed = run(*words, "--output", tmp_path)
    assert code == 0
    assert set(trained) == {2, 3}
    variants = trained[2].variants
    rates = {name: float(variant.optimizer(None).learning_rate) for name, variant in variants.items()}
    assert rates == pytest.approx({"sip_1e-2": 1e-2, "sip_2e-4": 2e-4, "adam_1e-2": 1e-2, "adam_2e-4": 2e-4})
    assert [variants[name].method for name in variants] == ["sip", "sip", "adjoint", "adjoint"]
    table = (tmp_path / "table.txt").read_text()
    assert table in printed
    rows = {line[:16].strip(): line[16:].split() for line in table.splitlines()}
    assert [rows[name.replace("_", " ")] for name in variants] == [
        ["2.0000", "3.0000"],
        ["2.1000", "3.1000"],
        ["2.2000", "3.2000"],
        ["2.3000", "3.3000"],
    ]
    assert (tmp_path / "hyperparameters.png").stat().st_size > 0


@pytest.mark.usefixtures("eagerly")
def test_solver_study_starts_from_zero_and_lowers_the_error_in_y(tmp_path):
    words = ["--study", "solvers", "--steps", 3, "--inverses", 2, "--problems", 2, "--resolution", 8]
    code, printed = run(*words, "--output", tmp_path)
    assert code == 0
    assert (tmp_path / "table.txt").read_text() in printed
    rows = [line.split(",") for line in (tmp_path / "solvers.csv").read_text().splitlines()[1:]]
    y_errors = {}
    for solver, _, iteration, _, y_error in rows:
        y_errors.setdefault(solver, {}).setdefault(int(iteration), []).append(float(y_error))
    assert set(y_errors) == {"gradient_descent", "lbfgs", "gauss_newton", "damped", "wiener"}
    for by_iteration in y_errors.values():
        assert by_iteration[0] == [1.0, 1.0]
        assert np.all(np.array(by_iteration[max(by_iteration)]) < 0.2)
    assert max(y_errors["lbfgs"]) == 3 and max(y_errors["damped"]) == 2
    assert (tmp_path / "solvers.png").exists() and (tmp_path / "solutions.png").exists()


@pytest.mark.parametrize(
    "words",
    [
        ("--study", "unknown"),
        ("--methods", "kfac"),
        ("--study", "solvers", "--noise", "-1"),
        ("--study", "hyperparameters", "--rates", "0"),
    ],
)
def test_wrong_words_are_refused_with_what_is_allowed(words, capsys):
    with pytest.raises(SystemExit) as caught:
        heat.run(list(words))
    assert caught.value.code == 2
    said = capsys.readouterr().err
    assert any(allowed in said for allowed in ("'hyperparameters'", "sip_generic, adam", "at least 0", "above 0"))
