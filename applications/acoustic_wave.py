"""Full-waveform inversion: find the speed of sound, as x = log(c / background), of what receivers record of pulses.

Trains a network with each method, side by side, on a line of 64 cells, or with --dimensions 2 on a section below a line
of shots and receivers:

  python applications/acoustic_wave.py --methods sip_generic adjoint supervised
  python applications/acoustic_wave.py --dimensions 2 --methods supervised --inversion 40 --shown 4
  python applications/acoustic_wave.py --study inversion --resolution 64 --time-steps 400 --receivers 60 --shots 5

In two dimensions inversion.txt compares the networks with L-BFGS inversions of the same records, without and with
frequency continuation (records low-passed less and less), by PSNR and SSIM of the speed; inversion.png shows them.

Writes metrics.csv, table.txt, learning_curves.png, in one dimension refined.txt and answers_METHOD.png (the answers
refined by the generic solver, with error bars), event files for `tensorboard --logdir FOLDER` and the trained models
(saved_models/). An interrupted run goes on with the same command and --resume.
"""

import argparse
import sys
from collections.abc import Sequence

from experiments.startup import keras_sip

import keras

from experiments.baselines import gauss_newton, without_inverse
from experiments.experiment import Experiment
from experiments.refined import add_refine_option, refining
from experiments.runner import main_or_study
from keras_sip import MaximumAPosteriori
from keras_sip.comparison.networks import flat_mlp
from studies import waveform_inversion


def plane_network(simulator, seed):
    """The records, an image of receivers and times for each shot, stretched over the section; then a U-Net."""
    inputs = keras.Input(simulator.y_shape)
    image = keras.layers.Permute((2, 1, 3))(inputs)
    image = keras.layers.Resizing(*simulator.resolution, interpolation="bilinear")(image)
    levels = next(n for n in (4, 3, 2, 1) if all(size % 2 ** (n - 1) == 0 for size in simulator.resolution))
    unet = keras_sip.UNet((*simulator.resolution, simulator.y_shape[-1]), 1, levels=levels, seed=seed)
    return keras.Model(inputs, unet(image), name="records_unet")


def line(options):
    return keras_sip.AcousticWave(options.resolution[0], num_steps=options.time_steps, receivers=options.receivers)


def plane(options):
    return keras_sip.AcousticSurvey(
        tuple(options.resolution), num_steps=options.time_steps, receivers=options.receivers, shots=options.shots
    )


def add_line_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--dimensions", type=int, choices=(1, 2), default=1, help="of the medium (default: %(default)s)")
    add("--time-steps", type=int, default=200, help="of a simulation (default: %(default)s)")
    add("--receivers", type=int, default=8, help="default: %(default)s")
    add("--cg-steps", type=int, default=5, help="conjugate-gradient steps of gauss_newton (default: %(default)s)")
    add_refine_option(parser)


def add_plane_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--dimensions", type=int, choices=(1, 2), default=2, help="of the medium (default: %(default)s)")
    add("--time-steps", type=int, default=120, help="of a simulation (default: %(default)s)")
    add("--receivers", type=int, default=16, help="default: %(default)s")
    add("--shots", type=int, default=3, help="default: %(default)s")
    add("--cg-steps", type=int, default=5, help="conjugate-gradient steps of gauss_newton (default: %(default)s)")
    waveform_inversion.add_options(parser)


VARIANTS = {**without_inverse(through="all time steps"), "gauss_newton": gauss_newton()}

EXPERIMENT = Experiment(
    name="acoustic_wave",
    title="Acoustic wave",
    description=__doc__,
    simulator=line,
    network=lambda simulator, seed: flat_mlp(simulator.y_shape, simulator.x_shape, hidden=(128, 128, 128), seed=seed),
    variants=VARIANTS,
    default_methods=("sip_generic", "adjoint", "supervised"),
    reference="adjoint",
    steps=60,
    batch=8,
    resolution=(64,),
    evaluation_examples=64,
    table_steps=(10, 20, 50, 100, 200, 500, 1000, 2000, 5000),
    add_options=add_line_options,
    free_options=("refine",),
    further_results=refining(MaximumAPosteriori()),
    reconstructions=None,
)

PLANE = Experiment(
    name="acoustic_wave",
    title="Acoustic survey",
    description=__doc__,
    simulator=plane,
    network=plane_network,
    variants=VARIANTS,
    default_methods=("supervised",),
    reference="supervised",
    steps=60,
    batch=8,
    resolution=(24, 24),
    evaluation_examples=32,
    table_steps=EXPERIMENT.table_steps,
    add_options=add_plane_options,
    free_options=("inversion", "shown"),
    further_results=waveform_inversion.write,
    reconstructions=None,
)

STUDIES = {"inversion": waveform_inversion.main}


def run(argv: Sequence[str] | None = None) -> int:
    """The comparison on a line or on a plane, or the study that `--study` names."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--dimensions", type=int, choices=(1, 2), default=1)
    parser.add_argument("--study", choices=STUDIES)
    chosen, _ = parser.parse_known_args(argv)
    on_plane = chosen.dimensions == 2 or chosen.study is not None
    return main_or_study(PLANE if on_plane else EXPERIMENT, STUDIES, argv)


if __name__ == "__main__":
    sys.exit(run())
