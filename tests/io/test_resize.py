"""The size at which the model sees a photo."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from vggt3.checks import UsageError
from vggt3.io.resize import model_size, resized


@pytest.mark.parametrize(
    ("size", "long_side", "expected"),
    [
        ((480, 640), 518, (392, 518)),
        ((640, 480), 518, (518, 392)),
        ((1024, 751), 518, (518, 378)),
        ((100, 100), 500, (504, 504)),
        ((20, 10_000), 518, (14, 518)),
        ((14, 14), 14, (14, 14)),
        ((20, 15), 224, (224, 168)),
    ],
)
def test_known_sizes(size: tuple[int, int], long_side: int, expected: tuple[int, int]) -> None:
    assert model_size(size, long_side) == expected


@given(st.integers(14, 20_000), st.integers(14, 20_000), st.integers(14, 2000))
def test_any_size_fits_the_grid(height: int, width: int, long_side: int) -> None:
    rows, columns = model_size((height, width), long_side)
    assert rows % 14 == columns % 14 == 0
    assert min(rows, columns) >= 14
    assert abs(max(rows, columns) - long_side) <= 7
    true = min(height, width) / max(height, width) * max(rows, columns)
    assert abs(min(rows, columns) - max(true, 14)) <= 7
    assert model_size((width, height), long_side) == (columns, rows)


@pytest.mark.parametrize("long_side", [0, -5, 13])
def test_a_long_side_below_a_patch(long_side: int) -> None:
    with pytest.raises(UsageError, match=f"--long-side must be at least 14, got {long_side}"):
        model_size((100, 100), long_side)


def test_fine_stripes_become_grey_and_not_moire() -> None:
    image = Image.new("RGB", (1400, 1400))
    for x in range(0, 1400, 2):
        image.paste((255, 255, 255), (x, 0, x + 1, 1400))
    low, high = resized(image, (98, 98)).convert("L").getextrema()
    assert 120 <= low <= high <= 135
