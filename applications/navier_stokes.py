"""Incompressible flow: find the initial velocity x from the pictures of a marker before and after.

Trains a U-Net on random swirls in a uniform velocity (Section 4 of the paper, Fig. 7 and Table 1):

  python applications/navier_stokes.py --methods sip adam --steps 200 --batch 32 --seeds 0 1 2
  python applications/navier_stokes.py --methods sip sip_paper adam_amplitudes --steps 200
  python applications/navier_stokes.py --methods sip adam --steps 200 --batch 32 --seeds 0 1 2 --resume --table1

and two studies, each with its own `--help`:

  python applications/navier_stokes.py --study reverse          the inverse solver
  python applications/navier_stokes.py --study initial_guess    solvers from good and bad starts, and from networks

Writes metrics.csv (also the errors of the uniform, the swirl and the small-scale part of the velocity), table.txt,
learning_curves.png (Fig. 7b), reconstructions.png (vorticity), flow.png (Fig. 7a), flow.gif, with --table1 also
table1.txt, event files for `tensorboard --logdir FOLDER` and the trained models. An interrupted run goes on with the
same command and --resume.
"""

import argparse
import sys
from collections.abc import Sequence

from experiments.startup import keras_sip

import tensorflow as tf

from experiments import figures
from experiments.baselines import adam_with, generic
from experiments.experiment import Experiment, adjoint, sip, supervised
from experiments.runner import main_or_study
from keras_sip import LBFGS, Chain, GaussNewton, GradientDescent, MaximumAPosteriori, ReverseSimulation
from keras_sip.simulators.base import split_observation
from studies import fluid_reverse, initial_guess
from studies.fluid_pictures import flow_animation, flow_figure, vorticity
from studies.table1 import table1


def network(simulator, seed, padding="periodic"):
    channels_seen = (*simulator.resolution, 2)
    return keras_sip.UNet(channels_seen, simulator.x_shape[-1], levels=5, padding=padding, seed=seed)


def zero_padded(simulator, seed):
    return network(simulator, seed, padding="zero")


def chain(options):
    """The reverse simulation, then Gauss-Newton for what lies beyond a swirl in a uniform velocity.

    Few conjugate-gradient steps: they change x only where the marker sees it. Levenberg-Marquardt, which scales up what
    is hardly seen, lowers the objective as far but raises the error in x.
    """
    return Chain(ReverseSimulation(max_steps=2), GaussNewton(cg_steps=options.cg_steps))


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--objective",
        choices=("squares", "amplitudes"),
        default="squares",
        help="of the weighted Fourier amplitudes of the marker difference (default: %(default)s)",
    )
    parser.add_argument(
        "--accumulate", type=int, default=4, help="gradient steps of the method accumulated (default: %(default)s)"
    )
    parser.add_argument("--gradient-step", type=float, default=0.003, help="their step size (default: %(default)s)")
    parser.add_argument(
        "--lbfgs-steps", type=int, default=4, help="iterations of the method lbfgs (default: %(default)s)"
    )
    parser.add_argument(
        "--cg-steps", type=int, default=4, help="conjugate-gradient steps of sip_chain (default: %(default)s)"
    )
    parser.add_argument("--table1", action="store_true", help="also measure the time to equal quality of solvers")


adam = adam_with(5e-3)
REVERSE = "scale-invariant updates from the reverse simulation, a gain for each example"

VARIANTS = {
    "sip": sip("SIP", REVERSE, ReverseSimulation(), adam),
    "sip_paper": sip("SIP, gain 1e-3", "the same with the paper's gain", ReverseSimulation(gain=1e-3), adam),
    "sip_generic": generic(adam),
    "adam": adjoint("Adam", "back-propagation through all time steps", adam),
    "accumulated": sip(
        "SIP, gradient steps",
        "updates summed over a few gradient steps in x",
        lambda options: GradientDescent(max_steps=options.accumulate, step_size=options.gradient_step),
        adam,
    ),
    "lbfgs": sip(
        "SIP, L-BFGS",
        "updates summed over a few iterations of L-BFGS in x",
        lambda options: LBFGS(max_steps=options.lbfgs_steps, line_search_steps=5),
        adam,
    ),
    "sip_chain": sip("SIP, chain", "the reverse simulation, then a Gauss-Newton step", chain, adam),
    "sip_zero_padding": sip(
        "SIP, zero padding",
        "sip with the paper's padding of convolutions",
        ReverseSimulation(),
        adam,
        network=zero_padded,
    ),
    "adam_zero_padding": adjoint("Adam, zero padding", "adam with the paper's padding", adam, network=zero_padded),
    "supervised": supervised(adam),
}


def uniform_error(simulator, x, x_ref):
    """Length of the difference of the uniform velocities."""
    return tf.norm(simulator.swirl.split(x - x_ref)[0], axis=-1)


def swirl_error(simulator, x, x_ref):
    """Difference of the strengths, from -2 to 2."""
    return tf.abs(simulator.swirl.split(x - x_ref)[1])[:, 0]


def small_scale_error(simulator, x, x_ref):
    """Mean length of the difference of what is neither uniform nor swirl."""
    return tf.reduce_mean(tf.norm(simulator.swirl.split(x - x_ref)[2], axis=-1), axis=[1, 2])


def vorticities(y_target, x_true, predictions):
    return figures.reconstructions(
        y_target, vorticity(x_true), {label: vorticity(x) for label, x in predictions.items()}
    )


def further_results(run, models):
    labels = run.labels
    if figures.available():
        first, x_first = run.shown_examples(3)
        predictions = {labels[method]: model(first, training=False).numpy() for method, model in models.items()}
        figures.save(flow_figure(run.simulator, first, x_first, predictions), run.folder.path / "flow.png")
        best = next(iter(predictions))
        context = {name: entry[:1] for name, entry in split_observation(first)[1].items()}
        both = {"truth": x_first[:1], best: predictions[best][:1]}
        flow_animation(run.simulator, context, both, run.folder.path / "flow.gif")
    if run.options.table1:
        text = table1(run, models, chain(run.options))
        run.folder.write_text("table1.txt", text)
        print(text)


EXPERIMENT = Experiment(
    name="navier_stokes",
    title="Navier-Stokes",
    description=__doc__,
    simulator=lambda options: keras_sip.NavierStokes(tuple(options.resolution), objective_form=options.objective),
    network=network,
    variants=VARIANTS,
    steps=200,
    batch=64,
    # The paper averages over the batch.
    batch_reduction="mean",
    error_parts={"uniform_error": uniform_error, "swirl_error": swirl_error, "small_scale_error": small_scale_error},
    table_steps=(1, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000, 20000),
    add_options=add_options,
    free_options=("table1",),
    further_results=further_results,
    reconstructions=vorticities,
)

STUDIES = {
    "reverse": fluid_reverse.main,
    "initial_guess": initial_guess.study(
        {
            "reverse simulation": ReverseSimulation(),
            "Gauss-Newton, 4 CG": GaussNewton(cg_steps=4),
            "generic": MaximumAPosteriori(),
        }
    ),
}


def run(argv: Sequence[str] | None = None) -> int:
    """The comparison, or the study that `--study` names."""
    return main_or_study(EXPERIMENT, STUDIES, argv)


if __name__ == "__main__":
    sys.exit(run())
