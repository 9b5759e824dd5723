"""Copies and pickles of solvers are equal solvers, compositions too."""

import copy
import pickle

import pytest

import problems


@pytest.mark.parametrize("solver", problems.SOLVERS, ids=repr)
def test_copies_and_pickles_are_equal(solver):
    for again in (copy.copy(solver), copy.deepcopy(solver), pickle.loads(pickle.dumps(solver))):
        assert again == solver and repr(again) == repr(solver) and hash(again) == hash(solver)
