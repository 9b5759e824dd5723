"""Compare what an exported program gave on another machine with what it should give; needs NumPy only.

  python benchmarks/compare_outputs.py runs/export/sip_step

Reads FOLDER/out.npz, the outputs of the last of as many calls as FOLDER/program.json says, and FOLDER/expected.npz.
Deviations are relative to the largest entry of an output. What the program computes decides:

- agrees: within the tolerance;
- rounding: not, but within ten times the most that two ways of computing any of them differ by on the machine that made
  the files. Conjugate gradients amplify rounding errors from step to step, without limit;
- DEVIATES: neither.

The state that goes with it (weights, optimizer, statistics) is shown only: a weight whose gradient is zero in exact
arithmetic, such as a bias before a batch norm, takes steps of Adam along rounding errors, and nothing depends on it.
"""

import argparse
import json
import pathlib
import sys

import numpy as np

STATE_SHOWN = 5


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--tolerance", type=float, default=1e-4, help="relative (default: %(default)s)")
    options = parser.parse_args(argv)
    results, state = compare(options.folder)
    most_rounding = max(rounding for _, _, rounding in results)
    verdicts = []
    print(f"{'':40} {'deviation':>10} {'rounding':>10}")
    for name, deviation, rounding in results:
        verdicts.append(verdict(deviation, most_rounding, options.tolerance))
        print(f"{name:40} {deviation:10.1e} {rounding:10.1e}  {verdicts[-1]}")
    if state:
        print(f"state, largest {STATE_SHOWN} of {len(state)}; median {np.median([entry[1] for entry in state]):.1e}")
    for name, deviation, rounding in sorted(state, key=lambda entry: -entry[1])[:STATE_SHOWN]:
        print(f"  {name:38} {deviation:10.1e} {rounding:10.1e}")
    return 1 if "DEVIATES" in verdicts else 0


def compare(folder):
    """[(name, deviation, rounding)] of the program's results, and the same of its state."""
    program = json.loads((folder / "program.json").read_text())
    with np.load(folder / "out.npz") as got, np.load(folder / "expected.npz") as expected:
        deviations = list(map(relative_deviation, got.values(), expected.values()))
    entries = list(zip(program["outputs"], deviations, program["rounding"], strict=True))
    return entries[: program["num_results"]], entries[program["num_results"] :]


def verdict(deviation, rounding, tolerance):
    if deviation <= tolerance:
        return "agrees"
    return "rounding" if deviation <= 10 * rounding else "DEVIATES"


def relative_deviation(got, expected):
    """max |got - expected| / max |expected|; infinite where shapes differ or a number is not finite."""
    if got.shape != expected.shape or not np.all(np.isfinite(got)):
        return np.inf
    largest = np.max(np.abs(expected), initial=0)
    difference = np.max(np.abs(np.subtract(got, expected, dtype="float64")), initial=0)
    return float(difference / largest) if largest > 0 else float(difference)


if __name__ == "__main__":
    sys.exit(main())
