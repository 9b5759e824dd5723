"""Event files for TensorBoard, written from the host with a clock of our own."""

import os
from collections.abc import Mapping

import numpy as np
from tensorboard.compat.proto import event_pb2, summary_pb2, types_pb2
from tensorboard.compat.proto.tensor_pb2 import TensorProto
from tensorboard.plugins.custom_scalar import layout_pb2
from tensorboard.plugins.custom_scalar import summary as custom_scalar
from tensorboard.plugins.histogram.summary_v2 import histogram_pb
from tensorboard.plugins.hparams.summary_v2 import hparams_pb
from tensorboard.plugins.image.metadata import create_summary_metadata as image_metadata
from tensorboard.plugins.scalar.summary_v2 import scalar_pb
from tensorboard.summary.writer.event_file_writer import EventFileWriter

from keras_sip.files import writing


class EventWriter:
    """Writes scalars, histograms, pictures and descriptions of one run; no operation of it is part of a graph.

    Args:
        folder: Where the event file goes.
    """

    def __init__(self, folder: str | os.PathLike) -> None:
        with writing(folder):
            self._writer = EventFileWriter(str(folder))

    def begin(self, step: int, wall_time: float) -> None:
        """Tell readers to forget what an earlier program wrote from this step on."""
        session = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
        self._writer.add_event(event_pb2.Event(step=step, wall_time=wall_time, session_log=session))

    def scalar(self, tag: str, value: float, step: int, wall_time: float) -> None:
        self._add(scalar_pb(tag, value), step, wall_time)

    def histogram(self, tag: str, values: np.ndarray, step: int, wall_time: float) -> None:
        self._add(histogram_pb(tag, values), step, wall_time)

    def picture(self, tag: str, png: bytes, step: int, wall_time: float) -> None:
        """A picture as PNG bytes, whose head holds width and height."""
        width, height = (int.from_bytes(png[start : start + 4]) for start in (16, 20))
        content = [str(width).encode(), str(height).encode(), png]
        tensor = TensorProto(dtype=types_pb2.DT_STRING, string_val=content)
        tensor.tensor_shape.dim.add(size=len(content))
        metadata = image_metadata(display_name=None, description="")
        value = summary_pb2.Summary.Value(tag=tag, metadata=metadata, tensor=tensor)
        self._add(summary_pb2.Summary(value=[value]), step, wall_time)

    def hyperparameters(self, values: Mapping[str, float | str], wall_time: float) -> None:
        self._add(hparams_pb(values), 0, wall_time)

    def layout(self, categories: Mapping[str, Mapping[str, list[str]]], wall_time: float) -> None:
        """A page of charts: {category: {chart: [regular expressions of tags]}}."""
        pages = [
            layout_pb2.Category(
                title=title,
                chart=[
                    layout_pb2.Chart(title=chart, multiline=layout_pb2.MultilineChartContent(tag=tags))
                    for chart, tags in charts.items()
                ],
            )
            for title, charts in categories.items()
        ]
        summary = custom_scalar.pb(layout_pb2.Layout(category=pages))
        # It is one of TensorFlow's own protocol buffers, which are another class of the same content.
        self._add(summary_pb2.Summary.FromString(summary.SerializeToString()), 0, wall_time)

    def flush(self) -> None:
        with writing(self._writer.get_logdir()):
            self._writer.flush()

    def close(self) -> None:
        self._writer.close()

    def _add(self, summary, step, wall_time):
        self._writer.add_event(event_pb2.Event(step=step, wall_time=wall_time, summary=summary))
