"""Exported programs compute what training does, and their outputs are the inputs of the next call."""

import argparse
import contextlib
import importlib
import io
import json
import re
import shutil

import numpy as np
import pytest
from tiny_application import EXPERIMENT, LEARNING_RATE

import compare_outputs
import export_step
import keras_sip

OPTIONS = argparse.Namespace(resolution=(8, 8), batch=2, seeds=[3])


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """(folder, what was printed, {"solver" or "step": Program}) of the script."""
    folder = tmp_path_factory.mktemp("exported")
    kept = {}

    def programs(*arguments):
        kept.update(unpatched(*arguments))
        return kept

    unpatched = export_step.programs
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(io.StringIO()) as printed:
        patch.setattr(export_step, "programs", programs)
        export_step.main(f"tiny_application --seeds 3 --calls 2 --output {folder}".split())
    return folder, printed.getvalue(), kept


@pytest.fixture(scope="module")
def program(made):
    """The step that the script has written."""
    return made[2]["step"]


@pytest.fixture(scope="module")
def exported(made):
    """(folder, what was printed) of the script."""
    return made[:2]


@pytest.fixture(scope="module")
def start():
    """Values by name before the first step."""
    return values_by_name(EXPERIMENT.build_model("sip", EXPERIMENT.simulator(OPTIONS), OPTIONS, seed=3))


@pytest.fixture(scope="module")
def trained():
    """Values by name after two steps of train_on_batch, and what the second one measured."""
    model = EXPERIMENT.build_model("sip", EXPERIMENT.simulator(OPTIONS), OPTIONS, seed=3)
    for observation, x in keras_sip.dataset(model.simulator, OPTIONS.batch, seed=3).take(2):
        model.reset_metrics()
        measured = model.train_on_batch(observation, x, return_dict=True)
    return values_by_name(model) | measured


def values_by_name(model):
    variables = [*model.network.weights, *model.optimizer.variables]
    return {plain(variable.path): variable.numpy() for variable in variables}


def plain(name):
    """Keras counts its optimizers: adam/iteration, adam_1/iteration."""
    return re.sub(r"^adam(_\d+)?/", "", name)


@pytest.mark.parametrize("xla", [False, True])
def test_two_steps_change_the_weights_as_train_on_batch_does(program, start, trained, xla):
    outputs = dict(zip(map(plain, program.output_names), program.run(2, xla=xla), strict=True))
    changes = {name: trained[name] - start[name] for name in start if "/" in name}
    # Weights that nothing depends on move by rounding errors: a hundredth of a step of Adam is no change.
    for name, change in changes.items():
        allowed = 1e-5 * max(np.max(np.abs(change)), 1e-2 * LEARNING_RATE)
        np.testing.assert_allclose(outputs.get(name, start[name]) - start[name], change, rtol=0, atol=allowed)
    for name in ("loss", "x_error"):
        assert outputs[name] == pytest.approx(trained[name], rel=1e-6)


def test_fed_back_the_outputs_of_one_call_are_the_inputs_of_the_next(program):
    inputs = list(program.inputs)
    for source, target in program.feed:
        assert program.output_names[source] == program.input_names[target]
        inputs[target] = program.run(1)[source]
    for went_on, ran in zip(program(inputs), program.run(2), strict=True):
        np.testing.assert_allclose(went_on, ran, rtol=1e-12, atol=1e-12)


def test_all_state_goes_in_and_comes_out(program, start, trained):
    fed = {plain(program.output_names[source]) for source, _ in program.feed}
    changed = {name for name in start if not np.array_equal(start[name], trained[name])}
    assert {"iteration", "stem_conv_1/kernel", "stem_conv_1_kernel_velocity", "stem_norm_1/moving_mean"} <= changed
    assert changed <= fed
    assert set(program.output_names[: program.num_results]) - fed == {"loss", "x_error"}


def test_a_call_depends_on_its_inputs_alone(program):
    first = program(program.inputs)
    program.run(2)
    for again, before in zip(program(program.inputs), first, strict=True):
        np.testing.assert_array_equal(again, before)


def test_the_files_hold_the_program_its_inputs_and_what_it_should_give(program, exported):
    folder = exported[0] / "sip_step"
    assert len((folder / "program.hlo").read_bytes()) > 10_000
    with np.load(folder / "args.npz") as stored:
        for name, value in zip(stored.files, program.inputs, strict=True):
            np.testing.assert_array_equal(stored[name], value)
    with np.load(folder / "expected.npz") as stored:
        for name, value in zip(stored.files, program.run(2), strict=True):
            np.testing.assert_allclose(stored[name], value, rtol=1e-6, atol=1e-9)
    description = json.loads((folder / "program.json").read_text())
    assert description["outputs"][:3] == ["step", "loss", "x_error"]
    # Two ways of computing in float64 what is then averaged in float32.
    assert max(description["rounding"][:3]) < 1e-6


def test_for_each_program_the_line_that_runs_it_is_printed(program, exported):
    folder, printed = exported
    solver, step = (line.split() for line in printed.splitlines() if "program.hlo" in line)
    for words, name in ((solver, "sip_solver"), (step, "sip_step")):
        paths = [str(folder / name / file) for file in ("program.hlo", "args.npz", "out.npz")]
        assert words[:6] == [*paths[:2], "--repeat", "2", "--out", paths[2]]
    feed = ",".join(f"{source}:{target}" for source, target in program.feed)
    assert solver[6:] == []
    assert step[6:] == ["--feed", feed, "--log", "2", "--every", "1"]


def test_comparison_accepts_what_agrees_and_names_what_does_not(exported, capsys):
    folder = exported[0] / "sip_step"
    shutil.copy(folder / "expected.npz", folder / "out.npz")
    assert compare_outputs.main([str(folder)]) == 0
    with np.load(folder / "expected.npz") as expected:
        outputs = list(expected.values())
    outputs[2] = outputs[2] * 1.01
    np.savez(folder / "out.npz", *outputs)
    capsys.readouterr()
    assert compare_outputs.main([str(folder)]) == 1
    deviating = [line.split() for line in capsys.readouterr().out.splitlines() if "DEVIATES" in line]
    assert [words[:2] for words in deviating] == [["x_error", "1.0e-02"]]


def test_solvers_with_loops_give_the_same_under_xla():
    poisson = importlib.import_module("poisson").EXPERIMENT
    options = argparse.Namespace(resolution=(8, 8), batch=2, seeds=[0], cg_steps=3)
    model = poisson.build_model("gauss_newton", poisson.simulator(options), options, seed=0)
    solver = export_step.solver(model, batch_size=2, seed=0)
    assert solver.input_names == ["x0", "y_target"]
    assert solver.output_names == ["update", "status", "num_steps"]
    for by_xla, by_kernels in zip(solver.run(1, xla=True), solver.run(1), strict=True):
        # Rounding errors of float32, after three steps of conjugate gradients.
        np.testing.assert_allclose(by_xla, by_kernels, rtol=1e-4, atol=1e-4 * np.max(np.abs(by_kernels)))


def test_unknown_applications_are_refused(capsys):
    with pytest.raises(SystemExit):
        export_step.main(["no_such_application"])
    assert "No module named 'no_such_application'" in capsys.readouterr().err
