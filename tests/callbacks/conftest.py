"""Tests of the callbacks import the run they kill by its bare name, as the processes that run it do."""

import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).parent))
