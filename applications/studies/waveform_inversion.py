"""L-BFGS inversions of acoustic records, without and with frequency continuation, beside networks: PSNR and SSIM."""

import argparse
import dataclasses
import time
from collections.abc import Mapping, Sequence

import keras
import numpy as np
import tensorflow as tf

import keras_sip
from experiments import figures
from experiments.experiment import Experiment
from experiments.options import parse_options
from experiments.run import Run
from experiments.runner import writing_to
from keras_sip import plotting
from keras_sip.comparison.comparison import EVALUATION_SEED
from keras_sip.comparison.tables import line
from keras_sip.errors import check_positive_int
from keras_sip.files import write_atomically

# Widths of the low-pass, in periods of the wavelet's peak; 0 is the records as they are.
SCHEDULE = (1.0, 0.5, 0.25, 0.0)
SSIM_WINDOW = 7


def add_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--inversion", type=int, default=20, help="steps of each L-BFGS inversion; 0 leaves them out (default: 20)")
    add("--shown", type=int, default=2, help="examples to invert, of the evaluation set (default: %(default)s)")


def main(experiment: Experiment, argv: Sequence[str] | None = None) -> int:
    """The study: inversions alone, without networks, at any size; returns the exit code."""
    named = dataclasses.replace(experiment, name=f"{experiment.name}_inversion", description=__doc__)
    options = parse_options(named, argv, f"{experiment.name}.py --study inversion")
    with writing_to(options.output) as ended:
        simulator = experiment.simulator(options)
        sample = simulator.sample(check_positive_int("--shown", options.shown), (0, EVALUATION_SEED))
        compare(simulator, {}, sample["y"], sample["x"], options, experiment.heading(options))
    return ended.code


def write(run: Run, models: Mapping[str, keras.Model]) -> None:
    """inversion.txt and inversion.png: the `further_results` of the experiment."""
    if run.options.inversion:
        y, x_true = run.shown_examples(check_positive_int("--shown", run.options.shown))
        answers = {run.labels[method]: model(y, training=False).numpy() for method, model in models.items()}
        compare(run.simulator, answers, y, x_true, run.options, run.heading)


def compare(simulator, answers, y, x_true, options, heading) -> None:
    """Inversions of y beside answers `{label: x}`, as table and picture in the output folder."""
    steps = check_positive_int("--inversion", options.inversion)
    x0, cost = tf.zeros_like(x_true), {}
    for label, widths in (("L-BFGS", [0.0]), ("L-BFGS, continuation", low_pass_widths(simulator))):
        begin = time.process_time()
        answers[label] = inverted(simulator, y, x0, widths, steps).numpy()
        cost[label] = time.process_time() - begin
    text = f"{heading}\n{table(simulator, answers, x_true.numpy(), steps)}"
    text += "".join(
        f"{label}: {seconds:.0f} s of processor time, compiling included\n" for label, seconds in cost.items()
    )
    write_atomically(options.output / "inversion.txt", text.encode())
    print(f"\n{text}")
    if figures.available():
        # The surface on top.
        shown = {label: np.flip(x, axis=2) for label, x in {**answers, "true": x_true.numpy()}.items()}
        figures.save(plotting.field_panels([("x", shown, plotting.FIELD_MAP)]), options.output / "inversion.png")


def low_pass_widths(simulator: keras_sip.AcousticSurvey) -> list[float]:
    """`SCHEDULE` in recorded samples."""
    period = 1 / (simulator.frequency * simulator.dt * simulator.steps_between)
    return [share * period for share in SCHEDULE]


def inverted(
    simulator: keras_sip.Simulator,
    y_target: tf.Tensor,
    x0: tf.Tensor,
    widths: Sequence[float],
    steps: int,
    solver: keras_sip.InverseSolver | None = None,
) -> tf.Tensor:
    """x after `steps` steps of L-BFGS in all, shared evenly by records low-passed with one width after the other."""
    solver = keras_sip.LBFGS() if solver is None else solver
    smooth = keras_sip.LowPassed(simulator)

    @tf.function(reduce_retracing=True, autograph=False)
    def refined(x, context, steps):
        return solver.refine(smooth, x, smooth.filtered(y_target, context), context, steps=steps).x

    x = x0
    for number, width in enumerate(widths):
        share = steps * (number + 1) // len(widths) - steps * number // len(widths)
        context = {"low_pass": tf.fill([len(x0)], tf.constant(width, simulator.dtype))}
        x = refined(x, context, tf.constant(share)) if share else x
    return x


def quality(x: np.ndarray, x_true: np.ndarray, background: float) -> dict[str, float]:
    """Means over examples of the PSNR in dB and the SSIM of the speeds; the range of the true ones is the peak."""
    speed, true = (background * np.exp(np.asarray(values, np.float64)) for values in (x, x_true))
    low, peak = true.min(), np.ptp(true)
    first, second = (tf.constant((values - low) / peak, tf.float32) for values in (speed, true))
    window = min(SSIM_WINDOW, *x.shape[1:3])
    return {
        "x error": float(np.mean(np.abs(x - x_true))),
        "PSNR": float(tf.reduce_mean(tf.image.psnr(first, second, 1.0))),
        "SSIM": float(tf.reduce_mean(tf.image.ssim(first, second, 1.0, filter_size=window))),
    }


def table(
    simulator: keras_sip.AcousticSurvey, answers: Mapping[str, np.ndarray], x_true: np.ndarray, steps: int
) -> str:
    rows = {"background": np.zeros_like(x_true), **answers}
    measured = {label: quality(x, x_true, simulator.background) for label, x in rows.items()}
    lines = [
        f"{len(x_true)} examples, {steps} L-BFGS steps in all; PSNR [dB] and SSIM of the speed of sound",
        "",
        line("", ("x error", "PSNR", "SSIM"), label_width=24),
    ]
    for label, row in measured.items():
        cells = (f"{row['x error']:.4f}", f"{row['PSNR']:.2f}", f"{row['SSIM']:.3f}")
        lines.append(line(label, cells, label_width=24))
    return "\n".join(lines) + "\n"
