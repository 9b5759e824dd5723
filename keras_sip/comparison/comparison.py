"""`keras_sip.compare`: training methods on one's own simulator, from equal starts, on equal data, in equal time."""

import contextlib
import functools
import os
import pathlib
import re
import tempfile
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras

from keras_sip import plotting
from keras_sip.comparison import figures, tables
from keras_sip.comparison.networks import default_network, input_shape
from keras_sip.comparison.recipe import recipe
from keras_sip.comparison.records import Metrics, RunFolder
from keras_sip.comparison.statistics import Errors, as_csv, as_json, errors_of
from keras_sip.comparison.training import Training, evaluation_schedule
from keras_sip.data import evaluation_set
from keras_sip.errors import check_number, check_positive_int, three_part
from keras_sip.files import write_atomically
from keras_sip.simulators.base import Simulator, check_simulator_interface
from keras_sip.solvers.automatic import best_candidate
from keras_sip.solvers.base import InverseSolver
from keras_sip.training.methods import METHODS, Adjoint, Supervised, TrainingMethod
from keras_sip.training.methods import get as get_method
from keras_sip.training.model import SIPModel

# One evaluation set for all training seeds; its stream is apart from that of the training batches.
EVALUATION_SEED = 0
TABLE_STEPS = (10, 30, 100, 300, 1000, 3000, 10_000, 30_000, 100_000)
DEFAULT_BUDGET = 60.0
# What limits a run that has a budget of time: never reached.
UNLIMITED_STEPS = 10_000_000
UNITS = {"s": 1, "m": 60, "h": 3600}
# Networks of dense layers cost less than the calls that train them.
STEPS_PER_EXECUTION = 10
# The method that takes solver, method and optimizer from `recipe`.
RECIPE = "recipe"
FREE = ("methods", "steps", "budget", "seeds")
Method = str | TrainingMethod | InverseSolver


class Comparison:
    """What a comparison found: errors over seeds, at equal steps and at equal time, as text, figure and files.

    Attributes:
        metrics: Every row that was measured.
        labels: {method: label}, in the order of the tables.
        errors: {quantity: {method: {at: `OverSeeds`}}}: see `keras_sip.comparison.statistics.errors_of`.
        models: {method: trained `SIPModel`} of the first seed, where they were asked for.
        failures: {run: error} of the runs that failed.
        unfinished: The runs that have not come to their end.

    Args:
        heading: The first line of table and figure.
        reference: The method to which the others' errors are related, or None.
        table_steps: Steps that the table shows.
        evaluation_examples: How many examples the errors are means of.
        colours: {method: colour}; None takes ours in order.
    """

    def __init__(
        self,
        metrics: Metrics,
        labels: Mapping[str, str],
        *,
        heading: str,
        reference: str | None,
        table_steps: Sequence[int],
        evaluation_examples: int,
        colours: Mapping[str, str] | None = None,
        failures: Mapping[str, str] | None = None,
        unfinished: Sequence[str] = (),
        models: Mapping[str, SIPModel] | None = None,
    ) -> None:
        self.metrics = metrics
        self.labels = {method: label for method, label in labels.items() if method in metrics.methods()}
        self.heading, self.reference = heading, reference
        self.table_steps, self.evaluation_examples = table_steps, evaluation_examples
        self.colours = colours or figures.colours(labels)
        self.failures, self.unfinished = dict(failures or {}), list(unfinished)
        self.models = dict(models or {})

    @functools.cached_property
    def errors(self) -> Errors:
        return errors_of(self.metrics, list(self.labels), self.table_steps)

    def steps_table(self) -> str:
        """Errors at equal steps, their ratios, and what the methods cost."""
        return tables.steps_table(
            self.metrics,
            self.labels,
            heading=self.heading,
            reference=self.reference,
            table_steps=self.table_steps,
            evaluation_examples=self.evaluation_examples,
        )

    def time_tables(self) -> str:
        """Errors at equal time, time and steps to errors, and what did not come to its end."""
        text = tables.time_tables(self.errors, self.labels)
        if self.unfinished:
            text += f"\nnot finished, and measured as far as they came: {', '.join(self.unfinished)}\n"
        return text

    def __str__(self) -> str:
        return f"{self.steps_table()}\n{self.time_tables()}"

    def learning_curves(self):
        """Errors over steps and over time, and losses, as a `matplotlib.figure.Figure`."""
        return figures.learning_curves(self.metrics, self.labels, self.colours, self.heading)

    def to_csv(self) -> str:
        """One line for each quantity, method and place."""
        return as_csv(self.errors)

    def to_json(self, **more: Any) -> str:
        """All numbers, with `more` of the caller's own."""
        seeds = {method: self.metrics.seeds(method) for method in self.labels}
        about = {"labels": self.labels, "seeds": seeds, "unfinished": self.unfinished, "failures": self.failures}
        return as_json(self.errors, experiment=self.heading, **about, **more)

    def write(self, folder: str | os.PathLike, **more: Any) -> None:
        """`table.txt`, what `write_numbers` writes, and, where matplotlib is installed, `learning_curves.png`."""
        folder = pathlib.Path(folder)
        write_atomically(folder / "table.txt", self.steps_table().encode())
        self.write_numbers(folder, **more)
        if self.labels and plotting.available():
            plotting.save(self.learning_curves(), folder / "learning_curves.png")

    def write_numbers(self, folder: str | os.PathLike, **more: Any) -> None:
        """`comparison.txt`, `.csv` and `.json`, the last with `more` of the caller's own."""
        texts = {
            "comparison.txt": f"{self.heading}\n{self.time_tables()}",
            "comparison.csv": self.to_csv(),
            "comparison.json": self.to_json(**more),
        }
        for name, text in texts.items():
            write_atomically(pathlib.Path(folder) / name, text.encode())


