"""What the fluid's application measures and draws beside the runner's own."""

import contextlib
import io

import numpy as np
import pytest
import tensorflow as tf

import keras_sip
import navier_stokes
from eager import eagerly
from studies import fluid_reverse
from studies.fluid_pictures import flow_animation, flow_figure, vorticity

SIMULATOR = keras_sip.NavierStokes((16, 16), spacing=8.0, num_steps=1, dt=2.0)


@pytest.fixture(scope="module")
def sample():
    return SIMULATOR.sample(2, (0, 0))


def test_error_parts_each_see_their_own_part(sample):
    """A shift of the uniform velocity by (3, 4) and of the strength by 0.5."""
    x_true = sample["x"]
    swirl = SIMULATOR.swirl.velocity(tf.fill([2, 1], 0.5), sample["context"])
    swirl -= SIMULATOR.swirl.uniform(sample["context"])[:, None, None, :]
    x = x_true + swirl + tf.constant([3.0, 4.0])
    parts = navier_stokes.EXPERIMENT.error_parts
    assert list(parts) == ["uniform_error", "swirl_error", "small_scale_error"]
    expected = {"uniform_error": 5.0, "swirl_error": 0.5, "small_scale_error": 0.0}
    for name, part in parts.items():
        # float32 differences of velocities near 30.
        np.testing.assert_allclose(part(SIMULATOR, x, x_true), [expected[name]] * 2, rtol=0, atol=1e-4, err_msg=name)


def test_vorticity_of_a_shear_flow():
    """u = sin(y): the curl is -cos(y); central differences give it times sin(h) / h."""
    y = 2 * np.pi * np.arange(16) / 16
    velocity = np.zeros((1, 16, 16, 2))
    velocity[..., 0] = np.sin(y)
    expected = np.broadcast_to(-np.sin(2 * np.pi / 16) * np.cos(y), (1, 16, 16))
    np.testing.assert_allclose(vorticity(velocity)[..., 0], expected, rtol=0, atol=1e-14)


def test_pictures_are_drawn(sample, tmp_path):
    pytest.importorskip("matplotlib")
    image = pytest.importorskip("PIL.Image")
    observation = {"y": sample["y"], "context": sample["context"]}
    predictions = {"one": 0.5 * sample["x"].numpy()}
    figure = flow_figure(SIMULATOR, observation, sample["x"], predictions)
    titles = [axes.get_title() for axes in figure.axes[:5]]
    assert titles[1:] == ["truth\nvelocity", "one\nvelocity", "truth\nvorticity", "one\nvorticity"]
    context = {"marker": sample["context"]["marker"][:1]}
    path = tmp_path / "flow.gif"
    flow_animation(SIMULATOR, context, {"truth": sample["x"][:1], "one": predictions["one"][:1]}, path)
    assert image.open(path).n_frames == SIMULATOR.num_steps + 1


def numbers(table, label):
    """Those of the first line with this label."""
    line = next(line for line in table.splitlines() if line.strip().startswith(label))
    return [float(word.rstrip("%")) for word in line.split()[len(label.split()) :]]


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """(printed, {table: its text}) of one study, with half as many cells and steps as in the paper."""
    path = tmp_path_factory.mktemp("reverse")
    words = "--study reverse --resolution 32 --steps 4 --examples 32 --chain-examples 2 --time-steps 4 8 --seeds 1"
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(io.StringIO()) as printed, eagerly():
        # Those of the study take long to compile.
        patch.setattr(fluid_reverse, "BEHIND", {"  then one": keras_sip.GradientDescent(step_size=1e-6)})
        assert navier_stokes.run([*words.split(), "--output", str(path)]) == 0
    heading, *tables = (path / "reverse.txt").read_text().strip().split("\n\n")
    return printed.getvalue(), heading, dict(zip(("strength", "retraced", "chain"), tables, strict=True))


def test_reverse_study_writes_three_tables(study):
    printed, heading, tables = study
    assert heading in printed and all(table in printed for table in tables.values())
    assert max(map(len, printed.splitlines())) <= 80
    for table, label in (
        ("strength", "gain 0.001 (paper)"),
        ("strength", "own gain, 3 calls"),
        ("strength", "truth (bias)"),
        ("retraced", "4 "),
        ("chain", "then one"),
    ):
        assert np.all(np.isfinite(numbers(tables[table], label))), label


def test_reverse_study_separates_the_parts_of_the_error(study):
    """The bounds are those of the solver's own tests."""
    table = study[2]["strength"]
    uniform, swirl, small, removed = numbers(table, "gain 0.001 (paper)")
    assert uniform < 1e-3
    # Noise of size 0.1 in each of two components that the family of swirls does not have.
    assert small == pytest.approx(0.1 * np.sqrt(np.pi / 2), rel=0.1)
    assert removed == pytest.approx(20, abs=6)
    best = next(line for line in table.splitlines() if line.rstrip().endswith("%") and "(best)" in line)
    assert float(best.split()[-3]) <= swirl
    own, twice = (numbers(table, label) for label in ("own gain", "own gain, 2 calls"))
    assert own[3] > 60 and twice[1] < own[1]
    # From the exact strength, the last row, a call errs by what small scales turn the marker: 0.02 at 64 x 64.
    bias = table.splitlines()[-1].split()
    assert 0.001 < float(bias[-2]) < own[1]
    # Normal errors of deviation 0.3: their mean size is 0.3 sqrt(2 / pi) = 0.24, +- 0.03 over 32 examples.
    assert numbers(table, "strength off by 0.3")[1] == pytest.approx(0.24, abs=0.06)


def test_shorter_time_steps_retrace_the_flow_better(study):
    coarse, fine = (numbers(study[2]["retraced"], label) for label in ("4 ", "8 "))
    assert fine[0] < coarse[0] and fine[1] < coarse[1]
    # Twice as many steps in the same time.
    assert coarse[2] == pytest.approx(2 * fine[2], rel=0.02)


@pytest.mark.parametrize(
    "words",
    [("--study", "unknown"), ("--study", "reverse", "--spread", "0"), ("--study", "reverse", "--time-steps", "0")],
)
def test_wrong_words_are_refused_with_what_is_allowed(words, capsys):
    with pytest.raises(SystemExit) as caught:
        navier_stokes.run(list(words))
    assert caught.value.code == 2
    said = capsys.readouterr().err
    assert any(allowed in said for allowed in ("'reverse'", "above 0", "at least 1"))
