import numpy as np
import pytest
import torch
import torch.nn.functional as F
from coremltools.converters.mil import Builder as mb
from mil_programs import IOS17, edited, run_program, save_program

from edgeseg.errors import ExportError
from edgeseg.exporter.mil.interpreter import Interpreter
from edgeseg.exporter.mil.package import load_package

IMAGE = np.random.default_rng(2).normal(size=(2, 3, 4, 6)).astype(np.float32)
PAIR = np.float32([[[0.0, 1.0]]])  # between two neighbours the result is the sampled position

# The table of the MIL operation reference: positions for 2 elements resampled to 5 and to 6.
POSITIONS = {
    "UNALIGN_CORNERS": ([0, 0.1, 0.5, 0.9, 1], [0, 0, 1 / 3, 2 / 3, 1, 1]),
    "STRICT_ALIGN_CORNERS": ([0, 0.25, 0.5, 0.75, 1], [0, 0.2, 0.4, 0.6, 0.8, 1]),
    "ALIGN_CORNERS": ([0, 0.25, 0.5, 0.75, 1], [0, 0.2, 0.4, 0.6, 0.8, 1]),
    "DEFAULT": ([0, 0.4, 0.8, 1, 1], [0, 1 / 3, 2 / 3, 1, 1, 1]),
    "OFFSET_CORNERS": (
        [0.1, 0.3, 0.5, 0.7, 0.9],
        [1 / 12, 3 / 12, 5 / 12, 7 / 12, 9 / 12, 11 / 12],
    ),
}


@pytest.mark.parametrize("mode", POSITIONS)
def test_resizing_samples_the_documented_positions(tmp_path, mode):
    def build(x):
        options = {"target_size_height": 1, "sampling_mode": mode}
        return {
            "five": mb.resize_bilinear(x=x, target_size_width=5, **options),
            "six": mb.resize_bilinear(x=x, target_size_width=6, **options),
        }

    outputs = run_program(tmp_path / "a.mlpackage", build, PAIR)

    five, six = POSITIONS[mode]
    np.testing.assert_allclose(outputs["five"].ravel(), five, atol=1e-6)
    np.testing.assert_allclose(outputs["six"].ravel(), six, atol=1e-6)


def test_single_sample_lies_where_its_mode_says(tmp_path):
    x = np.float32([[[0, 1, 2, 3, 4]]])  # so that the sample is its position

    def build(x):
        return {
            mode.lower(): mb.resize_bilinear(
                x=x, target_size_height=1, target_size_width=1, sampling_mode=mode
            )
            for mode in POSITIONS
        }

    outputs = run_program(tmp_path / "a.mlpackage", build, x)

    assert {mode: value.item() for mode, value in outputs.items()} == {
        "unalign_corners": 2.0,  # 0.5 * 5 - 0.5
        "strict_align_corners": 0.0,
        "align_corners": 2.0,  # (5 - 1) / 2
        "default": 0.0,
        "offset_corners": 2.0,  # 0.5 * (5 - 1)
    }


@pytest.mark.parametrize("align", [False, True])
def test_bilinear_enlargement_is_that_of_torch(tmp_path, align):
    outputs = run_program(
        tmp_path / "a.mlpackage",
        lambda x: {
            "y": mb.upsample_bilinear(
                x=x, scale_factor_height=2.0, scale_factor_width=1.5, align_corners=align
            )
        },
        IMAGE,
    )

    expected = F.interpolate(
        torch.from_numpy(IMAGE), size=(8, 9), mode="bilinear", align_corners=align
    )
    np.testing.assert_allclose(outputs["y"], expected.numpy(), rtol=1e-5, atol=1e-6)


def test_enlargement_rounds_sizes_down_and_takes_the_factor_from_them(tmp_path):
    outputs = run_program(
        tmp_path / "a.mlpackage",
        lambda x: {
            "y": mb.upsample_bilinear(
                x=x, scale_factor_height=1.0, scale_factor_width=2.9, align_corners=False
            )
        },
        PAIR,
    )

    # 2 * 2.9 is cut to 5, so the positions are those of 2 to 5.
    np.testing.assert_allclose(outputs["y"].ravel(), [0, 0.1, 0.5, 0.9, 1], atol=1e-6)


