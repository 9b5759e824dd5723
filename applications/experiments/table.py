"""The table at the end of a run: methods by iterations, in a terminal's 80 columns."""

import statistics

LABEL_WIDTH, CELL_WIDTH, MAX_CELLS = 20, 8, 7


def comparison_table(experiment, metrics, methods, heading):
    """Errors in x of `methods`, their ratio to the reference, and what they cost, as text of at most 80 columns."""
    errors = {method: _by_step(metrics, method, "x_error") for method in methods}
    training = {method: _by_step(metrics, method, "train_x_error") for method in methods}
    steps = _shown_steps(experiment, errors)
    labels = {method: experiment.variants[method].label for method in methods}

    lines = [
        heading,
        f"error in x on {experiment.evaluation_examples} fixed examples, mean over seeds +- half their range;",
        "training: running mean of the last ten training batches",
        "",
        _line("after step", steps, str),
    ]
    for method in methods:
        lines.append(_line(labels[method], [_mean(errors[method].get(step)) for step in steps]))
        if len(metrics.seeds(method)) > 1:
            lines.append(_line("  +-", [_half_range(errors[method].get(step)) for step in steps]))
        lines.append(_line("  training", [_mean(training[method].get(step)) for step in steps]))
    others = [method for method in methods if method != experiment.reference]
    if others and experiment.reference in methods:
        lines += ["", f"error of {labels[experiment.reference]} / error of the method (mean over common seeds)"]
        for method in others:
            for name, values in ((labels[method], errors), ("  training", training)):
                ratios = [_ratio(values[experiment.reference].get(step), values[method].get(step)) for step in steps]
                lines.append(_line(name, ratios))
    lines += ["", _line("cost (mean of seeds)", ["steps/s", "train s", "compile", "steps", "seeds"], str)]
    lines += [_line(labels[method], _cost(metrics, method), str) for method in methods]
    return "\n".join(lines) + "\n"


def _by_step(metrics, method, column):
    """{step: {seed: value}} of a method."""
    table = {}
    for seed in metrics.seeds(method):
        for step, value in metrics.curve(method, seed, column).items():
            table.setdefault(step, {})[seed] = value
    return table


def _shown_steps(experiment, errors):
    """The last of the experiment's table steps that were reached, and the very last step."""
    reached = set().union(*errors.values()) - {0}
    shown = sorted(reached & {*experiment.table_steps, max(reached, default=0)})
    return shown[-MAX_CELLS:]


def _mean(by_seed):
    return statistics.fmean(by_seed.values()) if by_seed else None


def _half_range(by_seed):
    return (max(by_seed.values()) - min(by_seed.values())) / 2 if by_seed else None


def _ratio(reference, by_seed):
    """Mean over the seeds that both have: equal starts and equal data are compared."""
    common = [seed for seed in set(reference or ()) & set(by_seed or ()) if by_seed[seed] > 0]
    return statistics.fmean(reference[seed] / by_seed[seed] for seed in common) if common else None


def _cost(metrics, method):
    """Steps a second (without the first of each start), seconds of training and of compiling, steps, seeds."""
    runs = [metrics.run(method, seed) for seed in metrics.seeds(method)]
    last = [rows[-1] for rows in runs]
    rates = [_steps_per_second(rows) for rows in runs]
    return [
        f"{statistics.fmean(rates):.3g}",
        f"{statistics.fmean(row['train_seconds'] for row in last):.0f}",
        f"{statistics.fmean(row['compile_seconds'] for row in last):.0f}",
        str(max(row["step"] for row in last)),
        str(len(runs)),
    ]


def _steps_per_second(rows):
    """From the median time of a step, which pauses of the machine do not move."""
    pairs = zip(rows, rows[1:], strict=False)
    times = [
        (b["train_seconds"] - a["train_seconds"]) / (b["step"] - a["step"])
        for a, b in pairs
        if b["compile_seconds"] == a["compile_seconds"]
    ]
    return 1 / statistics.median(times) if times else float("nan")


def _line(label, cells, form=None):
    texts = [(form or _number)(cell) if cell is not None else "" for cell in cells]
    return (f"{label[:LABEL_WIDTH]:<{LABEL_WIDTH}}" + "".join(f"{text:>{CELL_WIDTH}}" for text in texts)).rstrip()


def _number(value):
    """Five places or fewer: columns are eight wide."""
    if 0 < abs(value) < 1e-3:
        return f"{value:.0e}"
    return f"{value:.4f}" if abs(value) < 10 else f"{value:.3g}"
