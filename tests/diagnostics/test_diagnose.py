"""diagnose: singular values against NumPy, and advice that follows from what was measured."""

import re

import numpy as np
import pytest
import tensorflow as tf

import keras_sip
from keras_sip.diagnostics import Verdict, diagnosis_case
from keras_sip.diagnostics.diagnosis_case import DiagnosisCase
from numerics import laplacian_matrix
from problems import CURVED, PROBLEMS

GENERATOR = np.random.default_rng(4)
MATRIX = GENERATOR.standard_normal((5, 3))
FALLING = 10.0 ** -np.linspace(0, 5, 80)


def linear(matrix, dtype="float64", **options):
    """y = A x with its inverse, whose solver is the quickest to compile."""

    def times(matrix, x):
        return tf.linalg.matvec(tf.constant(matrix, dtype), x)

    return keras_sip.from_function(
        lambda x: times(matrix, x),
        matrix.shape[1],
        dtype=dtype,
        inverse=lambda y_target, x_near: times(np.linalg.pinv(matrix, rcond=1e-12), y_target),
        **options,
    )


def diagnose(simulator, **options):
    return keras_sip.diagnose(simulator, print_report=False, **options)


def test_singular_values_are_those_of_numpy_in_units_of_x_scale():
    scale = np.array([0.1, 1.0, 10.0])
    diagnosis = diagnose(linear(MATRIX, x_scale=scale.tolist()), num_jacobians=2)
    expected = np.linalg.svd(MATRIX * scale, compute_uv=False)
    assert diagnosis.singular_values_exact
    assert len(diagnosis.singular_values) == 2
    assert np.allclose(diagnosis.singular_values, expected, rtol=1e-10)
    assert diagnosis.condition == pytest.approx(expected[0] / expected[-1], rel=1e-10)


def test_singular_values_of_a_field_lie_between_the_true_extremes(monkeypatch):
    # So that 80 components count as a field.
    monkeypatch.setattr(diagnosis_case, "LARGEST_DENSE", 64)
    left, right = (np.linalg.qr(GENERATOR.standard_normal((80, 80)))[0] for _ in range(2))
    diagnosis = diagnose(linear(left * FALLING @ right), num_examples=2)
    assert not diagnosis.singular_values_exact
    for values in diagnosis.singular_values:
        # The largest are found to rounding after 64 steps; all lie within the spectrum.
        assert np.allclose(values[:5], FALLING[:5], rtol=1e-6)
        assert values[-1] >= FALLING[-1] * (1 - 1e-9)
    assert "at least" in diagnosis["condition"].measured


def test_spectral_simulators_tell_all_their_singular_values():
    diagnosis = diagnose(keras_sip.Poisson((6, 4), dtype="float64"), num_examples=2)
    expected = np.linalg.svd(np.linalg.inv(laplacian_matrix((6, 4)).toarray()), compute_uv=False)
    assert diagnosis.singular_values_exact
    assert np.allclose(diagnosis.singular_values[0], expected, rtol=1e-10)


def test_ill_posed_heat_is_noted_and_given_an_inverse_that_knows_of_noise():
    diagnosis = diagnose(keras_sip.Heat((16, 16)), num_examples=2)
    # The shortest wave loses exp(-8 (2 pi)^2 / 2).
    assert diagnosis.condition == pytest.approx(np.exp(16 * np.pi**2), rel=1e-9)
    assert diagnosis["condition"].verdict is Verdict.NOTE
    assert isinstance(diagnosis.solver, keras_sip.DampedSpectralInverse)


def levenberg_marquardt_remainder(x0, x_true, damping):
    """|r| after over before one accepted step on P = e^x: each try is 0.1 to 0.5 times as long as the one before."""
    residual = np.exp(x0) - np.exp(x_true)
    free = residual / np.exp(x0)
    length = np.abs(free) / (1 + damping)
    remainder, open_ = np.ones_like(x0), np.ones_like(x0, bool)
    for _ in range(8):
        with np.errstate(over="ignore", invalid="ignore"):
            share = np.abs((np.exp(x0 - np.sign(free) * length) - np.exp(x_true)) / residual)
            # All over residual^2: the slope along the step is its length over the free one's.
            slope, actual = length / np.abs(free), 0.5 * (1 - share**2)
            shrink = np.clip(0.5 * slope / (slope - actual), 0.1, 0.5)
        remainder = np.where(open_ & (share < 1), share, remainder)
        open_ &= ~(share < 1)
        length *= np.where(np.isfinite(shrink), shrink, 0.1)
    return np.mean(remainder)


