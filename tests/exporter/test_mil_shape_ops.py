import numpy as np
import pytest
from coremltools.converters.mil import Builder as mb
from mil_programs import IOS16, IOS17, edited, operation_of, run_program, save_program

from edgeseg.errors import ExportError
from edgeseg.exporter.mil.interpreter import Interpreter
from edgeseg.exporter.mil.package import load_package

X = np.arange(24, dtype=np.float32).reshape(2, 3, 4)


def outputs_of(tmp_path, build, x=X, target=IOS16):
    return run_program(tmp_path / "a.mlpackage", build, x, target=target)


def assert_equal(outputs, expected):
    assert set(outputs) == set(expected)
    for name, array in expected.items():
        np.testing.assert_array_equal(outputs[name], array, err_msg=name)


def test_order_and_sizes_change_without_the_values(tmp_path):
    def build(x):
        return {
            "reshaped": mb.reshape(x=x, shape=[4, -1]),
            "kept": mb.reshape(x=x, shape=[0, -1, 2]),
            "turned": mb.transpose(x=x, perm=[-1, 0, 1]),
            "wider": mb.expand_dims(x=x, axes=[0, -1]),
            "narrower": mb.squeeze(x=mb.expand_dims(x=x, axes=[1, 2]), axes=[1]),
            "narrowest": mb.squeeze(x=mb.expand_dims(x=x, axes=[0, 3])),
            "flat": mb.flatten2d(x=x, axis=2),
            "flipped": mb.reverse(x=x, axes=[0, 2]),
            "all_flipped": mb.reverse(x=x),
        }

    outputs = outputs_of(tmp_path, build)

    assert_equal(
        outputs,
        {
            "reshaped": X.reshape(4, 6),
            "kept": X.reshape(2, 6, 2),
            "turned": np.moveaxis(X, 2, 0),
            "wider": X[None, ..., None],
            "narrower": X[:, None],
            "narrowest": X,
            "flat": X.reshape(6, 4),
            "flipped": X[::-1, :, ::-1],
            "all_flipped": X[::-1, ::-1, ::-1],
        },
    )


def test_zero_in_a_shape_counts_from_the_right_since_ios_17(tmp_path):
    def build(x):
        return {"y": mb.reshape(x=x, shape=[1, 0, -1, 0])}

    # The last 0 is the last size, 50; the other 0 has nothing at its place and becomes 1.
    outputs = outputs_of(tmp_path, build, np.zeros((2, 50), np.float32), IOS17)

    assert outputs["y"].shape == (1, 1, 2, 50)


def test_zero_in_a_shape_of_another_rank_is_refused_before_ios_17(tmp_path):
    path = save_program(tmp_path / "a.mlpackage", lambda x: {"y": mb.reshape(x=x, shape=[6, 4])}, X)
    with edited(path) as model:
        operation_of(model, "const").attributes["val"].immediateValue.tensor.ints.values[0] = 0

    with pytest.raises(ExportError, match=r"shape with 0 must have 3 sizes, got \(0, 4\)"):
        Interpreter(load_package(path)).run({"x": X})


def test_tensors_are_joined(tmp_path):
    def build(x):
        more = mb.add(x=x, y=np.float32(100))
        return {
            "joined": mb.concat(values=(x, more), axis=-1),
            "mixed": mb.concat(values=(x, more), axis=1, interleave=True),
            "stacked": mb.stack(values=(x, more), axis=1),
            "tiled": mb.tile(x=x, reps=[1, 2, 3]),
        }

    outputs = outputs_of(tmp_path, build)

    mixed = np.zeros((2, 6, 4), np.float32)
    mixed[:, 0::2], mixed[:, 1::2] = X, X + 100
    assert_equal(
        outputs,
        {
            "joined": np.concatenate([X, X + 100], 2),
            "mixed": mixed,
            "stacked": np.stack([X, X + 100], 1),
            "tiled": np.tile(X, (1, 2, 3)),
        },
    )


