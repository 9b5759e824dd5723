"""`python -m keras_sip serve`: a model behind HTTP on this machine."""

import argparse
import gc
import importlib.util
import pathlib
import socket

from keras_sip.errors import check_number, check_positive_int, three_part
from keras_sip.untrusted import one_line

PACKAGES = ("starlette", "uvicorn", "orjson", "prometheus_client")
LOOPBACK = "127.0.0.1"
# For what was accepted before the signal came.
SECONDS_TO_STOP = 30
# More are answered with 503 before their bodies are read.
CONNECTIONS = 1000


def add_command(commands) -> None:
    """The subcommand and its options."""
    parser = commands.add_parser(
        "serve", help="answer requests over HTTP", description=serve.__doc__.splitlines()[0] if serve.__doc__ else None
    )
    add = parser.add_argument
    add(
        "name",
        help="of a model that ships, such as poisson, or the folder of an export or of its versions",
    )
    add("--port", type=int, default=8501, help="0 takes a free one, and says which (default: %(default)s)")
    add("--host", default=LOOPBACK, help="address to listen at (default: %(default)s, this machine alone)")
    add("--max-batch", type=int, default=32, help="examples answered together, and in a request (default: %(default)s)")
    add("--max-wait", type=float, default=2.0, help="milliseconds to wait for others (default: %(default)s)")
    add("--max-queue", type=int, default=256, help="examples that may wait; then 503 (default: %(default)s)")
    add("--max-mib", type=float, default=16.0, help="size of a request; then 413 (default: %(default)s)")
    add("--max-steps", type=int, default=1000, help="that a request may ask of refine (default: %(default)s)")
    add("--trust", type=pathlib.Path, metavar="KEY", help="public key (PEM) that must have signed the model")
    add("--models", type=pathlib.Path, metavar="FOLDER", help="where the models are (default: those that ship)")
    parser.set_defaults(command=serve)


def serve(options: argparse.Namespace) -> None:
    """Answer requests in TensorFlow Serving's REST format until Ctrl-C or SIGTERM, then finish those accepted."""
    check_packages()
    import uvicorn

    from keras_sip.serving.server.app import Limits, application
    from keras_sip.serving.server.served_model import ServedModel, find_model
    from keras_sip.serving.signing import verify_signature

    limits = Limits(
        max_batch=check_positive_int("--max-batch", options.max_batch),
        max_wait=check_number("--max-wait", options.max_wait) / 1e3,
        max_queue=check_positive_int("--max-queue", options.max_queue, minimum=options.max_batch),
        max_bytes=int(check_number("--max-mib", options.max_mib, exclusive=True) * 2**20),
        max_steps=check_positive_int("--max-steps", options.max_steps),
    )
    check_number("--port", options.port, maximum=65535)
    found = find_model(options.name, options.models)
    if options.trust is not None:
        verify_signature(found.folder, options.trust)
    model = ServedModel(found)
    model.warm_up(limits.max_batch)
    # Each number of a request is an object for a moment: the collector shall not look through all of TensorFlow for it.
    gc.collect()
    gc.freeze()
    with _listening(options.host, options.port) as listener:
        host, port = listener.getsockname()[:2]
        print(f"{found.name}, version {found.version}: {', '.join(sorted(map(one_line, model.signatures)))}")
        host = f"[{host}]" if ":" in host else host
        print(f"Serving at http://{host}:{port}/v1/models/{found.name}:predict. Ctrl-C stops.", flush=True)
        config = uvicorn.Config(
            application(model, limits),
            log_level="warning",
            access_log=False,
            limit_concurrency=CONNECTIONS,
            timeout_graceful_shutdown=SECONDS_TO_STOP,
        )
        try:
            uvicorn.Server(config).run(sockets=[listener])
        except KeyboardInterrupt:
            # The signal, which uvicorn passes on once it has closed.
            print("Stopped; what was accepted is answered.")


def check_packages() -> None:
    """`ImportError` in three parts unless the extra `serve` is installed."""
    missing = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise ImportError(
            three_part(
                f"the packages {', '.join(PACKAGES)}, to serve",
                f"a Python environment without {', '.join(missing)}",
                'Install them from a checkout of keras_sip: pip install ".[serve]"',
            )
        )


def _listening(host, port):
    try:
        return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except (OSError, UnicodeError) as error:
        raise OSError(
            three_part(
                f"to listen at {one_line(host)}, port {port}",
                one_line(error),
                "Choose another --port or --host, or end what listens there.",
            )
        ) from None
