"""A real server process with a real model: `python -m keras_sip serve`."""

import concurrent.futures
import json
import os
import re
import signal
import subprocess
import sys
import urllib.request

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_sip
from keras_sip import __main__ as command_line
from keras_sip.serving.server.served_model import ServedModel, find_model, padded_size


class Gains(keras_sip.Simulator):
    """y = gain * x, without samples."""

    x_shape, y_shape, prefers_xla, context_shape = (2,), (2,), False, {"gain": (2,)}

    def forward(self, x, context=None):
        return context["gain"] * x


@pytest.fixture(scope="module")
def versions(tmp_path_factory):
    """A folder of versions 2 and 10 of a model: (folder, model)."""
    inputs = keras.Input((2,))
    model = keras_sip.SIPModel(keras.Model(inputs, keras.layers.Dense(2)(inputs)), Gains(), keras_sip.GaussNewton())
    folder = tmp_path_factory.mktemp("served") / "gains"
    model.export(folder / "10")
    (folder / "2").mkdir()
    (folder / "2" / "saved_model.pb").write_bytes(b"of an earlier day")
    return folder, model


def request_of(y, gain, steps):
    rows = zip(y.tolist(), gain.tolist(), steps, strict=True)
    return [{"y": each, "context_gain": factor, "steps": count} for each, factor, count in rows]


def test_the_process_answers_batches_and_stops_when_it_is_told(versions):
    folder, model = versions
    command = [sys.executable, "-m", "keras_sip", "serve", str(folder), "--port", "0", "--max-wait", "20"]
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
    server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
    try:
        assert server.stdout.readline().startswith("gains, version 10: infer, refine, refine_int64, serving_default")
        address = re.search(r"http://127\.0\.0\.1:\d+", server.stdout.readline())[0]
        rng = np.random.default_rng(0)
        y, gain = (rng.uniform(1, 2, size=(6, 2)).astype("float32") for _ in range(2))
        steps = [0, 1, 2, 0, 1, 2]

        def ask(row):
            body = {"signature_name": "refine", "instances": request_of(y, gain, steps)[row : row + 1]}
            data = json.dumps(body).encode()
            with urllib.request.urlopen(f"{address}/v1/models/gains:predict", data, timeout=60) as answer:
                return json.load(answer)["predictions"][0]

        with concurrent.futures.ThreadPoolExecutor(6) as threads:
            answers = list(threads.map(ask, range(6)))
        start = model.predict({"y": y, "context": {"gain": gain}}, verbose=0)
        for row, answer in enumerate(answers):
            # A linear problem: one step of Gauss-Newton solves it.
            expected = start[row] if steps[row] == 0 else y[row] / gain[row]
            np.testing.assert_allclose(answer["x"], expected, rtol=1e-5)
            assert answer["valid"] is True
        with urllib.request.urlopen(f"{address}/v1/models/gains", timeout=60) as answer:
            assert json.load(answer)["model_version_status"][0]["version"] == "10"
        server.send_signal(signal.SIGTERM)
        output, errors = server.communicate(timeout=60)
    finally:
        server.kill()
        server.wait()
    assert server.returncode == 0, errors
    assert output == "Stopped; what was accepted is answered.\n" and "Traceback" not in errors


def test_the_graph_runs_for_powers_of_two_alone(versions, monkeypatch):
    served = ServedModel(find_model(str(versions[0])))
    sizes = []
    infer = served._functions["infer"]

    def counting(**inputs):
        sizes.append(inputs["y"].shape[0])
        return infer(**inputs)

    monkeypatch.setitem(served._functions, "infer", counting)
    inputs = {name: np.ones((7, 2), "float32") for name in ("y", "context_gain")}
    whole = infer(**{name: tf.constant(value) for name, value in inputs.items()})["x"].numpy()
    for examples in range(1, 8):
        x = served("infer", {name: value[:examples] for name, value in inputs.items()})["x"]
        # Products with matrices of other sizes round otherwise.
        np.testing.assert_allclose(x, whole[:examples], rtol=1e-6)
    assert sizes == [padded_size(examples) for examples in range(1, 8)] == [1, 2, 4, 4, 8, 8, 8]


def test_what_cannot_be_served_is_refused_in_three_parts(versions, tmp_path, capsys):
    folder, _ = versions
    (tmp_path / "empty").mkdir()
    (tmp_path / "a b").mkdir()
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "saved_model.pb").write_bytes(b"no graph")
    for words in (
        ["no_such_model"],
        [str(tmp_path / "empty")],
        [str(tmp_path / "a b")],
        [str(broken)],
        [str(folder), "--port", "70000"],
        [str(folder), "--max-batch", "0"],
        [str(folder), "--max-queue", "4"],
        [str(folder), "--trust", str(tmp_path / "public.pem")],
    ):
        assert command_line.main(["serve", *words]) == 2
        assert re.match(r"(?s)Expected .+\nReceived .+\n.+", capsys.readouterr().err), words


def test_damaged_files_are_not_served(versions, capsys):
    variables = next((versions[0] / "10" / "variables").glob("*.data*"))
    whole = variables.read_bytes()
    try:
        variables.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
        assert command_line.main(["serve", str(versions[0])]) == 2
        assert "changed: 'variables/" in capsys.readouterr().err
    finally:
        variables.write_bytes(whole)


def test_without_the_packages_it_says_what_to_install(versions, monkeypatch, capsys):
    monkeypatch.setattr("keras_sip.serving.server.command.PACKAGES", ("no_such_package",))
    assert command_line.main(["serve", str(versions[0])]) == 2
    assert 'pip install ".[serve]"' in capsys.readouterr().err
