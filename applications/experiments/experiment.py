"""What an application says about its experiment: the physics, the network, and the methods to compare."""

import argparse
import dataclasses
from collections.abc import Callable, Mapping

import keras

import keras_sip
from experiments import figures
from keras_sip.comparison.training import evaluation_schedule

RATE_FACTORS = (0.1, 0.3, 1.0, 3.0, 10.0)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Variant:
    """One of the methods that an experiment compares: see `sip`, `adjoint` and `supervised`, which make them.

    Factories are given the parsed command line, `options`.

    Args:
        label: Its name in tables and figures.
        about: One line for `--help`.
        method: A training method of `SIPModel`: "sip", "adjoint", "supervised", or a `TrainingMethod`.
        optimizer: `options -> keras optimizer`.
        solver: `options -> InverseSolver`, where the method needs one.
        network: `(simulator, seed) -> keras.Model`, where it is not the experiment's.
        rate_factors: Learning rates that a search tries, over the optimizer's own; it goes on where the best is the
            smallest or the largest.
    """

    label: str
    about: str
    method: str | keras_sip.TrainingMethod
    optimizer: Callable
    solver: Callable | None = None
    network: Callable | None = None
    rate_factors: tuple[float, ...] = RATE_FACTORS

    def with_rate(self, rate: float) -> "Variant":
        """The same with another learning rate, at the start where it is a schedule."""
        return dataclasses.replace(self, optimizer=lambda options: _with_rate(self.optimizer(options), rate))


def sip(
    label: str,
    about: str,
    solver: keras_sip.InverseSolver | Callable,
    optimizer: Callable,
    *,
    method: keras_sip.TrainingMethod | str = "sip",
    network: Callable | None = None,
) -> Variant:
    """Scale-invariant updates of a solver, or of `options -> solver`."""
    make = (lambda options: solver) if isinstance(solver, keras_sip.InverseSolver) else solver
    return Variant(label=label, about=about, method=method, solver=make, optimizer=optimizer, network=network)


def adjoint(
    label: str,
    about: str,
    optimizer: Callable,
    *,
    network: Callable | None = None,
    rate_factors: tuple[float, ...] = RATE_FACTORS,
) -> Variant:
    """Back-propagation through the simulator."""
    return Variant(
        label=label, about=about, method="adjoint", optimizer=optimizer, network=network, rate_factors=rate_factors
    )


def supervised(optimizer: Callable, about: str = "regression on the true x") -> Variant:
    """Labels in place of the simulator."""
    return Variant(label="Supervised", about=about, method="supervised", optimizer=optimizer)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Experiment:
    """A comparison of training methods on one physical system.

    Args:
        name: Of the script and of the default output folder.
        title: In figures and tables.
        description: The head of `--help`; the script's docstring.
        simulator: `options -> Simulator`.
        network: `(simulator, seed) -> keras.Model`, built; the same seed gives the same initial weights.
        variants: The methods by their name on the command line.
        default_methods: Those compared unless `--methods` says otherwise.
        reference: The variant to which the others' errors are related.
        steps, batch, resolution: Defaults of the options of these names; the length of `resolution` is the dimension,
            and a system without a grid has `resolution=()` and no such option.
        steps_per_execution: Training steps in one compiled execution, as in Keras: small networks need many. Numbers of
            training batches are then means over an execution, and steps are evaluated at the end of theirs.
        batch_reduction, input_scale, x_scale: As in `SIPModel`.
        evaluation_examples: Size of the fixed evaluation set.
        table_steps: Iterations that the table shows, and that are always evaluated.
        error_parts: {name: `(simulator, x, x_ref) -> [B]`}, more errors to measure on the evaluation set; each gets a
            column of metrics.csv.
        add_options: `parser -> None`, adds the experiment's own options. They are taken to change results.
        free_options: Names of own options that a resumed run may change.
        further_results: `(run, models) -> None`, makes what only this experiment has, of a `Run` and the trained
            `{method: model}` of its first seed.
        reconstructions: `(y_target, x_true, predictions) -> Figure`; None draws no such figure.
    """

    name: str
    title: str
    description: str
    simulator: Callable
    network: Callable
    variants: Mapping[str, Variant]
    default_methods: tuple[str, ...] = ("sip", "adam")
    reference: str = "adam"
    steps: int = 60
    batch: int = 128
    resolution: tuple[int, ...] = (64, 64)
    steps_per_execution: int = 1
    batch_reduction: str = "mean"
    input_scale: float | None = None
    x_scale: float | None = None
    evaluation_examples: int = 256
    table_steps: tuple[int, ...] = (10, 20, 60, 100, 200, 500, 1000, 2000, 5000, 10000, 20000)
    error_parts: Mapping[str, Callable] = dataclasses.field(default_factory=dict)
    add_options: Callable | None = None
    free_options: tuple[str, ...] = ()
    further_results: Callable | None = None
    reconstructions: Callable | None = figures.reconstructions

    def build_model(
        self, method: str, simulator: keras_sip.Simulator, options: argparse.Namespace, seed: int
    ) -> keras_sip.SIPModel:
        """The compiled `SIPModel` of a variant, with the initial weights of `seed`."""
        variant = self.variants[method]
        keras.utils.set_random_seed(seed)
        model = keras_sip.SIPModel(
            (variant.network or self.network)(simulator, seed),
            simulator,
            variant.solver(options) if variant.solver else None,
            variant.method,
            batch_reduction=self.batch_reduction,
            input_scale=self.input_scale,
            x_scale=self.x_scale,
            name=method,
        )
        # The runner measures batch norm before each evaluation, on examples of its own: `--statistics`.
        model.compile(
            variant.optimizer(options), steps_per_execution=self.steps_per_execution, batch_statistics="moving"
        )
        return model

    def with_rates(self, rates: Mapping[str, float]) -> "Experiment":
        """The same with the learning rates `{method: rate}`."""
        changed = {method: self.variants[method].with_rate(rate) for method, rate in rates.items()}
        return dataclasses.replace(self, variants={**self.variants, **changed})

    def heading(self, options: argparse.Namespace) -> str:
        """What a run is, for tables and figures."""
        cells = f"{' x '.join(map(str, options.resolution))} cells, " if self.resolution else ""
        return f"{self.title}, {cells}batch {options.batch}"

    def evaluation_schedule(self, options: argparse.Namespace) -> list[int]:
        """The steps after which the evaluation set is measured; `--evaluate-every n` changes those between."""
        return evaluation_schedule(options.steps, self.table_steps, options.evaluate_every)


def rate_of(optimizer: keras.optimizers.Optimizer) -> float:
    """The learning rate as a number, that at the start where it is a schedule."""
    rate = optimizer.get_config()["learning_rate"]
    rate = rate["config"]["initial_learning_rate"] if isinstance(rate, dict) else rate
    # Without the rounding of float32, in which an optimizer keeps it.
    return float(f"{rate:.6g}")


def _with_rate(optimizer, rate):
    config = optimizer.get_config()
    if isinstance(config["learning_rate"], dict):
        config["learning_rate"]["config"]["initial_learning_rate"] = rate
    else:
        config["learning_rate"] = rate
    return type(optimizer).from_config(config)
