"""The server over HTTP, in process: routes, the predict format, limits, and messages in three parts."""

import concurrent.futures
import json
import os
import re

import numpy as np
import pytest
from arithmetic import Arithmetic
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from starlette.testclient import TestClient

from keras_sip.serving.server.app import Limits, application

# More of them: FUZZ_CASES=10000 python -m pytest tests/serving/test_server_app.py -k any_body
CASES = int(os.environ.get("FUZZ_CASES", "200"))
PREDICT = "/v1/models/arithmetic:predict"


@pytest.fixture(scope="module")
def model():
    return Arithmetic()


@pytest.fixture(scope="module")
def client(model):
    limits = Limits(max_batch=8, max_queue=8, max_bytes=4096, max_steps=50)
    with TestClient(application(model, limits), raise_server_exceptions=False) as client:
        yield client


def refusal(response, code=400):
    """The three parts of an error."""
    assert response.status_code == code, response.text
    error = response.json()["error"]
    parts = re.fullmatch(r"(?s)Expected (.+?)\.\nReceived (.+?)\.\n(.+)", error)
    assert parts, error
    return parts.groups()


def test_instances_and_inputs_are_answered_in_their_own_form(client):
    by_instance = client.post(PREDICT, json={"instances": [[1, 2.5], [3, 4]]}).json()
    assert by_instance == {"predictions": [{"x": [2.0, 5.0], "valid": True}, {"x": [6.0, 8.0], "valid": True}]}
    by_input = client.post(PREDICT, json={"inputs": {"y": [[1, 2.5]]}, "signature_name": "serving_default"}).json()
    assert by_input == {"outputs": {"x": [[2.0, 5.0]], "valid": [True]}}


def test_a_single_output_stands_without_its_name(client):
    named = [{"y": [1, 2], "steps": 3}, {"y": [1, 2], "steps": 4}]
    answer = client.post(PREDICT, json={"signature_name": "refine", "instances": named}).json()
    assert answer == {"predictions": [[4.0, 5.0], [5.0, 6.0]]}
    inputs = {"y": [[1, 2], [1, 2]], "steps": 3}
    for name in ("refine", "shared"):
        answer = client.post(PREDICT, json={"signature_name": name, "inputs": inputs}).json()
        assert answer == {"outputs": [[4.0, 5.0], [4.0, 5.0]]}


def test_numbers_come_back_as_float32_writes_them(client):
    y = np.random.default_rng(0).normal(size=(4, 2)).astype("float32")
    outputs = client.post(PREDICT, json={"inputs": y.tolist()}).json()["outputs"]
    np.testing.assert_array_equal(np.array(outputs["x"], "float32"), 2 * y)


@pytest.mark.parametrize(
    "body, expected",
    [
        (b"", "a body in JSON"),
        (b'{"inputs": [[1, 2]', "a body in JSON"),
        (b"\xff\xfe", "a body in JSON"),
        (b"[" * 2000 + b"]" * 2000, "a body in JSON|an object with"),
        (b'{"inputs": [[1, NaN]]}', "a body in JSON, all of whose numbers are finite"),
        (b'{"inputs": [[1, 1e999]]}', "a body in JSON|finite numbers"),
        (b'{"inputs": [[1, 1e39]]}', "finite numbers in `y`, as float32 holds them"),
        (b"3", "an object with either"),
        (b'{"inputs": [[1, 2]], "instances": [[1, 2]]}', "an object with either"),
        (b'{"signature_name": "train", "inputs": [[1, 2]]}', '"signature_name" to be one of serving_default'),
        (b'{"signature_name": 3, "inputs": [[1, 2]]}', '"signature_name" to be one of'),
        (b'{"inputs": [[1, 2, 3]]}', r"`y` to be numbers of the shape \[batch, 2\]"),
        (b'{"inputs": [1, 2]}', r"`y` to be numbers of the shape"),
        (b'{"inputs": [[1], [1, 2]]}', r"`y` to be numbers of the shape"),
        (b'{"inputs": [["1", "2"]]}', r"`y` to be numbers of the shape"),
        (b'{"inputs": [[null, 2]]}', r"`y` to be numbers of the shape"),
        (b'{"inputs": [[true, false]]}', r"`y` to be numbers of the shape"),
        (b'{"inputs": {"z": [[1, 2]]}}', '"inputs" to be an object of y'),
        (b'{"inputs": []}', "`y` to be numbers of the shape"),
        (b'{"inputs": [[1,2],[1,2],[1,2],[1,2],[1,2],[1,2],[1,2],[1,2],[1,2]]}', "1 to 8 examples in a request"),
        (b'{"instances": []}', '"instances" to be a list of at least one'),
        (b'{"instances": {"y": [1, 2]}}', '"instances" to be a list'),
        (b'{"signature_name": "refine", "instances": [{"y": [1, 2]}]}', "each instance to have y, steps"),
        (b'{"signature_name": "refine", "inputs": {"y": [[1, 2]], "steps": -1}}', "`steps` from 0 to 50"),
        (b'{"signature_name": "refine", "inputs": {"y": [[1, 2]], "steps": 4000000000}}', "`steps` from 0 to 50"),
        (b'{"signature_name": "refine", "inputs": {"y": [[1, 2]], "steps": [1.5]}}', "`steps` to be numbers"),
        (b'{"signature_name": "refine", "inputs": {"y": [[1, 2]], "steps": [1, 2]}}', "inputs of one batch size"),
        (b'{"signature_name": "shared", "inputs": {"y": [[1, 2]], "steps": [1]}}', r"`steps` to be .* \[\]"),
        (
            b'{"signature_name": "shared", "instances": [{"y": [1, 2], "steps": 1}, {"y": [1, 2], "steps": 2}]}',
            "one `steps` for all instances",
        ),
    ],
)
def test_what_does_not_fit_is_refused_with_400(client, model, body, expected):
    before = len(model.batches)
    received, *_ = refusal(client.post(PREDICT, content=body))
    assert re.match(expected, received), received
    assert len(model.batches) == before


