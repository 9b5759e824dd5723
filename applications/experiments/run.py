"""One run of an experiment: what it is, what was asked for, where it is written, and what it is measured on."""

import argparse
import dataclasses
from collections.abc import Mapping

import keras
import tensorflow as tf

import keras_sip
from experiments import figures
from experiments.experiment import Experiment
from experiments.options import FREE_ON_RESUME, degraded
from keras_sip.comparison.comparison import EVALUATION_SEED, Comparison
from keras_sip.comparison.records import RunFolder
from keras_sip.comparison.training import Training


@dataclasses.dataclass(frozen=True, kw_only=True)
class Run:
    """An experiment with the options of its command line, its folder and its evaluation set.

    Args:
        experiment: The `Experiment`.
        options: The parsed command line.
        folder: Where everything is written.
        simulator: That of the experiment, degraded where the options say so.
        evaluation: (observation, x).
    """

    experiment: Experiment
    options: argparse.Namespace
    folder: RunFolder
    simulator: keras_sip.Simulator
    evaluation: tuple

    @classmethod
    def opened(
        cls, experiment: Experiment, options: argparse.Namespace, *, free: tuple[str, ...] = (), resume: bool = False
    ) -> "Run":
        """The run in the folder that the options name; `close` lets the folder go.

        Args:
            free: Further options that a resumed run may change.
            resume: Go on with what is there, or start it.

        Raises:
            ValueError: The options do not go together, or the folder holds another run. Nothing was touched.
            OutputError: The folder cannot be written, or another process writes there.
        """
        simulator = degraded(experiment.simulator(options), options)
        # A resolution that the network cannot take is refused before there is a folder.
        experiment.network(simulator, options.seeds[0])
        folder = RunFolder(
            options.output,
            {"experiment": experiment.name, **vars(options), "output": str(options.output)},
            free=(*FREE_ON_RESUME, *experiment.free_options, *free),
            resume=resume,
            error_parts=experiment.error_parts,
        )
        evaluation = keras_sip.evaluation_set(simulator, experiment.evaluation_examples, EVALUATION_SEED)
        return cls(experiment=experiment, options=options, folder=folder, simulator=simulator, evaluation=evaluation)

    def close(self) -> None:
        self.folder.close()

    @property
    def heading(self) -> str:
        """What the run is, for tables and figures."""
        return self.experiment.heading(self.options)

    @property
    def methods(self) -> list[str]:
        """Those that were recorded, in the experiment's order."""
        recorded = self.folder.metrics.methods()
        return [method for method in self.experiment.variants if method in recorded]

    @property
    def labels(self) -> dict[str, str]:
        """{method: label} of what was recorded."""
        return {method: self.experiment.variants[method].label for method in self.methods}

    @property
    def colours(self) -> dict[str, str]:
        """{method: colour}: a method of the experiment keeps its colour whichever are drawn."""
        return figures.colours(self.experiment.variants)

    def build_model(self, method: str, seed: int) -> keras_sip.SIPModel:
        """The compiled model of a method, with the initial weights of the seed."""
        return self.experiment.build_model(method, self.simulator, self.options, seed)

    def trained_model(self, method: str, seed: int) -> keras_sip.SIPModel:
        """The model at its newest checkpoint."""
        return self.folder.restore(self.build_model(method, seed), method, seed)

    @property
    def training(self) -> Training:
        """How its models are trained and measured."""
        options = self.options
        return Training(
            folder=self.folder,
            evaluation=self.evaluation,
            steps=options.steps,
            batch=options.batch,
            schedule=self.experiment.evaluation_schedule(options),
            budget=options.budget,
            error_parts=self.experiment.error_parts,
            measure_statistics=options.statistics != "moving",
            show_progress=not options.quiet,
        )

    def comparison(self) -> Comparison:
        """What the run has found so far."""
        return Comparison(
            self.folder.metrics,
            self.labels,
            heading=self.heading,
            reference=self.experiment.reference,
            table_steps=self.experiment.table_steps,
            evaluation_examples=self.experiment.evaluation_examples,
            colours=self.colours,
            failures=self.folder.failures,
            unfinished=self.training.unfinished(self.options.methods, self.options.seeds),
        )

    def shown_examples(self, count: int) -> tuple:
        """(observation, x) of the first examples of the evaluation set."""
        return tf.nest.map_structure(lambda entry: entry[:count], self.evaluation)


Models = Mapping[str, keras.Model]
