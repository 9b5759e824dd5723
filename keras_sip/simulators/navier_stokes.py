"""Incompressible flow: the picture of a marker that a velocity field carries along."""

import warnings
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_sip.errors import check_choice, check_number, check_positive_int, three_part
from keras_sip.ops import advection, staggered
from keras_sip.ops import spectral_transforms as transforms
from keras_sip.simulators import fluid_experiment
from keras_sip.simulators.abilities import Ability
from keras_sip.simulators.arguments import as_field
from keras_sip.simulators.base import Context, Simulator, check_resolution, split_observation
from keras_sip.simulators.reverse_form import ReverseForm
from keras_sip.simulators.swirl import SwirlFamily

ENERGIES = ("total", "component", "free")
OBJECTIVES = ("squares", "amplitudes")
# In cycles per domain; 80 cells of 64 in the paper.
FALLOFF = 80 / 64
# Squared weighted amplitudes below this do not count in the objective "amplitudes".
SMALLEST_SQUARE = 1e-5
# The largest displacement in a time step, in cells, for which tests assert accuracy and stability.
TESTED_CFL = 8.0
ROUNDING = 1e-5


@keras.saving.register_keras_serializable(package="keras_sip")
class NavierStokes(Simulator):
    """The marker at time t of a fluid that started with velocity x, in two dimensions on a periodic domain.

        dv/dt + v . grad v = -grad p + nu laplace v,   div v = 0;     dm/dt + v . grad m = 0;     y = m(t)

    x `[B, H, W, 2]`: velocity at cell centres, x axis first; context {"marker": m(0) `[B, H, W, 1]`, in [0, 1]};
    y `[B, H, W, 1]`. Lengths in units of `spacing`, velocities in length over time.

    x is interpolated to a staggered grid (`ops.staggered`) and made divergence-free. A time step: MacCormack advection
    of the velocity by itself, exact pressure projection, rescaling to the energy before, exact diffusion, MacCormack
    advection of the marker by the new velocity. Second-order accurate in space, first in time, stable for steps of any
    length. The steps are unrolled: compiled, twice as fast as a loop in the gradient.

    The residual is the difference of the markers, its mean removed, as real FFT amplitudes D_n weighted by

        w_n = exp(-(80/64)^2 |n|^2 / 2),   n in cycles per domain,

    so that pictures far apart still attract each other: L = 1/2 sum over n of w_n^2 |D_n|^2 ("squares"), or the
    authors' sum of max(w_n^2 |D_n|^2, 1e-5)^(1/2) ("amplitudes"), with which Gauss-Newton solvers refuse the simulator.

    This class is the equation. `sample` and `reverse_form`, with which `ReverseSimulation` works, are those of the
    paper's experiment (`fluid_experiment`); a subclass with flows of its own overrides both.

    Source: the paper, Section 4 "Navier-Stokes". Authors' peculiarities are options or left out: they restore the
    energy for each component apart ("component", slightly compressible), and make data with another grid.

    Args:
        resolution: Cells along the two axes, (64, 64) in the paper.
        spacing: Width of a cell.
        dtype: "float32" or "float64".
        dt, num_steps: Length and number of time steps; t = dt * num_steps.
        viscosity: nu.
        energy: "total": each step keeps the mean of v^2, apart from viscosity; "component": of each component;
            "free": numerical dissipation acts.
        objective_form: "squares" or "amplitudes".
    """

    prefers_xla = True

    def __init__(
        self,
        resolution: tuple[int, int],
        *,
        spacing: float = 2.0,
        dtype: str = "float32",
        dt: float = 0.25,
        num_steps: int = 8,
        viscosity: float = 0.0,
        energy: str = "total",
        objective_form: str = "squares",
    ):
        self.resolution = check_resolution(resolution, dimensions=(2,))
        self.spacing = check_number("spacing", spacing, exclusive=True)
        self.dt = check_number("dt", dt, exclusive=True)
        self.num_steps = check_positive_int("num_steps", num_steps)
        self.viscosity = check_number("viscosity", viscosity)
        self.energy = check_choice("energy", energy, ENERGIES)
        self.objective_form = check_choice("objective_form", objective_form, OBJECTIVES)
        self.dtype = check_choice("dtype", dtype, ("float32", "float64"))
        self.x_shape, self.y_shape = (*self.resolution, 2), (*self.resolution, 1)
        self.swirl = SwirlFamily(self.resolution, self.spacing, self.dt * self.num_steps, self.dtype)
        self._weights, self._multiplicity = self._mode_weights()

    # The process --------------------------------------------------------------------------------------------------

    def forward(self, x: tf.Tensor, context: Any = None) -> tf.Tensor:
        return self.run(self.initial_velocity(x), context["marker"])[1]

    @property
    def context_shape(self) -> dict[str, Any]:
        return {"marker": self.y_shape}

    def frames(self, x: tf.Tensor, context: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """All states, {"velocity": at cell centres `[B, num_steps + 1, H, W, 2]`, "marker": `[B, ..., 1]`}."""
        states = []
        self.run(self.initial_velocity(x), context["marker"], lambda *state: states.append(state))
        velocity, marker = zip(*states, strict=True)
        return {
            "velocity": tf.stack([staggered.to_centres(v) for v in velocity], axis=1),
            "marker": tf.stack(marker, axis=1),
        }

    def initial_velocity(self, x: tf.Tensor) -> tf.Tensor:
        """x on the faces, divergence-free: the staggered velocity that the process starts with."""
        return staggered.make_divergence_free(staggered.to_faces(x), self.spacing)

    def run(
        self, velocity: tf.Tensor, marker: tf.Tensor, observe: Callable | None = None
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """The last (staggered velocity, marker); `observe(velocity, marker)` is called with every state on the way."""
        observe = observe or (lambda velocity, marker: None)
        observe(velocity, marker)
        for _ in range(self.num_steps):
            velocity = self.step(velocity)
            marker = advection.advect_centred(marker, velocity * (self.dt / self.spacing))
            observe(velocity, marker)
        return velocity, marker

    def step(self, velocity: tf.Tensor) -> tf.Tensor:
        """The staggered velocity `[B, H, W, 2]` after one time step."""
        moved = advection.advect_staggered(velocity, velocity * (self.dt / self.spacing))
        moved = staggered.make_divergence_free(moved, self.spacing)
        moved = moved * self._rescaling(velocity, moved)
        if self.viscosity:
            # After the rescaling, which would undo what viscosity takes.
            moved = staggered.diffuse(moved, self.viscosity * self.dt, self.spacing)
        return moved

    def _rescaling(self, before, after):
        """The factor that gives `after` the energy of `before`; 1 where there is none."""
        if self.energy == "free":
            return 1.0
        axes = [1, 2] if self.energy == "component" else [1, 2, 3]
        energy, now = (tf.reduce_mean(tf.square(v), axis=axes, keepdims=True) for v in (before, after))
        # Negated: a NaN shall stay one.
        usable = ~((energy <= 0) | (now <= 0))
        ratio = tf.where(usable, energy, tf.ones_like(now)) / tf.where(usable, now, tf.ones_like(now))
        return tf.sqrt(ratio)

    # What is compared ---------------------------------------------------------------------------------------------

    def residual(self, y: tf.Tensor, y_target: tf.Tensor, context: Context = None) -> tf.Tensor:
        """Weighted real and imaginary parts of the FFT of y - y_target, `[B, H, W // 2 + 1, 2]`.

        Modes that stand for a conjugate too have the factor sqrt(2), so that the sum of squares runs over all.
        """
        modes = transforms.fourier_modes(y - y_target)[:, 0]
        parts = tf.stack([tf.math.real(modes), tf.math.imag(modes)], axis=-1)
        return parts * tf.constant(self._weights * np.sqrt(self._multiplicity), parts.dtype)[..., None]

    def objective(self, y: tf.Tensor, y_target: tf.Tensor, context: Context = None) -> tf.Tensor:
        if self.objective_form == "squares":
            return super().objective(y, y_target, context)
        multiplicity = tf.constant(self._multiplicity, y.dtype)
        squares = tf.reduce_sum(tf.square(self.residual(y, y_target, context)), axis=-1) / multiplicity
        amplitudes = tf.sqrt(tf.maximum(squares, tf.constant(SMALLEST_SQUARE, y.dtype)))
        return tf.reduce_sum(multiplicity * amplitudes, axis=[1, 2])

    def has(self, ability: Ability | str) -> bool:
        return self.objective_form == "amplitudes" if ability == Ability.OBJECTIVE else super().has(ability)

    def distance(self, x: tf.Tensor, x_ref: tf.Tensor) -> tf.Tensor:
        """Mean length of the velocity difference."""
        return tf.reduce_mean(tf.norm(x - x_ref, axis=-1), axis=[1, 2])

    def network_input(self, observation: Any) -> tf.Tensor:
        """The first and the last marker as two channels."""
        y, context = split_observation(observation)
        return tf.concat([context["marker"], y], axis=-1)

    def _mode_weights(self):
        """(w_n, how many modes of the whole spectrum each stands for), `[H, W // 2 + 1]`."""
        height, width = self.resolution
        squares = transforms.squared_frequencies(self.resolution, [1 / height, 1 / width])
        weights = np.exp(-0.5 * FALLOFF**2 * squares)
        weights[0, 0] = 0.0
        multiplicity = np.full(weights.shape, 2.0)
        multiplicity[:, 0] = 1.0
        if width % 2 == 0:
            multiplicity[:, -1] = 1.0
        return weights, multiplicity

    # The paper's experiment ----------------------------------------------------------------------------------------

    def sample(self, batch_size: int, seed: Any) -> dict[str, Any]:
        check_positive_int("batch_size", batch_size)
        x, context = fluid_experiment.draw(self, batch_size, seed)
        return {"x": x, "y": self.forward(x, context), "context": context}

    @property
    def reverse_form(self) -> ReverseForm:
        return fluid_experiment.reverse_form(self)

    # What users pass --------------------------------------------------------------------------------------------------

    def as_x(self, x: Any) -> tf.Tensor:
        x = super().as_x(x)
        self._warn_of_long_steps(x)
        return x

    def as_y(self, y: Any, *, name: str = "y_target") -> tf.Tensor:
        y = super().as_y(y, name=name)
        # A solver's target may lie outside: in a layer without y_target it is y minus a gradient.
        return self._as_marker(y, name) if name == "y" else y

    def as_context(self, context: Context) -> dict[str, tf.Tensor]:
        if not context or "marker" not in context:
            raise ValueError(
                three_part(
                    '`context` to hold the first marker: {"marker": [B, H, W, 1]}',
                    f"{'None' if context is None else sorted(context)}",
                    "Pass the picture at time 0 as context; the one at time t is y.",
                )
            )
        context = super().as_context(context) or {}
        marker = as_field(self, "context['marker']", context["marker"], self.y_shape, widen=True)
        return {**context, "marker": self._as_marker(marker, "context['marker']")}

    def _as_marker(self, marker, name):
        """Refuse values outside [0, 1], where there are values (not in a compiled function); NaN is found elsewhere."""
        if hasattr(marker, "numpy"):
            values = marker.numpy()
            outside = (values < -ROUNDING) | (values > 1 + ROUNDING)
            if outside.any():
                raise ValueError(
                    three_part(
                        f"`{name}` to be a marker with values from 0 to 1",
                        f"values from {np.nanmin(values):g} to {np.nanmax(values):g}",
                        "Divide it by its largest possible value.",
                    )
                )
        return marker

    def _warn_of_long_steps(self, x):
        if not hasattr(x, "numpy"):
            return
        speeds = np.abs(x.numpy())
        fastest = np.max(speeds, where=np.isfinite(speeds), initial=0.0)
        cfl = fastest * self.dt / self.spacing
        if cfl > TESTED_CFL:
            warnings.warn(
                three_part(
                    f"a CFL number max |v| dt / dx of at most {TESTED_CFL:g}, as far as it is tested",
                    f"{cfl:.3g} (max |v| = {fastest:.3g}, dt = {self.dt:g}, dx = {self.spacing:g})",
                    "Take more and shorter steps: NavierStokes(..., dt=..., num_steps=...).",
                ),
                stacklevel=3,
            )