def test_tensors_are_split(tmp_path):
    def build(x):
        left, right = mb.split(x=x, num_splits=2, axis=-1)
        one, two = mb.split(x=x, split_sizes=[1, 2], axis=1)
        return {"left": left, "right": right, "one": one, "two": two}

    outputs = outputs_of(tmp_path, build)

    assert_equal(
        outputs, {"left": X[..., :2], "right": X[..., 2:], "one": X[:, :1], "two": X[:, 1:]}
    )


@pytest.mark.parametrize("mode", ["constant", "reflect", "replicate"])
def test_padding_surrounds_the_last_dimensions(tmp_path, mode):
    def build(x):
        return {
            "one": mb.pad(x=x, pad=[1, 2], mode=mode, constant_val=np.float32(9)),
            "two": mb.pad(x=x, pad=[2, 0, 0, 3], mode=mode, constant_val=np.float32(9)),
        }

    outputs = outputs_of(tmp_path, build)

    options = {"mode": {"replicate": "edge"}.get(mode, mode)}
    options |= {"constant_values": 9} if mode == "constant" else {}
    assert_equal(
        outputs,
        {
            "one": np.pad(X, [(0, 0), (0, 0), (1, 2)], **options),
            "two": np.pad(X, [(0, 0), (2, 0), (0, 3)], **options),
        },
    )


def test_reflection_needs_enough_elements(tmp_path):
    path = save_program(
        tmp_path / "a.mlpackage", lambda x: {"y": mb.pad(x=x, pad=[3, 0], mode="reflect")}, X
    )
    with edited(path) as model:
        operation_of(model, "const").attributes["val"].immediateValue.tensor.ints.values[0] = 4

    with pytest.raises(ExportError, match=r"reflect can pad 4 elements by 3, got \(4, 0\)"):
        Interpreter(load_package(path)).run({"x": X})


def test_unknown_padding_mode_is_refused(tmp_path):
    path = save_program(
        tmp_path / "a.mlpackage", lambda x: {"y": mb.pad(x=x, pad=[1, 0], mode="reflect")}, X
    )
    with edited(path) as model:
        names = model.mlProgram.functions["main"].block_specializations["CoreML6"].operations
        (mode,) = (o for o in names if o.outputs[0].name == "pad_0_mode_0")
        mode.attributes["val"].immediateValue.tensor.strings.values[0] = "circular"

    with pytest.raises(ExportError, match="mode must be constant, reflect or replicate, got 'circ"):
        Interpreter(load_package(path)).run({"x": X})


def test_borders_are_cropped(tmp_path):
    outputs = outputs_of(
        tmp_path, lambda x: {"y": mb.crop(x=x, crop_height=[1, 0], crop_width=[0, 2])}
    )

    assert_equal(outputs, {"y": X[:, 1:, :2]})


def test_pixels_move_between_channels_and_space(tmp_path):
    x = np.arange(2 * 4 * 2 * 3, dtype=np.float32).reshape(2, 4, 2, 3)

    def build(x):
        spread = mb.pixel_shuffle(x=x, upscale_factor=2)
        return {
            "spread": spread,
            "back": mb.pixel_unshuffle(x=spread, downscale_factor=np.uint32(2)),
        }

    outputs = outputs_of(tmp_path, build, x)

    # Channel 2 * i + j holds the pixels at row i, column j of every 2 x 2 block.
    spread = np.zeros((2, 1, 4, 6), np.float32)
    for i in range(2):
        for j in range(2):
            spread[:, 0, i::2, j::2] = x[:, 2 * i + j]
    assert_equal(outputs, {"spread": spread, "back": x})


def test_a_band_around_the_diagonal_is_kept(tmp_path):
    x = np.ones((1, 3, 4), np.float32)

    def build(x):
        return {
            "band": mb.band_part(x=x, lower=0, upper=1),
            "lower": mb.band_part(x=x, lower=-1, upper=0),
            "upper": mb.band_part(x=x, lower=0, upper=-1),
        }

    outputs = outputs_of(tmp_path, build, x)

    assert_equal(
        outputs,
        {
            "band": np.float32([[[1, 1, 0, 0], [0, 1, 1, 0], [0, 0, 1, 1]]]),
            "lower": np.tril(x),
            "upper": np.triu(x),
        },
    )
