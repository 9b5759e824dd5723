"""Benchmarks are scripts that import their neighbours, and the applications, by bare name."""

import pathlib
import sys

ROOT = pathlib.Path(__file__).parents[2]
sys.path[:0] = [str(ROOT / "benchmarks"), str(ROOT / "applications")]
