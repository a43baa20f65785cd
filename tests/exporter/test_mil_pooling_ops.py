import itertools

import numpy as np
import pytest
from coremltools.converters.mil import Builder as mb
from mil_programs import run_program

from edgeseg.errors import ExportError

RANDOM = np.random.default_rng(0)


def drawn(*shape):
    """Small whole numbers, so that sums are exact."""
    return RANDOM.integers(-4, 5, shape).astype(np.float32)


def windows(x, kernel, strides, padding, beyond, value):
    """Elements of every window, output position by output position."""
    total = [(b, a + e) for (b, a), e in zip(padding, beyond, strict=True)]
    x = np.pad(x, [(0, 0), (0, 0), *total], constant_values=value)
    starts = [range(0, n - k + 1, s) for n, k, s in zip(x.shape[2:], kernel, strides, strict=True)]
    return [
        x[:, :, top : top + kernel[0], left : left + kernel[1]]
        for top, left in itertools.product(*starts)
    ], tuple(map(len, starts))


@pytest.mark.parametrize(
    ("options", "padding", "beyond"),
    [
        ({"pad_type": "valid"}, [(0, 0), (0, 0)], (0, 0)),
        ({"pad_type": "custom", "pad": [1, 0, 1, 2]}, [(1, 0), (1, 2)], (0, 0)),
        # Kernel 3, stride 2: 6 rows give ceil(3 / 2) + 1 = 3 windows over 7; 5 columns fit.
        ({"pad_type": "valid", "ceil_mode": True}, [(0, 0), (0, 0)], (1, 0)),
        ({"pad_type": "same"}, [(0, 1), (1, 1)], (0, 0)),
        ({"pad_type": "same_lower"}, [(1, 0), (1, 1)], (0, 0)),
    ],
)
def test_pooling(tmp_path, options, padding, beyond):
    x = drawn(2, 3, 6, 5)
    options = {"kernel_sizes": [3, 3], "strides": [2, 2], **options}

    def build(x):
        return {
            "largest": mb.max_pool(x=x, **options),
            "mean": mb.avg_pool(x=x, exclude_padding_from_average=True, **options),
            "padded_mean": mb.avg_pool(x=x, exclude_padding_from_average=False, **options),
        }

    outputs = run_program(tmp_path / "a.mlpackage", build, x)

    found, sizes = windows(x, (3, 3), (2, 2), padding, beyond, np.nan)
    rows = [np.nanmax(w, (2, 3)) for w in found], [np.nanmean(w, (2, 3)) for w in found]
    largest, mean = (np.stack(each, -1).reshape(2, 3, *sizes) for each in rows)
    np.testing.assert_array_equal(outputs["largest"], largest)
    np.testing.assert_allclose(outputs["mean"], mean, rtol=1e-6, atol=1e-7)
    # Padding counts as zeros; what ceil_mode adds beyond it does not count.
    zeros = np.pad(x, [(0, 0), (0, 0), *padding])
    found, _ = windows(zeros, (3, 3), (2, 2), [(0, 0), (0, 0)], beyond, np.nan)
    padded_mean = np.stack([np.nanmean(w, (2, 3)) for w in found], -1).reshape(2, 3, *sizes)
    np.testing.assert_allclose(outputs["padded_mean"], padded_mean, rtol=1e-6, atol=1e-7)


def test_pooling_over_one_dimension(tmp_path):
    x = np.float32([[[1, 5, 2, 8]]])

    def build(x):
        options = {"kernel_sizes": [2], "pad_type": "valid"}
        return {"largest": mb.max_pool(x=x, **options), "mean": mb.avg_pool(x=x, **options)}

    outputs = run_program(tmp_path / "a.mlpackage", build, x)

    assert outputs["largest"].tolist() == [[[5, 5, 8]]]
    assert outputs["mean"].tolist() == [[[3, 3.5, 5]]]


def test_window_that_would_start_in_the_padding_is_left_out(tmp_path):
    x = drawn(1, 1, 2)  # padded to 4; a second window of 2 would start at 3, in the padding

    def build(x):
        options = {"pad_type": "custom", "pad": [1, 1], "ceil_mode": True}
        return {"y": mb.max_pool(x=x, kernel_sizes=[2], strides=[3], **options)}

    outputs = run_program(tmp_path / "a.mlpackage", build, x)

    assert outputs["y"].tolist() == [[[x[0, 0, 0]]]]


def test_window_that_ceil_mode_puts_outside_is_refused(tmp_path):
    x = drawn(1, 1, 5)  # kernel 1, stride 3: ceil(4 / 3) + 1 = 3 windows, the last one at 6

    def build(x):
        options = {"pad_type": "valid", "ceil_mode": True}
        return {"y": mb.max_pool(x=x, kernel_sizes=[1], strides=[3], **options)}

    with pytest.raises(ExportError, match="a window lies outside of 5 elements with ceil_mode"):
        run_program(tmp_path / "a.mlpackage", build, x)
