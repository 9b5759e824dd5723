"""Transport of fields on periodic grids in two dimensions: bilinear look-ups and MacCormack advection.

Displacements are in cells: velocity * time / spacing.
"""

import tensorflow as tf

from keras_sip.ops.staggered import above, velocity_at_faces

# Numbers in a row of `_materialized`: enough that XLA keeps the product, few enough that it costs little.
SHORT_BLOCK = 16


def sample_bilinear(field, displacement):
    """The field at the grid point of each value plus `displacement`, by bilinear interpolation; periodic.

    Args:
        field: `[B, H, W, C]`.
        displacement: In cells, `[B, H, W, 2]`; of any length.

    Returns:
        `[B, H, W, C]`. Differentiable in both arguments; the derivative jumps where a point crosses a grid line.
    """
    return _interpolate(*_four_values(field, displacement))


def maccormack(field, displacement):
    """The field after each of its points was carried along by `displacement`: MacCormack advection, periodic.

        f1 = f at p - d,   f2 = f1 at p + d,   result f1 + (f - f2) / 2, clamped to the four values around p - d

    Second-order accurate where the clamp does not act; exact for whole-cell displacements that are the same everywhere.
    The clamp makes it stable for steps of any length, and no new extremum appears.

    Args:
        field: `[B, H, W, C]`.
        displacement: d in cells at the field's own points, `[B, H, W, 2]`.

    Source: Selle, Fedkiw, Kim, Liu and Rossignac 2008, Section 4.
    """
    corners, weights = _four_values(field, -displacement)
    carried = _materialized(_interpolate(corners, weights))
    corrected = carried + 0.5 * (field - sample_bilinear(carried, displacement))
    a, b, c, d = corners
    low = tf.minimum(tf.minimum(a, b), tf.minimum(c, d))
    high = tf.maximum(tf.maximum(a, b), tf.maximum(c, d))
    # Not minimum(maximum(...)): those pass over a NaN under XLA, and a NaN velocity would go unseen.
    return _materialized(tf.where(corrected < low, low, tf.where(corrected > high, high, corrected)))


def advect_centred(field, staggered_displacement):
    """`maccormack` of a centred field `[B, H, W, C]` by a staggered velocity (times time over spacing)."""
    u, v = tf.split(staggered_displacement, 2, axis=-1)
    return maccormack(field, 0.5 * tf.concat([u + above(u, 1), v + above(v, 2)], -1))


def advect_staggered(staggered, staggered_displacement):
    """`maccormack` of each component of a staggered field `[B, H, W, 2]`, at its own faces."""
    # One look-up for both components: they are stacked along the batch.
    fields = tf.concat(tf.split(staggered, 2, axis=-1), 0)
    moved = maccormack(fields, tf.concat(velocity_at_faces(staggered_displacement), 0))
    return tf.concat(tf.split(moved, 2, axis=0), -1)


def _materialized(field):
    """The field itself `[B, H, W, C]`, as a product with the identity: XLA computes it once, and writes it down.

    Else a CPU computes the whole look-up anew for each of the four neighbours that the next one packs: eight time steps
    of 64 x 64 cells take 1.8 times as long. In float64, in which no processor rounds the factors of a product.
    """
    row = field.shape[2] * field.shape[3]
    block = SHORT_BLOCK if row % SHORT_BLOCK == 0 else row
    rows = tf.cast(tf.reshape(field, [-1, block]), tf.float64)
    return tf.reshape(tf.cast(rows @ tf.eye(block, dtype=tf.float64), field.dtype), tf.shape(field))


def _four_values(field, displacement):
    """The values at the corners of the cell that each point falls in, and how far in it lies.

    Returns:
        ((f_00, f_01, f_10, f_11), (fraction along axis 1, fraction along axis 2)), all `[B, H, W, C or 1]`.
    """
    batch, (height, width, channels) = tf.shape(field)[0], field.shape[1:]
    cell = tf.floor(displacement)
    fractions = tf.split(displacement - cell, 2, axis=-1)
    # Wrapped as integers, so that also a NaN or a huge displacement stays inside its own example.
    along_1, along_2 = tf.unstack(tf.cast(cell, tf.int32), axis=-1)
    row = tf.math.floormod(tf.range(height)[:, None] + along_1, height)
    column = tf.math.floormod(tf.range(width) + along_2, width)
    first = height * width * tf.range(batch)
    index = first[:, None, None] + width * row + column
    # The neighbours lie side by side in memory: one look-up brings all four.
    pairs = tf.concat([field, above(field, 2)], -1)
    packed = tf.concat([pairs, above(pairs, 1)], -1)
    found = tf.gather(tf.reshape(packed, [-1, 4 * channels]), index)
    return tf.split(found, 4, axis=-1), fractions


def _interpolate(corners, fractions):
    (lower_left, lower_right, upper_left, upper_right), (along_1, along_2) = corners, fractions
    lower = lower_left + along_2 * (lower_right - lower_left)
    upper = upper_left + along_2 * (upper_right - upper_left)
    return lower + along_1 * (upper - lower)
