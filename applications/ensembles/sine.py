"""What the figure and the studies of the rotated sine share: ensembles of its variants, and their options."""

import types

import keras_sip
from ensembles.ensemble import Ensemble, Member
from ensembles.options import parser as shared_parser


def members(seeds, rate, systems):
    """A `Member` for each system (xi, phi) and seed; `rate` is a function of xi."""
    return [Member(seed, rate(xi), (("xi", float(xi)), ("phi", float(phi)))) for xi, phi in systems for seed in seeds]


def build(experiment, variant, ensemble_members, options, *, decay_steps=None):
    """The `Ensemble` of a variant of `sine.py`."""
    # Rates that depend on xi are the members' own.
    settings = types.SimpleNamespace(**{**vars(options), "xi": 1.0})
    return Ensemble(
        ensemble_members,
        keras_sip.RotatedSine(map=options.map),
        lambda seed: experiment.network(None, seed),
        method=variant.method,
        solver=variant.solver(settings) if variant.solver else None,
        optimizer=variant.optimizer(settings),
        batch=experiment.batch,
        batch_reduction=experiment.batch_reduction,
        decay_steps=decay_steps,
    )


def parser(title, description, output):
    """A parser with the options that figure and studies take."""
    result = shared_parser(title, description, output)
    result.add_argument(
        "--map", choices=("paper", "released"), default="paper", help="which of the two maps (default: %(default)s)"
    )
    return result
