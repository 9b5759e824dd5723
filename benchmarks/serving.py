"""Serving over HTTP: requests per second and their times, with micro-batches and without, beside bare calls.

  python benchmarks/serving.py
  python benchmarks/serving.py --models poisson sine --clients 1 32 --requests 256 --output runs/serving.json

Two servers of each model run on loopback, `python -m keras_sip serve NAME`, one with batches of up to 32 examples, one
with `--max-batch 1`. Clients in one process keep a connection each and send one example after the other, until all
requests of a turn are answered; the servers take turns. Answers are read and counted, not their numbers: the clients
share the machine with the server. "SavedModel" is the signature called in this process, without HTTP or JSON, on
one example and on 32. Times are seen by the clients; "processor" is what a request took of the server's cores, all its
threads together, which other programs on the machine change less. Needs the extra `serve`.
"""

import asyncio
import contextlib
import json
import os
import pathlib
import re
import subprocess
import sys
import time
from typing import NamedTuple

import numpy as np
import orjson
import tensorflow as tf

import keras_sip
from _command_line import Parser
from _timing import interleaved, machine, ratio, table
from keras_sip.serving.pretrained import SAVED_MODEL, find_pretrained

BATCH = 32
# Throughput with batches over that without, at 32 clients.
GAIN, AT = 3.0, 32
REFINING_STEPS = 5
SERVERS = {"batches": BATCH, "one by one": 1}


class Case(NamedTuple):
    """A signature of a model, the body of a request for one example, and a bare call on `batch` examples."""

    model: str
    signature: str
    body: bytes
    call: object

    @property
    def name(self):
        return f"{self.model} {self.signature}"


def main(argv=None):
    options = parse_options(argv)
    print(f"{machine()}\n")
    results = {"machine": machine(), "cases": {}}
    for model in options.models:
        cases = cases_of(model)
        with contextlib.ExitStack() as stack:
            servers = {name: stack.enter_context(running(model, size)) for name, size in SERVERS.items()}
            for case in cases:
                measured = measure(case, servers, options)
                results["cases"][case.name] = measured
                print(shown(case, measured), end="\n\n", flush=True)
    if options.output is not None:
        options.output.parent.mkdir(parents=True, exist_ok=True)
        options.output.write_text(json.dumps(results, indent=1))


def cases_of(model):
    """The signatures that are measured."""
    path = find_pretrained(model)
    y = keras_sip.load_pretrained(model).simulator.sample(BATCH, (0, 0))["y"].numpy()
    functions = tf.saved_model.load(str(path / SAVED_MODEL)).signatures
    found = []
    for signature in ("infer", "refine"):
        steps = {"steps": REFINING_STEPS} if signature == "refine" else {}
        body = orjson.dumps(
            {"signature_name": signature, "inputs": {"y": y[:1], **steps}}, option=orjson.OPT_SERIALIZE_NUMPY
        )

        def call(examples, function=functions[signature], steps=steps):
            return function(y=tf.constant(y[:examples]), **{k: tf.constant(v) for k, v in steps.items()})["x"].numpy()

        found.append(Case(model, signature, body, call))
    return found


@contextlib.contextmanager
def running(model, max_batch):
    """(port, process id) of a server."""
    words = [sys.executable, "-m", "keras_sip", "serve", model, "--port", "0", "--max-batch", str(max_batch)]
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
    server = subprocess.Popen(words, stdout=subprocess.PIPE, text=True, env=environment)
    try:
        server.stdout.readline()
        yield int(re.search(r":(\d+)/", server.stdout.readline())[1]), server.pid
    finally:
        server.terminate()
        server.wait(60)


