"""Stop a run when its time is used up."""

from keras_sip.callbacks.follower import Follower
from keras_sip.errors import check_number


class WallTimeBudget(Follower):
    """Stops after the step in which the training time reaches a budget; fit returns as after its last epoch.

    Compiling and what happens between steps do not count, so that methods get equal time for training.

    Args:
        seconds: Training time, above 0.
        seconds_before: Training time of the run before this program, where it goes on.
    """

    def __init__(self, seconds: float, *, seconds_before: float = 0.0) -> None:
        super().__init__()
        self.seconds = check_number("seconds", seconds, exclusive=True)
        self.seconds_before = check_number("seconds_before", seconds_before)

    @property
    def spent(self) -> float:
        """Seconds of training so far."""
        return self.seconds_before + self.train_seconds

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        super().on_train_batch_end(batch, logs)
        if self.spent >= self.seconds:
            self.model.stop_training = True
