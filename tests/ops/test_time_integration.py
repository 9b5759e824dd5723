import numpy as np
import pytest
import scipy.integrate
import tensorflow as tf

from keras_sip import ops
from keras_sip.ops import derivatives

NUM_STEPS, BATCH = 5, 3


def pendulum_rate(state, torque, time):
    return {"angle": state["speed"], "speed": torque - tf.sin(state["angle"]) - 0.1 * state["speed"] * time}


def test_runge_kutta_is_scipys_solution_with_order_four(mode):
    def end(num_steps):
        start = {"angle": tf.constant(1.0, tf.float64), "speed": tf.constant(0.5, tf.float64)}
        step = ops.runge_kutta_4(lambda s, u, t: pendulum_rate(s, 0.3, t), 4 / num_steps, start_time=1.0)
        last = ops.integrate(step, start, num_steps=num_steps)
        return tf.stack([last["angle"], last["speed"]])

    def rate(time, state):
        return [state[1], 0.3 - np.sin(state[0]) - 0.1 * state[1] * time]

    expected = scipy.integrate.solve_ivp(rate, (1, 5), [1.0, 0.5], rtol=1e-12, atol=1e-12, method="DOP853").y[:, -1]
    errors = [np.max(np.abs(mode(lambda n=n: end(n))() - expected)) for n in (20, 40)]
    assert errors[1] < 1e-5
    assert 3.7 < np.log2(errors[0] / errors[1]) < 4.3


def test_a_step_in_float64_has_the_length_that_was_asked_for():
    for value, function in ((0.3, lambda s, u, t: tf.ones_like(s)), (0.045, lambda s, u, t: t + 0 * s)):
        end = ops.integrate(ops.runge_kutta_4(function, 0.1), tf.zeros([1], tf.float64), num_steps=3)
        np.testing.assert_allclose(end, value, rtol=1e-14)


def looped(x, coefficient, start, *, spacing=None, num_steps=NUM_STEPS):
    """A damped wave driven by x `[B, num_steps]`, its speed a tensor closed over; gathers with constant indices."""
    neighbours = tf.constant([1, 2, 0])

    def step(state, value, k):
        force, source = value
        u, v = state
        curvature = tf.gather(u, neighbours, axis=1) - u
        v = v + 0.3 * (coefficient * curvature - u**3) + force[:, None] * tf.one_hot(source, 3, dtype=u.dtype)
        return u + 0.3 * v * tf.cast(1 + k, u.dtype) / 5, v

    inputs = (tf.transpose(x), tf.range(num_steps) % 3)
    return step, (start, tf.sin(start)), inputs, spacing


def integrated(x, coefficient, start, **options):
    step, state, inputs, spacing = looped(x, coefficient, start, **options)
    last, saved = ops.integrate(step, state, inputs, save_at=[2, 4], steps_per_checkpoint=spacing)
    return tf.concat([last[0], last[1], saved[0][0], saved[1][1]], axis=1)


def unrolled(x, coefficient, start):
    step, state, inputs, _ = looped(x, coefficient, start)
    states = [state]
    for k in range(NUM_STEPS):
        states.append(step(states[-1], tf.nest.map_structure(lambda entry, k=k: entry[k], inputs), k))
    return tf.concat([states[-1][0], states[-1][1], states[2][0], states[4][1]], axis=1)


def as_function_of_one_vector(simulate):
    """z `[B, 11]` -> y: inputs, what is closed over and the first state all depend on z."""
    return lambda z: simulate(z[:, :NUM_STEPS], tf.exp(z[:, NUM_STEPS : NUM_STEPS + 3]), z[:, NUM_STEPS + 3 :])


def products(simulate, *, second=True):
    f = as_function_of_one_vector(simulate)

    def gradient(z):
        return derivatives.gradient(lambda z: tf.reduce_sum(tf.square(f(z)), axis=1), z)[1]

    def all_products(z, v):
        y, product, transposed = derivatives.linearize(f, z)
        firsts = y, product(v), transposed(y)
        return (*firsts, derivatives.vjp(gradient, z, v)[1]) if second else firsts

    return all_products


@pytest.fixture(scope="module")
def expected_products():
    z, v = (tf.constant(0.5 * np.random.default_rng(seed).normal(size=(BATCH, 11))) for seed in (0, 1))
    return z, v, tf.function(products(unrolled), autograph=False)(z, v)