def measure(case, servers, options):
    """{"bare": ..., clients: {server: {"rate", "processor" [repeats], "seconds" of each request}}}."""
    path = f"/v1/models/{case.model}:predict"
    for port, _ in servers.values():  # Batches of all sizes have been run once.
        for clients in (1, 2, 4, 8, 16, 32):
            asyncio.run(load(port, path, case.body, clients, clients))
    measured = {}
    for clients in options.clients:
        turns = {name: {"rate": [], "processor": [], "seconds": []} for name in servers}
        for _ in range(options.repeats):
            for name, (port, process) in servers.items():
                before, start = processor_seconds(process), time.perf_counter()
                seconds = asyncio.run(load(port, path, case.body, clients, options.requests))
                turns[name]["rate"].append(len(seconds) / (time.perf_counter() - start))
                turns[name]["processor"].append((processor_seconds(process) - before) / len(seconds))
                turns[name]["seconds"] += seconds
        measured[clients] = turns
    bare = interleaved({n: lambda n=n: case.call(n) for n in (1, BATCH)}, options.repeats)
    measured["bare"] = {n: (n / seconds).tolist() for n, seconds in bare.items()}
    return measured


def processor_seconds(process):
    """User and system time of a process; Linux alone tells it of another one without a further package."""
    fields = pathlib.Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11:13])) / os.sysconf("SC_CLK_TCK")


async def load(port, path, body, clients, requests):
    """Seconds of each of `requests` requests, sent over so many connections."""
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    message = f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body
    left = iter(range(requests))
    seconds = []

    async def client():
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=2**20)
        for _ in left:
            start = time.perf_counter()
            writer.write(message)
            header = await reader.readuntil(b"\r\n\r\n")
            await reader.readexactly(int(re.search(rb"content-length: (\d+)", header)[1]))
            if not header.startswith(b"HTTP/1.1 200"):
                raise RuntimeError(header.decode())
            seconds.append(time.perf_counter() - start)
        writer.close()
        await writer.wait_closed()

    await asyncio.gather(*(client() for _ in range(clients)))
    return seconds


def shown(case, measured):
    """The table of a case, and whether the gain is kept."""
    clients = [key for key in measured if key != "bare"]
    rows = []
    for name in SERVERS:
        cells = [f"{np.median(measured[count][name]['rate']):.0f}" for count in clients]
        times = [f"{1e3 * np.quantile(measured[count][name]['seconds'], 0.99):.0f}" for count in clients]
        used = [f"{1e3 * np.median(measured[count][name]['processor']):.1f}" for count in clients]
        rows += [[name, *cells], ["  99 % within, ms", *times], ["  processor, ms", *used]]
    rows += [[f"SavedModel, batch {n}", f"{np.median(rate):.0f}"] for n, rate in measured["bare"].items()]
    gains = {
        # Seconds, so that the ratio of turns is that of neighbours.
        count: ratio(*(1 / np.array(measured[count][name]["rate"]) for name in ("one by one", "batches")))
        for count in clients
    }
    rows.append(["batches / one by one", *map(str, gains.values())])
    used = [ratio(*(np.array(measured[c][name]["processor"]) for name in ("one by one", "batches"))) for c in clients]
    rows.append(["  in processor time", *map(str, used)])
    if AT in gains:
        rows.append([f"  at least {GAIN:.0f} at {AT}", *[""] * clients.index(AT), verdict(gains[AT])])
    heading = f"{case.name}, examples a second; a request is {len(case.body) / 1024:.1f} KiB"
    return f"{heading}\n\n{table(['clients', *map(str, clients)], rows, label_width=24)}"


def verdict(gain):
    return "kept" if gain.value >= GAIN else "below"


def parse_options(argv):
    parser = Parser(description=__doc__)
    parser.add_argument("--models", nargs="+", default=["poisson", "sine"], help="that ship (default: poisson sine)")
    parser.add_count("--clients", [1, AT], "connections")
    parser.add_count("--requests", 256, "requests of one turn")
    parser.add_count("--repeats", 5, "turns of each server")
    parser.add_output()
    return parser.parse_args(argv)


if __name__ == "__main__":
    main()