def compare(
    simulator: Simulator,
    methods: Sequence[str] | Mapping[str, Method] = ("sip", "adjoint", "supervised"),
    *,
    seeds: Sequence[int] = (0,),
    budget: float | str | None = None,
    steps: int | None = None,
    batch: int = 32,
    network: Callable[[int], keras.Model] | None = None,
    solver: InverseSolver | str = "auto",
    learning_rate: float = 1e-3,
    evaluation_examples: int = 256,
    output: str | os.PathLike | None = None,
    resume: bool = False,
    verbose: bool = False,
) -> Comparison:
    """Train one network with several methods, side by side, and compare the errors in x.

    For every seed all methods start from the same weights and see the same batches in the same order, for equal steps
    or equal training time; all are measured on one fixed evaluation set. Each network is trained by Adam,
    except by the method "recipe".

        comparison = keras_sip.compare(Decay(), budget="60s", seeds=(0, 1))
        print(comparison)

    Args:
        simulator: The process P; it must define `sample`.
        methods: Names of training methods, or {name: method} where a method is a name, a `TrainingMethod`, or an
            `InverseSolver` to be used by SIP in place of `solver`. "recipe" is what `keras_sip.recipe` recommends,
            with an optimizer and a schedule of its own.
        seeds: One run of each method for each seed.
        budget: Training time of each run in seconds, or text such as "120s", "10m" or "1h"; compiling and evaluating
            are not counted. Without `steps` 60 seconds.
        steps: Training steps of each run, where they end it.
        batch: Examples in a training batch.
        network: `seed -> keras.Model` from `simulator.network_input(observation)` to x; None chooses one by the
            shapes, see `keras_sip.comparison.networks.default_network`.
        solver: Of the methods that use one.
        learning_rate: Of Adam.
        evaluation_examples: Size of the evaluation set.
        output: A folder for rows, checkpoints, tables and figure; None keeps nothing on disk.
        resume: Go on with the run in that folder.
        verbose: Print what is going on.

    Returns:
        A `Comparison`. A method that fails is in its `failures`, and the others go on.

    Raises:
        ValueError, TypeError: Wrong arguments. Nothing was trained or written.
        OutputError: The folder cannot be written, or another process writes there.
        KeyboardInterrupt: Ctrl-C or SIGTERM, after a checkpoint; with `resume=True` it goes on from there.
    """
    check_simulator_interface(simulator)
    if not simulator.has("sample"):
        raise ValueError(
            three_part(
                "a simulator with `sample(batch_size, seed)`: it makes the examples to train and to measure on",
                f"{simulator!r} without one",
                'Define it; it returns {"x": x, "y": self.forward(x)} of random x.',
            )
        )
    named = _checked_methods(methods)
    seeds = [check_positive_int("seeds", seed, minimum=0) for seed in dict.fromkeys(seeds)]
    budget = None if budget is None else seconds("budget", budget)
    if steps is None:
        budget, steps = budget or DEFAULT_BUDGET, UNLIMITED_STEPS
    check_positive_int("steps", steps)
    check_positive_int("batch", batch)
    check_number("learning_rate", learning_rate, exclusive=True)
    evaluation = evaluation_set(simulator, evaluation_examples, EVALUATION_SEED)
    network = network or default_network(simulator)
    if isinstance(solver, str) and solver == "auto":
        solver = best_candidate(simulator).solver
    is_dense = len(input_shape(simulator)) == len(simulator.x_shape) == 1
    # Where time ends the training, nobody knows over how many steps a rate is to fall.
    planned = None if steps == UNLIMITED_STEPS else steps
    advised = recipe(simulator, steps=planned) if RECIPE in named.values() else None

    def build(name: str, seed: int) -> SIPModel:
        method: Any = named[name]
        optimizer: Any = keras.optimizers.Adam(learning_rate)
        own_solver: Any = solver
        if advised is not None and method == RECIPE:
            method, own_solver, optimizer = advised.method, advised.solver, advised.optimizer()
        of_model: Any = method if isinstance(method, InverseSolver) else own_solver
        method = "sip" if isinstance(method, InverseSolver) else method
        needs_solver = not isinstance(get_method(method), (Adjoint, Supervised))
        keras.utils.set_random_seed(seed)
        model = SIPModel(network(seed), simulator, of_model if needs_solver else None, method, name=name)
        # Batch norm is measured before each evaluation, on examples of its own, the same for all methods.
        model.compile(
            optimizer,
            steps_per_execution=STEPS_PER_EXECUTION if is_dense else 1,
            batch_statistics="moving",
        )
        return model

    # What does not go together is refused before there is a folder.
    for name in named:
        build(name, seeds[0])
    arguments = {
        "simulator": repr(simulator),
        "network": network(seeds[0]).name,
        "solver": repr(solver),
        "methods": list(named),
        "seeds": seeds,
        "steps": steps,
        "budget": budget,
        "batch": batch,
        "learning_rate": learning_rate,
        "evaluation_examples": evaluation_examples,
    }
    with contextlib.ExitStack() as stack:
        path = stack.enter_context(tempfile.TemporaryDirectory()) if output is None else output
        folder = stack.enter_context(RunFolder(path, arguments, free=FREE, resume=resume))
        training = Training(
            folder=folder,
            evaluation=evaluation,
            steps=steps,
            batch=batch,
            schedule=evaluation_schedule(steps, TABLE_STEPS),
            budget=budget,
            show_progress=verbose,
            say=print if verbose else lambda text: None,
        )
        training.train_all(build, list(named), seeds)
        comparison = Comparison(
            folder.metrics,
            {name: name for name in named},
            heading=f"{type(simulator).__name__}, batch {batch}, Adam {learning_rate:g}, {type(solver).__name__}",
            reference=next(iter(named)),
            table_steps=TABLE_STEPS,
            evaluation_examples=evaluation_examples,
            failures=folder.failures,
            unfinished=training.unfinished(list(named), seeds),
            models={
                name: folder.restore(build(name, seeds[0]), name, seeds[0])
                for name in named
                if folder.checkpoint_step(name, seeds[0])
            },
        )
        if output is not None:
            comparison.write(output)
    return comparison


