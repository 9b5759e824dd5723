"""Leave a model card and the final numbers when training ends."""

import os
import pathlib
from collections.abc import Mapping
from typing import Any

from keras_sip.callbacks.follower import Follower
from keras_sip.files import writing
from keras_sip.serving import card

_USE = """```python
import keras
import keras_sip

model = keras.saving.load_model("model.keras")  # where model.save(...) put it
x = model.predict(y)
```"""


class ModelCard(Follower):
    """Writes `README.md` (the card) and `metrics.json` at the end of training, each whole or as it was.

    The card names simulator, solver, network, command, seeds, time, versions, machine and the final numbers.

    Args:
        folder: Made if need be.
        title: Heading of the card.
        evaluation: (observation, x) or a dataset of such pairs, measured at the end, or None.
        seeds: Seeds of weights and data, for the record.
        notes: {name: text} of further rows.
    """

    def __init__(
        self,
        folder: str | os.PathLike,
        title: str,
        *,
        evaluation: Any = None,
        seeds: Any = None,
        notes: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__()
        self.folder, self.title, self.evaluation = pathlib.Path(folder), title, evaluation
        self.seeds, self.notes = seeds, dict(notes or {})

    def on_train_begin(self, logs: dict | None = None) -> None:
        super().on_train_begin(logs)
        with writing(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)

    def on_train_end(self, logs: dict | None = None) -> None:
        measured = {f"{name}, last training batches": value for name, value in self.running_means().items()}
        if self.evaluation is not None:
            data = self.evaluation if isinstance(self.evaluation, tuple) else (self.evaluation,)
            for name, value in self.model.evaluate(*data, verbose=0, return_dict=True).items():
                measured[f"{name}, evaluation"] = float(value)
        metrics = {
            "steps": self.step,
            "train_seconds": self.train_seconds,
            "compile_seconds": self.compile_seconds,
            "measured": measured,
            "command": card.command(),
            "seeds": self.seeds,
            "versions": card.versions(),
            "machine": card.machine(),
        }
        facts = {
            "command": f"`{metrics['command']}`",
            "seeds": self.seeds,
            "training": f"{self.step} steps; {self.train_seconds:.0f} s in this program, compiling not counted",
            **self.notes,
        }
        text = card.model_card(self.model, title=self.title, use=_USE, measured=measured, facts=facts)
        card.write_card(self.folder, text, metrics)