@pytest.mark.parametrize("spacing", [None, 1])
def test_derivatives_are_those_of_the_unrolled_loop(expected_products, spacing):
    z, v, expected = expected_products
    compiled = tf.function(
        products(lambda *parts: integrated(*parts, spacing=spacing), second=spacing is None),
        autograph=False,
        jit_compile=spacing is None,
        input_signature=[tf.TensorSpec([None, 11], tf.float64)] * 2,
    )
    for a, b in zip(compiled(z, v), expected, strict=spacing is None):
        np.testing.assert_allclose(a, b, atol=1e-13 * np.max(np.abs(b)))  # sums in another order


def test_eager_derivatives_are_those_of_the_unrolled_loop(expected_products):
    z, v, expected = expected_products
    for a, b in zip(products(integrated, second=False)(z, v), expected, strict=False):
        np.testing.assert_allclose(a, b, atol=1e-13 * np.max(np.abs(b)))


def test_a_complex_state_has_the_gradient_of_its_real_form():
    start = tf.constant([0.6, -0.4], tf.float64)

    def energy(x):
        spin = tf.complex(0.0 * x, x)
        last = ops.integrate(lambda s, _, k: s + 0.1 * spin * s * s, tf.complex(x, 0.5 * x), num_steps=4)
        return tf.square(tf.abs(last))

    def energy_by_hand(x):
        s = x + 0.5j * x
        for _ in range(4):
            s = s + 0.1j * x * s * s
        return np.abs(s) ** 2

    received = derivatives.gradient(energy, start)[1]
    step = 1e-6
    expected = (energy_by_hand(start.numpy() + step) - energy_by_hand(start.numpy() - step)) / (2 * step)
    np.testing.assert_allclose(received, expected, rtol=1e-8)  # rounding 1e-16 / step


def test_programs_do_not_grow_with_the_number_of_steps_and_their_memory_as_its_root():
    def gradient(num_steps):
        def sum_of_squares(x):
            start = tf.zeros([BATCH, 3], tf.float64) + x[:, :1]
            step, state, inputs, _ = looped(x, tf.ones([1, 3], tf.float64), start, num_steps=num_steps)
            return tf.reduce_sum(tf.square(ops.integrate(step, state, inputs)[0]), axis=1)

        function = tf.function(lambda x: derivatives.gradient(sum_of_squares, x)[1], autograph=False)
        return function.get_concrete_function(tf.TensorSpec([BATCH, num_steps], tf.float64)).graph

    graphs = [gradient(num_steps) for num_steps in (25, 400)]
    sizes = [sum(len(f.node_def) for f in graph.as_graph_def().library.function) for graph in graphs]
    assert sizes[0] == sizes[1]
    # What the backward loop is given: checkpoints [count, B, 3] of the two parts of the state, no state of every step.
    for graph, root in zip(graphs, (5, 20), strict=True):
        shapes = [tuple(t.shape) for op in graph.get_operations() for t in op.outputs if t.shape.rank == 3]
        assert {shape[0] for shape in shapes if shape[1:] == (BATCH, 3)} == {root}


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"num_steps": None}, "`num_steps`, or `inputs`"),
        ({"num_steps": 4, "inputs": tf.zeros([5])}, "leading axis num_steps=4"),
        ({"num_steps": 4, "save_at": [2, 2]}, "rising"),
        ({"num_steps": 4, "save_at": [0]}, "from 1 to 4"),
        ({"num_steps": 4, "state": tf.zeros([2], tf.int32)}, "real or complex"),
        ({"num_steps": 4, "step": lambda s, u, k: s[:1]}, "state like the one"),
        ({"num_steps": 4, "step": lambda s, u, k: None}, "state like the one"),
    ],
)
def test_what_cannot_be_integrated_is_refused(arguments, message):
    arguments = {"step": lambda s, u, k: s, "state": tf.zeros([2]), "inputs": None} | arguments
    with pytest.raises((TypeError, ValueError), match=message):
        ops.integrate(arguments.pop("step"), arguments.pop("state"), arguments.pop("inputs"), **arguments)


def test_a_step_that_reads_a_trainable_variable_is_refused():
    variable = tf.Variable(1.0, name="speed")
    with pytest.raises(ValueError, match="convert_to_tensor"):
        ops.integrate(lambda s, u, k: s * variable, tf.zeros([2]), num_steps=3)