def seconds(name: str, time: float | str) -> float:
    """A time as 600, "600s", "10m" or "1h" in seconds."""
    text = str(time)
    number, unit = (text[:-1], UNITS[text[-1]]) if text[-1:] in UNITS else (text, 1)
    try:
        return check_number(name, float(number), exclusive=True) * unit
    except ValueError:
        raise ValueError(
            three_part(f"`{name}` to be a time above 0", repr(time), "Write it as 600s, 10m or 1h.")
        ) from None


def _checked_methods(methods: Any) -> dict[str, Method]:
    """{name: method}; a name is also that of a model, a folder and a row of the tables."""
    if isinstance(methods, (str, TrainingMethod, InverseSolver)):
        methods = [methods]
    named = dict(methods) if isinstance(methods, Mapping) else {str(method): method for method in methods}
    if not named:
        raise ValueError(three_part("`methods` to name at least one", "none", f"Choose from {', '.join(METHODS)}."))
    for name, method in named.items():
        if not isinstance(name, str) or not re.fullmatch(r"[\w .,()=-]+", name):
            raise ValueError(
                three_part(
                    "names of methods from letters, digits, spaces and . , ( ) = -",
                    f"{name!r}",
                    'Give names: methods={"gauss_newton": GaussNewton(), "adjoint": "adjoint"}.',
                )
            )
        if not isinstance(method, InverseSolver) and method != RECIPE:
            get_method(method)
    return named
