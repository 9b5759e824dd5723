"""CalibrationPanel: coverage of a model's error bars, for TensorBoard."""

from typing import Any

import numpy as np
import tensorflow as tf

from keras_sip import plotting
from keras_sip.diagnostics.coverage import Coverage, draw_coverage


class CalibrationPanel:
    """Scalars and a picture of how often error bars hold the truth of an evaluation set.

    Args:
        model: A `SIPModel`.
        evaluation: (observation, x), or observation.
        examples: How many of them.
    """

    def __init__(self, model: Any, evaluation: Any, examples: int):
        self._model, self._evaluation, self._examples = model, evaluation, examples

    @property
    def possible(self) -> bool:
        """Whether the model's own solver gives error bars, and the truth is known."""
        return self._examples > 0 and isinstance(self._evaluation, tuple) and hasattr(self._model.solver, "posterior")

    def measured(self) -> Coverage:
        """The `Coverage` of the model's posteriors."""
        observation, x = tf.nest.map_structure(lambda entry: entry[: self._examples], self._evaluation[:2])
        posterior = self._model.posterior(observation)
        mean = np.asarray(posterior.mean())
        return Coverage.of(x, mean, np.broadcast_to(posterior.stddev(), mean.shape))

    def write(self, writer: Any, step: int, now: float) -> None:
        """Measure, and hand scalars and, where matplotlib is installed, the picture to an `EventWriter`."""
        coverage = self.measured()
        for level, share in coverage.shares.items():
            writer.scalar(f"calibration/{100 * level:.0f} % intervals", share, step, now)
        writer.scalar("calibration/error over error bar", coverage.spread, step, now)
        if plotting.available():
            with plotting.figure(width=3.0, height=2.8) as drawn:
                draw_coverage(drawn.subplots(), coverage)
            writer.picture("calibration", plotting.png(drawn), step, now)
