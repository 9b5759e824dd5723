"""Benchmarks import the applications by bare name; their own folder is on the path already (pyproject.toml)."""

import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).parents[2] / "applications"))
