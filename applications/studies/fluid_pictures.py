"""Pictures of flows: markers with the velocity as arrows, vorticity, and an animation of both."""

import io

import numpy as np
import tensorflow as tf

from experiments import figures
from keras_sip import plotting
from keras_sip.ops.staggered import above, below
from keras_sip.simulators.base import split_observation

ARROWS = 12
FRAMES_PER_SECOND = 4
MARKER_MAP = "Greys"


def vorticity(velocity):
    """Curl of a centred velocity `[B, H, W, 2]` by central differences, times the spacing: `[B, H, W, 1]`."""
    velocity = tf.convert_to_tensor(velocity)
    u, v = tf.split(velocity, 2, axis=-1)
    return (0.5 * (above(v, 1) - below(v, 1) - above(u, 2) + below(u, 2))).numpy()


def flow_figure(simulator, observation, x_true, predictions):
    """Fig. 7a: for each example both markers, the true and the predicted velocities as arrows, and their vorticity.

    Args:
        simulator: `NavierStokes`.
        observation: {"y", "context"} of N examples.
        x_true: `[N, H, W, 2]`.
        predictions: {label: x `[N, H, W, 2]`}.

    Returns:
        A `matplotlib.figure.Figure`.
    """
    y_target, context = split_observation(observation)
    velocities = {"truth": np.asarray(x_true), **{label: np.asarray(x) for label, x in predictions.items()}}
    curls = {label: vorticity(x)[..., 0] for label, x in velocities.items()}
    limit = max(np.abs(curl).max() for curl in curls.values())
    rows, columns = len(y_target), 1 + 2 * len(velocities)
    with plotting.figure(width=0.4 + 1.5 * columns, height=0.5 + 1.55 * rows) as figure:
        panels = figure.subplots(rows, columns, squeeze=False)
        for row, axes in enumerate(panels):
            _markers(axes[0], context["marker"][row], y_target[row])
            for column, (label, x) in enumerate(velocities.items(), start=1):
                _show(axes[column], context["marker"][row, ..., 0], MARKER_MAP, alpha=0.5)
                _arrows(axes[column], x[row], np.abs(x_true[row]).max(), simulator)
                error = np.mean(np.linalg.norm(x[row] - x_true[row], axis=-1))
                if label != "truth":
                    axes[column].set_xlabel(f"mean |error| {error:.2f}", fontsize=7, labelpad=2)
                _show(axes[column + len(velocities)], curls[label][row], figures.FIELD_MAP, limit)
        panels[0, 0].set_title("marker at\n0 (blue), t (red)")
        for column, label in enumerate(velocities, start=1):
            panels[0, column].set_title(f"{label}\nvelocity")
            panels[0, column + len(velocities)].set_title(f"{label}\nvorticity")
    return figure


def flow_animation(simulator, context, velocities, path):
    """A GIF of one example: the marker with the velocity as arrows over time, one panel for each initial velocity.

    Args:
        simulator: `NavierStokes`.
        context: {"marker": `[1, H, W, 1]`}.
        velocities: {label: x `[1, H, W, 2]`}.
        path: Where to write.
    """
    from PIL import Image

    runs = {
        label: {name: frames[0].numpy() for name, frames in simulator.frames(tf.constant(x), context).items()}
        for label, x in velocities.items()
    }
    fastest = max(np.abs(run["velocity"]).max() for run in runs.values())
    pictures = []
    for index in range(simulator.num_steps + 1):
        with plotting.figure(width=0.2 + 2.6 * len(runs), height=2.9) as figure:
            for axes, (label, run) in zip(figure.subplots(1, len(runs), squeeze=False)[0], runs.items(), strict=True):
                _show(axes, run["marker"][index, ..., 0], MARKER_MAP, limit=1.0, alpha=0.8)
                _arrows(axes, run["velocity"][index], fastest, simulator)
                axes.set_title(f"{label}, time {index * simulator.dt:.2f}")
        pictures.append(Image.open(io.BytesIO(figures.png(figure))).convert("RGB"))
    # One palette for all, or the colours flicker.
    palette = pictures[-1].quantize(64)
    pictures = [picture.quantize(palette=palette, dither=Image.Dither.NONE) for picture in pictures]
    pause = [1000 // FRAMES_PER_SECOND] * len(pictures)
    pause[0] = pause[-1] = 1000
    pictures[0].save(path, save_all=True, append_images=pictures[1:], duration=pause, loop=0, optimize=True)


def _markers(axes, before, after):
    """The first marker in blue, the last in red, violet where they overlap."""
    image = np.ones((*before.shape[:2], 3))
    image[..., :2] -= 0.7 * np.asarray(before)
    image[..., 1:] -= 0.7 * np.asarray(after)
    axes.imshow(np.clip(image, 0, 1).transpose(1, 0, 2), origin="lower")
    _bare(axes)


def _show(axes, field, colours, limit=None, alpha=1.0):
    low = 0.0 if colours == MARKER_MAP else -limit
    axes.imshow(np.asarray(field).T, origin="lower", cmap=colours, vmin=low, vmax=limit or 1.0, alpha=alpha)
    _bare(axes)


def _arrows(axes, velocity, fastest, simulator):
    """Arrows at some of the cells, the fastest as long as they are apart."""
    height, width = simulator.resolution
    rows, columns = (np.arange(n // ARROWS // 2, n, max(n // ARROWS, 1)) for n in (height, width))
    some = velocity[np.ix_(rows, columns)]
    scale = max(fastest, 1e-12) * ARROWS / width * 0.6
    at = np.meshgrid(rows, columns, indexing="ij")
    axes.quiver(
        *at, some[..., 0], some[..., 1], angles="xy", scale_units="xy", scale=scale, width=0.006, color="#D55E00"
    )
    _bare(axes)


def _bare(axes):
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_visible(False)
