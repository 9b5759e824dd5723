"""A recorded search of learning rates: short runs of every candidate on the shared runner."""

import argparse
import dataclasses
import json
import math

from experiments.experiment import rate_of
from experiments.run import Run
from experiments.runner import train_all
from keras_sip.comparison.records import RunFolder

# No training seed of a comparison, so that no method is tuned on the batches it is compared on.
SEARCH_SEED = 7_919
MOST_CANDIDATES = 8
# Far from the best rate, a search goes on in decades.
EXTENSION = 10
FILE = "rates.json"


def searched_rates(run: Run, fraction: float) -> dict[str, float]:
    """{method: rate} that gives the lowest error in x after a fraction of the run, for the methods in `options`.

    What has been found before is read from the run's `rates.json`; every candidate's error is written there, and its
    training in the folder `search`. A candidate that diverges counts as infinite.

    Args:
        run: The `Run` to find rates for.
        fraction: Of its steps or budget, which each candidate is trained for.
    """
    experiment, options, folder = run.experiment, run.options, run.folder
    found = _found(folder)
    short = argparse.Namespace(**vars(options))
    short.seeds = [SEARCH_SEED]
    if options.budget is None:
        short.steps = max(1, round(fraction * options.steps))
    else:
        short.budget = fraction * options.budget
    short.output = options.output / "search"
    length = {"steps": short.steps, "budget": short.budget}
    arguments = {"experiment": experiment.name, "methods": [], "seeds": short.seeds, **length}
    with RunFolder(short.output, arguments, free=("methods",), resume=True) as search_folder:
        search = dataclasses.replace(run, options=short, folder=search_folder)
        for method in options.methods:
            if method in found:
                continue
            with folder.recording_failure(f"search {method}"):
                found[method] = {**_best_rate(search, method), "seed": SEARCH_SEED, **length}
                folder.write_text(FILE, json.dumps(found, indent=2) + "\n")
    return {method: found[method]["rate"] for method in options.methods if method in found}


def _best_rate(search, method):
    """{"rate", "x_error": {rate: error}} of a method, trained in the run of the search."""
    variant = search.experiment.variants[method]
    own = rate_of(variant.optimizer(search.options))
    if variant.rate_factors == (1.0,):
        # Nothing to choose from.
        return {"rate": own, "x_error": {}}

    def error(candidates):
        """{rate: error in x at the end} of candidates `{name: (rate, Variant)}`."""
        search.options.methods = list(candidates)
        variants = {name: candidate for name, (_, candidate) in candidates.items()}
        experiment = dataclasses.replace(search.experiment, variants=variants)
        train_all(dataclasses.replace(search, experiment=experiment))
        return {rate: _final_error(search.folder, name) for name, (rate, _) in candidates.items()}

    errors = _search(method, variant, [float(f"{own * factor:.6g}") for factor in variant.rate_factors], error)
    best = min(errors, key=errors.get)
    if math.isinf(errors[best]):
        raise ArithmeticError(f"every rate from {min(errors):.2g} to {max(errors):.2g} diverged")
    return {"rate": best, "x_error": {f"{rate:.3g}": _plain(errors[rate]) for rate in sorted(errors)}}


def rates_table(folder: RunFolder) -> str:
    """What the search of a run found, a method a line, of at most 80 columns."""
    lines = ["learning rates searched: rate error in x, best marked *"]
    at_end = []
    for method, result in _found(folder).items():
        errors = result["x_error"]
        is_best = [math.isclose(float(rate), result["rate"], rel_tol=5e-3) for rate in errors]
        if len(errors) > 1 and (is_best[0] or is_best[-1]):
            at_end.append(method)
        cells = [
            f"{'*' if best else ''}{rate} {'diverged' if error is None else f'{error:.4f}'}"
            for best, (rate, error) in zip(is_best, errors.items(), strict=True)
        ]
        line = f"  {method}:"
        for cell in cells:
            if len(line) + 2 + len(cell) > 80:
                lines.append(line)
                line = "   "
            line += f"  {cell}"
        lines.append(line)
    if at_end:
        lines.append(f"the best rate is at an end of those tried, a better one may lie beyond: {', '.join(at_end)}")
    return "\n".join(lines) + "\n"


def _found(folder):
    path = folder.path / FILE
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def _search(method, variant, rates, error):
    """{rate: error}: the candidates, and more of them while the best one is at an end."""
    errors = {}
    while rates:
        # Without a plus: names of Keras have none.
        names = {f"{method}_{rate:.0e}".replace("+", ""): rate for rate in rates}
        errors |= error({name: (rate, _candidate(variant, rate)) for name, rate in names.items()})
        ordered = sorted(errors)
        best = min(errors, key=errors.get)
        rates = []
        if len(variant.rate_factors) > 1 and len(errors) < MOST_CANDIDATES and math.isfinite(errors[best]):
            ends = {ordered[0]: best / EXTENSION, ordered[-1]: best * EXTENSION}
            rates = [float(f"{ends[best]:.6g}")] if best in ends else []
    return errors


def _candidate(variant, rate):
    return dataclasses.replace(variant.with_rate(rate), label=f"{variant.label[:12]} {rate:.0e}")


def _final_error(folder, name):
    curve = folder.metrics.curve(name, SEARCH_SEED, "x_error")
    failed = f"{name} seed {SEARCH_SEED}" in folder.failures
    error = curve[max(curve)] if curve and not failed else math.inf
    return error if math.isfinite(error) else math.inf


def _plain(error):
    """JSON has no infinity."""
    return None if math.isinf(error) else error
