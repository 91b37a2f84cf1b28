"""Where the names of points go on a picture: beside their points, off all points and off each other.

Knows rectangles and circles in pixels; draws nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Box = tuple[float, float, float, float]
"""Left, bottom, right and top."""

# Where a label's box may lie, as the direction from the point to the box: beside it first, then above and below.
_DIRECTIONS = ((1, 0), (-1, 0), (0, 1), (0, -1), (1, 1), (-1, 1), (1, -1), (-1, -1))


def place_labels(
    points: NDArray[np.float64],
    radius: float,
    sizes: Sequence[tuple[float, float]],
    frame: Box,
    gap: float = 3.0,
) -> list[Box | None]:
    """The box of each point's label, or None for a label that fits nowhere.

    `points` (n, 2) are the centres of discs of `radius`, `sizes` the width and height of each label, `frame` the box
    that labels stay within; all in pixels. Labels are placed in order, each as near as `gap` to its point, so that
    no box touches a disc or a box that was placed before.
    """
    placed: list[Box | None] = []
    for point, size in zip(points, sizes, strict=True):
        boxes = (_beside(point, radius + gap, size, direction) for direction in _DIRECTIONS)
        taken = [box for box in placed if box is not None]
        free = (box for box in boxes if _is_free(box, points, radius, taken, frame))
        placed.append(next(free, None))
    return placed


def _beside(
    point: NDArray[np.float64], distance: float, size: tuple[float, float], direction: tuple[int, int]
) -> Box:
    """The box at `distance` from a point; on a diagonal its corner is that far, along both axes together."""
    (x, y), (width, height) = point.tolist(), size
    to_right, to_top = direction
    step = distance if 0 in direction else distance * 0.7072
    left = x + step if to_right > 0 else x - step - width if to_right < 0 else x - width / 2
    bottom = y + step if to_top > 0 else y - step - height if to_top < 0 else y - height / 2
    return left, bottom, left + width, bottom + height


def _is_free(box: Box, points: NDArray[np.float64], radius: float, taken: Sequence[Box], frame: Box) -> bool:
    left, bottom, right, top = box
    if left < frame[0] or bottom < frame[1] or right > frame[2] or top > frame[3]:
        return False
    if any(left < other[2] and other[0] < right and bottom < other[3] and other[1] < top for other in taken):
        return False
    # From each centre to the nearest place of the box.
    far = np.maximum(0, np.maximum(box[:2] - points, points - box[2:]))
    return bool(((far**2).sum(axis=1) > radius**2).all())
