"""SIPTensorBoard as its readers see it: TensorBoard's own event reader, its web server, and a browser."""

import contextlib
import json
import logging
import shutil
import subprocess
import urllib.parse
import urllib.request

import numpy as np
import pytest
import tensorflow as tf
from resumed_run import BATCH, SIMULATOR, make_model
from tensorboard import program
from tensorboard.backend.event_processing import plugin_event_accumulator
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import keras_sip
from keras_sip.callbacks import SIPTensorBoard
from keras_sip.callbacks.calibration import CalibrationPanel
from keras_sip.callbacks.follower import Follower
from keras_sip.callbacks.tensorboard import SECONDS_A_PICTURE

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
EVALUATION = keras_sip.evaluation_set(SIMULATOR, 16, 1)


class Noted(Follower):
    """The clock and the metrics after each step."""

    def on_train_begin(self, logs=None):
        super().on_train_begin(logs)
        self.losses, self.seconds = [], []

    def on_train_batch_end(self, batch, logs=None):
        super().on_train_batch_end(batch, logs)
        self.losses.append(self.running_means()["loss"])
        self.seconds.append(self.train_seconds)


class Run:
    """A run of 20 steps with points every 5 and evaluations every 10, gone on with for 10 more."""

    def __init__(self, folder):
        self.folder = folder
        self.model = make_model()
        self.noted = Noted()
        options = {"every": 5, "evaluate_every": 10, "hyperparameters": {"batch": BATCH, "data": "seed 0"}}
        for steps in (20, 10):
            board = SIPTensorBoard(folder, EVALUATION, **options)
            self.model.fit(
                keras_sip.dataset(SIMULATOR, BATCH, 0), steps_per_epoch=steps, verbose=0, callbacks=[self.noted, board]
            )
            if steps == 20:
                self.first_losses, self.first_seconds = self.noted.losses, self.noted.seconds
        self.events = EventAccumulator(str(folder), {"tensors": 0})
        self.events.Reload()

    def curve(self, tag):
        return {event.step: float(tf.make_ndarray(event.tensor_proto)) for event in self.events.Tensors(tag)}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return Run(tmp_path_factory.mktemp("board") / "sip")


def test_training_curves_are_running_means_at_every_fifth_step(run):
    curve = run.curve("loss/training")
    assert list(curve) == [5, 10, 15, 20, 25, 30]
    for step in (5, 10, 15, 20):
        assert curve[step] == pytest.approx(run.first_losses[step - 1], rel=1e-6)


def test_evaluation_curves_equal_keras_evaluate(run):
    expected = run.model.evaluate(*EVALUATION, verbose=0, return_dict=True)
    for name in ("x_error", "loss"):
        curve = run.curve(f"{name}/evaluation")
        assert list(curve) == [10, 20, 30]
        assert curve[30] == pytest.approx(expected[name], rel=1e-5)


def test_time_is_training_time_without_compiling(run):
    times = {event.step: event.wall_time for event in run.events.Tensors("loss/training")}
    for step in (10, 15, 20):
        # Two callbacks read the clock one after the other.
        spent = run.first_seconds[step - 1] - run.first_seconds[4]
        assert times[step] - times[5] == pytest.approx(spent, abs=0.05)


def test_solver_health_is_measured_on_the_evaluation_set(run):
    assert run.curve("solver/failed") == {10: 0.0, 20: 0.0, 30: 0.0}
    assert run.curve("solver/steps") == {10: 1.0, 20: 1.0, 30: 1.0}
    assert run.curve("solver/not_descending") == {10: 0.0, 20: 0.0, 30: 0.0}
    y_target, _ = EVALUATION
    x = run.model.predict(y_target, verbose=0)
    update = SIMULATOR.inverse(y_target, None).numpy() - x
    rms = np.sqrt(np.mean(np.square(update), axis=(1, 2, 3)))
    # float32 Laplacian of a solve.
    assert run.curve("norm/update")[30] == pytest.approx(rms.mean(), rel=1e-4)
    # P is linear and symmetric: the gradient is P(P(x) - y*).
    gradient = SIMULATOR(SIMULATOR(x) - y_target).numpy()
    rms = np.sqrt(np.mean(np.square(gradient), axis=(1, 2, 3)))
    assert run.curve("norm/gradient")[30] == pytest.approx(rms.mean(), rel=1e-4)
    buckets = tf.make_ndarray(run.events.Tensors("updates")[-1].tensor_proto)
    assert buckets[:, 2].sum() == update.size
    assert buckets[0, 0] == pytest.approx(update.min(), rel=1e-4)


def test_pictures_are_coloured_panels(run):
    pictures = run.events.Tensors("answers")
    assert [event.step for event in pictures] == [10, 20, 30]
    width, height, png = tf.make_ndarray(pictures[-1].tensor_proto)
    picture = tf.io.decode_png(png, channels=3).numpy().astype(int)
    assert picture.shape == (int(height), int(width), 3)
    assert np.ptp(picture, axis=-1).max() > 100


def test_a_run_that_goes_on_replaces_what_was_written_after_its_start(tmp_path):
    for value in (1.0, 2.0):
        board = SIPTensorBoard(tmp_path)
        board.set_model(make_model())
        board.set_params({"steps": 3})
        board.on_train_begin()
        for step in (1, 2, 3):
            board.step = step
            board._scalar("loss/training", value)
        board.close()
    # The reader of TensorBoard's web server; the older one forgets scalars of TensorFlow 1 only.
    events = plugin_event_accumulator.EventAccumulator(str(tmp_path), {"tensors": 0})
    events.Reload()
    assert [float(tf.make_ndarray(event.tensor_proto)) for event in events.Tensors("loss/training")] == [2.0, 2.0, 2.0]


