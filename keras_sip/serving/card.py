"""The model card and `metrics.json` that go with a trained model."""

import json
import os
import pathlib
import platform
import shlex
import sys

import keras
import numpy
import scipy
import tensorflow as tf

from keras_sip._version import __version__
from keras_sip.files import write_atomically
from keras_sip.untrusted import code, markdown, without_html

CARD, METRICS = "README.md", "metrics.json"

_TEMPLATE = """# {title}

{answers}

| | |
|---|---|
{rows}
{measured}
## Use

{use}

## Know before use

- Inputs are observations like those the model was trained on; outside of them its answers are unchecked.
- An observation with NaN or Inf in it is answered with NaN by `predict`, `refine` and exported models, which flag it
  (`valid` is false); the others are not affected. The command line refuses the file and names the examples.
- `refine` never raises an example's objective in y. Where the problem is ill-posed (many x explain y almost equally
  well), a lower objective can come with a larger error in x.
"""


def model_card(model, *, title, use, measured=None, facts=None):
    """The text of a model card in Markdown.

    Args:
        model: A `SIPModel`.
        title: Its heading.
        use: Markdown that shows how to load it.
        measured: {name: number or text} of results, or None.
        facts: {name: Markdown} of how it was made (command, seeds, time), or None.

    Names and texts of the model, which may have come from a file, are shown and never read as Markdown or HTML.
    """
    simulator = model.simulator
    rows = {
        "simulator": code(repr(simulator)),
        "solver": code(repr(model.solver)),
        **_prior(model),
        "training method": code(repr(model.method)),
        "network": f"{markdown(model.network.name)}, {model.network.count_params():,} weights",
        **{markdown(name): _cell(value) for name, value in (facts or {}).items()},
        "versions": ", ".join(f"{name} {version}" for name, version in versions().items()),
        "machine": ", ".join(f"{value} {name}" for name, value in machine().items()),
    }
    return _TEMPLATE.format(
        title=markdown(title),
        answers=(
            f"Finds x `[batch, {_shape(simulator.x_shape)}]` of an observation y "
            f"`[batch, {_shape(simulator.y_shape)}]` ({simulator.dtype}), where y = P(x)."
        ),
        rows="\n".join(f"| {name} | {value} |" for name, value in rows.items()),
        measured=_section(measured) if measured else "",
        use=use,
    )


def write_card(folder, card, metrics):
    """`README.md` and `metrics.json` in a folder that exists."""
    folder = pathlib.Path(folder)
    write_atomically(folder / CARD, card.encode())
    write_atomically(folder / METRICS, (json.dumps(metrics, indent=2) + "\n").encode())


def versions():
    """{package: version} of what computed the numbers."""
    packages = {package.__name__: package.__version__ for package in (tf, keras, numpy, scipy)}
    return {"python": platform.python_version(), "keras_sip": __version__, **packages}


def machine():
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return {"processor": platform.machine(), "cores": os.cpu_count(), "memory_gib": round(memory, 1)}


def command():
    """The command line of this program, with the program's path as short as it can be."""
    program = pathlib.Path(sys.argv[0])
    if program.is_absolute() and program.is_relative_to(pathlib.Path.cwd()):
        program = program.relative_to(pathlib.Path.cwd())
    return shlex.join(["python", str(program), *sys.argv[1:]])


def _section(measured):
    lines = "\n".join(f"| {markdown(name)} | {_number(value)} |" for name, value in measured.items())
    return f"\n## Measured\n\n| | |\n|---|---|\n{lines}\n"


def _prior(model):
    """What its solver takes x to be before y is seen, where it does."""
    if not hasattr(model.solver, "prior_of_posterior"):
        return {}
    return {"prior": markdown(model.solver.prior_of_posterior(model.simulator).summary)}


def _number(value):
    return f"{value:.4g}" if isinstance(value, float) else markdown(value)


def _cell(text):
    return without_html(text).replace("|", "\\|")


def _shape(shape):
    return ", ".join(map(str, shape))