def test_uneven_gradients_of_the_exponential_are_noticed_and_mended():
    x_true, x0 = np.random.default_rng(8).uniform(-12, 0, (2, 64, 1))
    simulator = keras_sip.from_function(tf.exp, 1, dtype="float64", x_scale=1.0)
    diagnosis = diagnose(simulator, x=x_true, x0=x0)
    gradient = np.abs(np.exp(x0) * (np.exp(x0) - np.exp(x_true)))
    assert diagnosis.gradient_decades == pytest.approx(
        np.log10(np.quantile(gradient, 0.95) / np.quantile(gradient, 0.05)), rel=1e-9
    )
    assert diagnosis["gradients"].verdict is Verdict.NOTE
    assert diagnosis.update_decades < diagnosis.gradient_decades - 2
    assert "between examples" in " ".join(str(diagnosis).split())
    remainders = {damping: levenberg_marquardt_remainder(x0, x_true, damping) for damping in (1e-3, 1e-1, 10.0)}
    # The smallest damping within a tenth of the best.
    assert diagnosis.damping == min(d for d, r in remainders.items() if r <= 1.1 * min(remainders.values()))
    assert diagnosis.solver == keras_sip.auto_solver(simulator, damping=diagnosis.damping)


def test_even_gradients_are_called_even():
    diagnosis = diagnose(linear(np.eye(3)))
    assert diagnosis.condition == pytest.approx(1.0)
    assert diagnosis.gradient_cosine == pytest.approx(1.0)
    assert diagnosis.resolved
    assert "back-propagation should do nearly as well" in str(diagnosis).replace("\n", " ")


def test_what_float32_cannot_tell_is_said():
    diagnosis = diagnose(linear(np.diag([1.0, 1e-9]), dtype="float32"))
    assert not diagnosis.resolved
    assert "float64" in diagnosis["condition"].remedy
    assert "What y* does not tell" in " ".join(str(diagnosis).split())


def test_gradients_outside_of_float32_are_said():
    diagnosis = diagnose(linear(1e-22 * np.eye(2), dtype="float32"))
    assert not diagnosis.gradient_in_range
    assert "updates do not" in str(diagnosis)


@pytest.mark.parametrize("problem", PROBLEMS, ids=repr)
def test_recommendation_is_that_of_auto_solver(problem):
    case = DiagnosisCase(problem.simulator, start=None, num_jacobians=1)
    assert type(case.candidate.solver) is type(keras_sip.auto_solver(problem.simulator))


def test_broken_simulator_is_a_finding():
    diagnosis = diagnose(keras_sip.from_function(lambda x: x / 0.0, 2))
    assert [finding.name for finding in diagnosis.failures] == ["problems"]
    assert "check_simulator" in diagnosis["problems"].remedy
    assert diagnosis.solver is None


def test_report_fits_80_columns_and_ends_with_the_advice(capsys):
    diagnosis = keras_sip.diagnose(CURVED)
    printed = capsys.readouterr().out
    assert printed == f"{diagnosis}\n"
    assert max(map(len, printed.splitlines())) <= 80
    assert "Use LevenbergMarquardt(" in printed


def test_an_update_is_timed_in_adjoint_steps_and_the_examples_prior_is_told():
    x = np.random.default_rng(0).standard_normal((12, 3)) * [1.0, 2.0, 3.0]
    diagnosis = diagnose(linear(MATRIX), x=x)
    assert diagnosis.step_cost > 0
    np.testing.assert_allclose(diagnosis.prior.mean, x.mean(axis=0), atol=1e-12)
    assert "3 unknowns" in diagnosis["prior"].measured


class HiddenPoisson(keras_sip.SimulatorWrapper):
    """Knows its inverse, but not that it is diagonal in the sine basis."""

    def forward(self, x, context=None):
        return self.physical.forward(x, context)

    def inverse(self, y_target, x_near, context=None):
        return self.physical.inverse(y_target, x_near, context)


def test_what_each_spectral_basis_leaks_is_shown():
    simulator = HiddenPoisson(keras_sip.Poisson((6, 6), dtype="float64"))
    diagnosis = diagnose(simulator, num_examples=4, num_jacobians=1)
    text = diagnosis["spectral basis"].measured
    leaks = {basis: float(re.search(rf"{basis} ([\d.e-]+)", text).group(1)) for basis in ("fourier", "sine", "cosine")}
    assert leaks["sine"] == pytest.approx(diagnosis.leakage, rel=0.05)
    assert leaks["sine"] < 1e-12
    assert leaks["fourier"] > 0.2
    assert leaks["cosine"] > 0.2
    assert "spectral basis" in str(diagnosis)
