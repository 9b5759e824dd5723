"""L-BFGS in graphs: the objective is there once, however often the line search calls it."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_sip

SOLVER = keras_sip.LBFGS(max_steps=3)


class Counting(keras_sip.Exponential):
    """Counts how often its simulation is traced."""

    calls = 0

    def forward(self, x, context=None):
        self.calls += 1
        return super().forward(x, context)


def traced(simulator, solver):
    """(graph definition, calls of the simulation while tracing) of a solver in a plain graph."""
    sample = simulator.sample(4, (0, 1))
    solve = tf.function(lambda x, y: solver.solve(simulator, x, y).x, autograph=False)
    simulator.calls = 0
    definition = solve.get_concrete_function(0.5 * sample["x"], sample["y"]).graph.as_graph_def()
    return definition, simulator.calls


def test_the_simulation_is_traced_no_more_often_for_more_line_search():
    few = traced(Counting(), SOLVER.with_options(line_search_steps=1))[1]
    many = traced(Counting(), SOLVER.with_options(line_search_steps=40))[1]
    # The scale, the objective, the slope along the gradient, the columns of J and the fallback of failures hold it.
    assert few == many <= 8


@pytest.mark.parametrize("prefers_xla, expected", [(True, 2), (False, 0)])
def test_only_objective_and_slope_are_compiled_in_a_plain_graph(prefers_xla, expected):
    simulator = Counting()
    simulator.prefers_xla = prefers_xla
    definition, _ = traced(simulator, SOLVER)
    compiled = {function.signature.name for function in definition.library.function if _is_compiled(function)}
    assert len(compiled) == expected
    # Yet the line search calls the objective at many places.
    places = [node for function in definition.library.function for node in function.node_def]
    calls = [node for node in places if node.attr["f"].func.name in compiled]
    assert len(calls) > 2 * expected or not expected


def _is_compiled(function):
    return function.attr["_XlaMustCompile"].b


def test_it_trains_convolutions_as_it_does_without_compiling():
    """The network is none of dense layers, so physics and solver would be one program of their own."""
    weights = []
    for eagerly in (True, False):
        simulator = keras_sip.RotatedSine()
        network = keras.Sequential(
            [
                keras.Input((2,)),
                keras.layers.Reshape((2, 1)),
                keras.layers.Conv1D(4, 2, padding="same", kernel_initializer=keras.initializers.GlorotUniform(1)),
                keras.layers.Flatten(),
                keras.layers.Dense(2, kernel_initializer=keras.initializers.GlorotUniform(2)),
            ]
        )
        model = keras_sip.SIPModel(network, simulator, SOLVER.with_options(max_steps=1))
        model.compile(keras.optimizers.SGD(0.1), run_eagerly=eagerly)
        sample = simulator.sample(8, (0, 2))
        model.fit(sample["y"].numpy(), batch_size=8, epochs=2, shuffle=False, verbose=0)
        weights.append([value.numpy() for value in model.trainable_variables])
    for ours, expected in zip(weights[1], weights[0], strict=True):
        # Two steps and float32; the line search amplifies rounding.
        np.testing.assert_allclose(ours, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "solver, expected",
    [
        (keras_sip.GaussNewton(), True),
        (SOLVER, False),
        (keras_sip.LimitedStep(SOLVER), False),
        (keras_sip.Fallback(keras_sip.GaussNewton(), SOLVER), False),
        (keras_sip.Chain(keras_sip.GaussNewton(), SOLVER), False),
        (keras_sip.Chain(keras_sip.GaussNewton(), keras_sip.Newton()), True),
    ],
)
def test_a_solver_made_of_solvers_is_one_program_if_all_of_them_are(solver, expected):
    assert solver.compiles_as_one is expected