def test_calibration_of_error_bars_is_written_when_fit_ends(tmp_path, monkeypatch):
    simulator = keras_sip.Degraded(keras_sip.Poisson((6, 6)), noise=0.1)
    evaluation = keras_sip.evaluation_set(simulator, 40, 1)
    network = keras_sip.UNet((6, 6, 1), 1, levels=1, filters=2, seed=0)
    model = keras_sip.SIPModel(network, simulator, keras_sip.MaximumAPosteriori(), "adjoint")
    model.compile("adam")
    board = SIPTensorBoard(tmp_path, evaluation, pictures=0, calibration=24)
    # What else is measured is looked at above.
    monkeypatch.setattr(board, "_evaluate", lambda *args, **kwargs: None)
    model.fit(keras_sip.dataset(simulator, 4, 0), steps_per_epoch=2, verbose=0, callbacks=[board])
    events = EventAccumulator(str(tmp_path), {"tensors": 0})
    events.Reload()
    observation, x = tf.nest.map_structure(lambda entry: entry[:24], evaluation)
    posterior = model.posterior(observation)
    away = np.abs(x - posterior.mean()) / posterior.stddev()
    for level, quantile in ((50, 0.67449), (80, 1.28155), (95, 1.95996)):
        (event,) = events.Tensors(f"calibration/{level} % intervals")
        assert event.step == 2
        np.testing.assert_allclose(tf.make_ndarray(event.tensor_proto), np.mean(away <= quantile), atol=1e-6)
    assert events.Tensors("calibration")
    # No solver that gives error bars: nothing is measured.
    assert not CalibrationPanel(make_model(), EVALUATION, 24).possible


def test_without_fixed_intervals_evaluations_keep_to_their_share_the_last_included(tmp_path):
    board = SIPTensorBoard(tmp_path, EVALUATION, max_share=0.02)
    board._cost, board._measuring, board.train_seconds = 0.0, None, 0.0
    assert board.due(1, 1)
    # Measured in 0.6 s, drawn in 0.4 s; this one and the last take 2 s, 2 % of 100 s.
    board._measuring, board._drawing, board.train_seconds = 0.6, 0.4, 99.0
    assert not board.due(2, 2)
    board.train_seconds = 101.0
    assert board.due(2, 2)
    board._cost = 1.0
    assert not board.due(2, 2)
    board.train_seconds = 151.0
    assert board.due(2, 2)


@pytest.mark.parametrize("pictures, expected", [(3, SECONDS_A_PICTURE), (0, 0.0)])
def test_a_picture_is_expected_to_take_its_time_before_the_first_one_is_drawn(run, tmp_path, pictures, expected):
    """The first evaluation draws none: by its seconds alone the second would come too early."""
    board = SIPTensorBoard(tmp_path, EVALUATION, pictures=pictures)
    board.set_model(run.model)
    board.on_train_begin()
    assert board._drawing == expected
    board._evaluate()
    board.close()
    assert board._drawing != expected or not pictures


def test_the_compiled_step_holds_no_summary(run):
    step = tf.function(run.model.train_step, autograph=False).get_concrete_function(
        next(iter(keras_sip.dataset(SIMULATOR, BATCH, 0)))
    )
    definition = step.graph.as_graph_def()
    functions = [definition.node, *(function.node_def for function in definition.library.function)]
    names = [node.op for nodes in functions for node in nodes]
    assert names and not [name for name in names if "Summary" in name]


def test_hyperparameters_that_cannot_be_shown_are_refused(tmp_path):
    with pytest.raises(TypeError, match="numbers and texts"):
        SIPTensorBoard(tmp_path, hyperparameters={"resolution": [8, 8]})


@pytest.fixture(scope="module")
def server(run):
    """The address of TensorBoard's own web server on this run."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    board = program.TensorBoard()
    board.configure(
        argv=[None, "--logdir", str(run.folder.parent), "--host", "127.0.0.1", "--port", "0", "--load_fast", "false"]
    )
    return board.launch()


def fetch(server, path, **query):
    with contextlib.closing(urllib.request.urlopen(f"{server}{path}?{urllib.parse.urlencode(query)}")) as reply:
        return json.load(reply)


def test_web_server_serves_curves_layout_pictures_and_hyperparameters(run, server):
    assert {"x_error/evaluation", "loss/training", "norm/gradient"} <= set(
        fetch(server, "data/plugin/scalars/tags")["sip"]
    )
    layout = fetch(server, "data/plugin/custom_scalars/layout")
    assert [category["title"] for category in layout["category"]] == ["Learning", "Solver health", "Speed"]
    assert list(fetch(server, "data/plugin/images/tags")["sip"]) == ["answers"]
    assert list(fetch(server, "data/plugin/histograms/tags")["sip"]) == ["updates"]
    request = urllib.request.Request(
        f"{server}data/plugin/hparams/experiment", data=b"{}", headers={"Content-Type": "application/json"}
    )
    with contextlib.closing(urllib.request.urlopen(request)) as reply:
        names = {entry["name"] for entry in json.load(reply)["hparamInfos"]}
    assert {"batch", "data", "optimizer", "learning_rate", "simulator", "solver"} <= names


@pytest.mark.skipif(BROWSER is None, reason="no Chromium is installed")
def test_page_shows_the_curves_in_a_browser(run, server):
    options = ("--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=15000", "--dump-dom")
    command = [BROWSER, *options, f"{server}#timeseries"]
    page = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout
    for part in ("x_error", "loss", "norm", "solver", "answers"):
        assert part in page