def test_pixel_centres_can_be_left_out(tmp_path):
    def build(x):
        options = {"scale_factor_height": 1, "scale_factor_width": 3, "align_corners": False}
        return {
            "corner": mb.upsample_bilinear(x=x, half_pixel_centers=False, **options),
            "centre": mb.upsample_bilinear(x=x, half_pixel_centers=True, **options),
        }

    outputs = run_program(tmp_path / "a.mlpackage", build, PAIR)

    np.testing.assert_allclose(outputs["corner"].ravel(), POSITIONS["DEFAULT"][1], atol=1e-6)
    np.testing.assert_allclose(
        outputs["centre"].ravel(), POSITIONS["UNALIGN_CORNERS"][1], atol=1e-6
    )


def test_aligned_corners_with_pixel_centres_are_refused(tmp_path):
    with pytest.raises(
        ExportError, match="align_corners and half_pixel_centers exclude each other"
    ):
        run_program(
            tmp_path / "a.mlpackage",
            lambda x: {
                "y": mb.upsample_bilinear(
                    x=x, scale_factor_width=2, align_corners=True, half_pixel_centers=True
                )
            },
            PAIR,
        )


def test_nearest_neighbours_are_repeated(tmp_path):
    x = np.float32([[[1, 2], [3, 4]]])

    def build(x):
        return {
            "factor": mb.upsample_nearest_neighbor(
                x=x, scale_factor_height=2.0, scale_factor_width=3.0
            ),
            "size": mb.resize_nearest_neighbor(x=x, target_size_height=4, target_size_width=6),
        }

    outputs = run_program(tmp_path / "a.mlpackage", build, x)

    expected = [[1, 1, 1, 2, 2, 2]] * 2 + [[3, 3, 3, 4, 4, 4]] * 2
    assert outputs["factor"].tolist() == outputs["size"].tolist() == [expected]


def test_nearest_neighbours_of_fractional_factors_are_refused(tmp_path):
    with pytest.raises(
        ExportError, match="nearest neighbours are taken for whole factors only, got 2 to 3"
    ):
        run_program(
            tmp_path / "a.mlpackage",
            lambda x: {"y": mb.upsample_nearest_neighbor(x=x, scale_factor_width=1.5)},
            PAIR,
        )


def test_resizing_to_a_shape(tmp_path):
    def build(x):
        options = {"x": x, "resized_dims": np.uint32(2)}
        return {
            "linear": mb.resize(shape=[1, 7, 0], sampling_mode="UNALIGN_CORNERS", **options),
            "nearest": mb.resize(
                shape=[8, 12],
                interpolation_mode="NEAREST_NEIGHBOR",
                sampling_mode="DEFAULT",
                **options,
            ),
        }

    outputs = run_program(tmp_path / "a.mlpackage", build, IMAGE, target=IOS17)

    expected = F.interpolate(torch.from_numpy(IMAGE), size=(7, 6), mode="bilinear")
    np.testing.assert_allclose(outputs["linear"], expected.numpy(), rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(outputs["nearest"], IMAGE.repeat(2, 2).repeat(2, 3))


def test_unknown_sampling_mode_is_refused(tmp_path):
    path = save_program(
        tmp_path / "a.mlpackage",
        lambda x: {"y": mb.resize_bilinear(x=x, target_size_width=5)},
        PAIR,
    )
    with edited(path) as model:
        constants = model.mlProgram.functions["main"].block_specializations["CoreML6"].operations
        (mode,) = (o for o in constants if o.outputs[0].name.endswith("sampling_mode_0"))
        mode.attributes["val"].immediateValue.tensor.strings.values[0] = "CUBIC"

    with pytest.raises(ExportError, match="sampling_mode must be one of .* got 'CUBIC'"):
        Interpreter(load_package(path)).run({"x": PAIR})