def test_other_routes_and_methods_are_refused(client):
    for method, path, code in [
        ("GET", PREDICT, 405),
        ("POST", "/v1/models/arithmetic", 405),
        ("GET", "/v1/models/other", 404),
        ("GET", "/", 404),
        ("GET", "/docs", 404),
        ("DELETE", "/v1/models/arithmetic", 405),
    ]:
        expected, *_ = refusal(client.request(method, path), code)
        assert expected.startswith("POST /v1/models/arithmetic:predict, GET ")


def test_status_and_health(client):
    assert client.get("/healthz").status_code == 200
    status = client.get("/v1/models/arithmetic").json()
    expected = {"version": "3", "state": "AVAILABLE", "status": {"error_code": "OK", "error_message": ""}}
    assert status == {"model_version_status": [expected]}


def test_a_body_that_is_too_large_is_refused_declared_or_not(client):
    body = b'{"inputs": [[1, 2]]}' + b" " * 5000
    assert "at most 4096 bytes" in refusal(client.post(PREDICT, content=body), 413)[0]
    assert "at most 4096 bytes" in refusal(client.post(PREDICT, content=iter([body])), 413)[0]


def test_bad_requests_among_good_ones_change_no_answer(client, model):
    bodies = [{"inputs": [[value, value]]} for value in range(8)]
    bodies[2] = {"inputs": [[1, "x"]]}
    bodies[5] = {"inputs": [[13, 13]]}
    model.gate.clear()
    with concurrent.futures.ThreadPoolExecutor(8) as threads:
        answers = [threads.submit(client.post, PREDICT, json=body) for body in bodies]
        model.gate.set()
        answers = [answer.result() for answer in answers]
    assert [answer.status_code for answer in answers] == [200, 200, 400, 200, 200, 500, 200, 200]
    assert "ArithmeticError" in refusal(answers[5], 500)[1] and "unlucky" not in answers[5].text
    for value, answer in enumerate(answers):
        if value not in (2, 5):
            assert answer.json()["outputs"]["x"] == [[2.0 * value] * 2]


def test_a_full_queue_is_answered_with_503(client, model):
    model.gate.clear()
    with concurrent.futures.ThreadPoolExecutor(24) as threads:
        answers = [threads.submit(client.post, PREDICT, json={"inputs": [[k, k]]}) for k in range(24)]
        # One batch of 8 at most is being run, and 8 wait.
        refused = [next(concurrent.futures.as_completed(answers)).result()]
        model.gate.set()
        codes = [answer.result().status_code for answer in answers]
    assert refusal(refused[0], 503) and refused[0].headers["retry-after"] == "1"
    assert set(codes) == {200, 503} and codes.count(503) >= 8


def test_metrics_count_what_was_answered(client, model):
    def value(line):
        return float(re.search(rf"(?m)^{re.escape(line)} (\S+)$", client.get("/metrics").text)[1])

    client.post(PREDICT, json={"inputs": [[1, 2]]})
    client.post(PREDICT, content=b"no JSON")
    good, bad = (
        f'keras_sip_requests_total{{code="{code}",signature="{signature}"}}'
        for code, signature in ((200, "serving_default"), (400, "none"))
    )
    before = value(good), value(bad), value("keras_sip_batch_examples_sum")
    client.post(PREDICT, json={"inputs": [[1, 2], [3, 4], [5, 6]]})
    client.post(PREDICT, content=b"no JSON")
    assert (value(good), value(bad), value("keras_sip_batch_examples_sum")) == (
        before[0] + 1,
        before[1] + 1,
        before[2] + 3,
    )
    assert value("keras_sip_queue_examples") == 0


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["y", "steps", "b64"]), inner),
    max_leaves=8,
)
NAMES = st.sampled_from(sorted(Arithmetic.signatures)) | VALUES
BODIES = st.fixed_dictionaries({}, optional={"inputs": VALUES, "instances": VALUES, "signature_name": NAMES})


@settings(deadline=None, derandomize=True, max_examples=CASES, suppress_health_check=list(HealthCheck))
@given(st.binary(max_size=60) | (BODIES | VALUES).map(lambda body: json.dumps(body).encode()))
def test_any_body_gets_an_answer_or_the_three_parts(client, body):
    response = client.post(PREDICT, content=body)
    if response.status_code != 200:
        refusal(response)
    assert "Traceback" not in response.text
