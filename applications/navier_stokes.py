"""Incompressible flow: find the initial velocity x from the pictures of a marker before and after.

Trains a U-Net on random swirls in a uniform velocity (Section 4 of the paper, Fig. 7 and Table 1):

  python applications/navier_stokes.py --methods sip adam --steps 200 --batch 32 --seeds 0 1 2
  python applications/navier_stokes.py --methods sip sip_paper adam_amplitudes --steps 200
  python applications/navier_stokes.py --methods sip adam --steps 200 --batch 32 --seeds 0 1 2 --resume --table1

and a study of the inverse solver, with its own `--help`:

  python applications/navier_stokes.py --study reverse

Writes metrics.csv (also the errors of the uniform, the swirl and the small-scale part of the velocity), table.txt,
learning_curves.png (Fig. 7b), reconstructions.png (vorticity), flow.png (Fig. 7a), flow.gif, with --table1 also
table1.txt, event files for `tensorboard --logdir FOLDER` and the trained models. An interrupted run goes on with the
same command and --resume.
"""

import sys

import keras
import tensorflow as tf

import keras_sip
from experiments import figures
from experiments.runner import Experiment, Variant, main_or_study
from keras_sip.simulators.base import split_observation
from studies import fluid_reverse
from studies.fluid_pictures import flow_animation, flow_figure, vorticity
from studies.table1 import table1


def adam(options):
    return keras.optimizers.Adam(5e-3)


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
    return keras_sip.Chain(
        solvers=(keras_sip.ReverseSimulation(max_steps=2), keras_sip.GaussNewton(cg_steps=options.cg_steps))
    )


def add_options(parser):
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


VARIANTS = {
    "sip": Variant(
        label="SIP",
        about="scale-invariant updates from the reverse simulation, a gain for each example",
        method="sip",
        solver=lambda options: keras_sip.ReverseSimulation(),
        optimizer=adam,
    ),
    "sip_paper": Variant(
        label="SIP, gain 1e-3",
        about="the same with the paper's gain",
        method="sip",
        solver=lambda options: keras_sip.ReverseSimulation(gain=1e-3),
        optimizer=adam,
    ),
    "adam": Variant(label="Adam", about="back-propagation through all time steps", method="adjoint", optimizer=adam),
    "accumulated": Variant(
        label="SIP, gradient steps",
        about="updates summed over a few gradient steps in x",
        method="sip",
        solver=lambda options: keras_sip.GradientDescent(max_steps=options.accumulate, step_size=options.gradient_step),
        optimizer=adam,
    ),
    "lbfgs": Variant(
        label="SIP, L-BFGS",
        about="updates summed over a few iterations of L-BFGS in x",
        method="sip",
        solver=lambda options: keras_sip.LBFGS(max_steps=options.lbfgs_steps, line_search_steps=5),
        optimizer=adam,
    ),
    "sip_chain": Variant(
        label="SIP, chain",
        about="the reverse simulation, then a Gauss-Newton step",
        method="sip",
        solver=chain,
        optimizer=adam,
    ),
    "sip_zero_padding": Variant(
        label="SIP, zero padding",
        about="sip with the paper's padding of convolutions",
        method="sip",
        solver=lambda options: keras_sip.ReverseSimulation(),
        optimizer=adam,
        network=zero_padded,
    ),
    "adam_zero_padding": Variant(
        label="Adam, zero padding",
        about="adam with the paper's padding",
        method="adjoint",
        optimizer=adam,
        network=zero_padded,
    ),
    "supervised": Variant(label="Supervised", about="regression on the true x", method="supervised", optimizer=adam),
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


def further_results(options, folder, evaluation, models):
    observation, x_true = evaluation
    labels = {method: VARIANTS[method].label for method in models}
    if figures.available():
        first = tf.nest.map_structure(lambda entry: entry[:3], observation)
        predictions = {labels[method]: model(first, training=False).numpy() for method, model in models.items()}
        simulator = next(iter(models.values())).simulator
        figures.save(flow_figure(simulator, first, x_true[:3], predictions), folder.path / "flow.png")
        best = next(iter(predictions))
        context = {name: entry[:1] for name, entry in split_observation(first)[1].items()}
        both = {"truth": x_true[:1], best: predictions[best][:1]}
        flow_animation(simulator, context, both, folder.path / "flow.gif")
    if options.table1:
        text = table1(models, observation, x_true, labels, chain(options))
        folder.write_text("table1.txt", text)
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

STUDIES = {"reverse": fluid_reverse.main}


def run(argv=None):
    """The comparison, or the study that `--study` names."""
    return main_or_study(EXPERIMENT, STUDIES, argv)


if __name__ == "__main__":
    sys.exit(run())
