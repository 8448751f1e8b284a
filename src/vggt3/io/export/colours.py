"""Colours of the preview: depth by a ramp of even lightness, cameras from first to last."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

PAGE = (15, 17, 21)
PANEL = (24, 27, 34)
TEXT = (214, 220, 228)
FAINT_TEXT = (139, 148, 160)
NO_DEPTH = (58, 62, 70)

# Equal steps of OKLCH lightness from 0.95 to 0.24 while the hue turns from yellow over red to
# blue, with as much chroma as sRGB holds: near is light, far is dark, also in grey print.
_DEPTH_STOPS = (
    "fef473",
    "fcd659",
    "fbb638",
    "f7952b",
    "f46e24",
    "e44b4a",
    "c93166",
    "a32284",
    "761b96",
    "4f1092",
    "2f0a7d",
    "140461",
)

_CAMERA_STOPS = ("7dfff0", "35d0ff", "4f8cff", "9a6bff")


def depth_colours(
    nearness: NDArray[np.floating],  # [...] 1 is near, 0 is far, NaN is nothing
) -> NDArray[np.uint8]:
    """RGB [..., 3] of each value."""
    colours = _ramp(_DEPTH_STOPS, 1 - nearness)
    return np.where(np.isnan(nearness)[..., None], np.array(NO_DEPTH, np.uint8), colours)


def camera_colours(count: int) -> NDArray[np.uint8]:
    """RGB [count, 3] for cameras from the first to the last."""
    return _ramp(_CAMERA_STOPS, np.linspace(0, 1, count))


def _ramp(stops: Sequence[str], places: NDArray[np.floating]) -> NDArray[np.uint8]:
    """Colours [..., 3] at ``places`` in [0, 1] along evenly spaced stops."""
    table = np.array([list(bytes.fromhex(stop)) for stop in stops], dtype=np.float64)
    at = np.clip(np.nan_to_num(places), 0, 1) * (len(stops) - 1)
    channels = [np.interp(at, np.arange(len(stops)), table[:, c]) for c in range(3)]
    return np.rint(np.stack(channels, axis=-1)).astype(np.uint8)
