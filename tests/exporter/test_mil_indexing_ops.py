import numpy as np
import pytest
from coremltools.converters.mil import Builder as mb
from mil_programs import IOS16, IOS17, run_program

from edgeseg.errors import ExportError

X = np.arange(60, dtype=np.float32).reshape(3, 4, 5)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"begin": [1, 0, 2], "end": [3, 4, 5]}, X[1:3, 0:4, 2:5]),
        ({"begin": [0, 3, 4], "end": [3, 0, 1], "stride": [2, -1, -2]}, X[0:3:2, 3:0:-1, 4:1:-2]),
        ({"begin": [-2, 0, 0], "end": [-1, -1, -2]}, X[-2:-1, :-1, :-2]),
        (
            {
                "begin": [2, 1, 0],
                "end": [0, 0, 3],
                "begin_mask": [True, False, False],
                "end_mask": [True, True, False],
            },
            X[:, 1:, :3],
        ),
        (
            {
                "begin": [1, 2, 0],
                "end": [0, 3, 0],
                "squeeze_mask": [True, False, False],
                "end_mask": [False, False, True],
            },
            X[1, 2:3, :],
        ),
        ({"begin": [0, -1, 1], "end": [3, 9, 2], "squeeze_mask": [False, True, True]}, X[:, -1, 1]),
        (
            {
                "begin": [0, 0, 0],
                "end": [0, 0, 0],
                "stride": [1, -1, 1],
                "begin_mask": [True] * 3,
                "end_mask": [True] * 3,
            },
            X[:, ::-1],
        ),
    ],
)
def test_slices_are_those_of_numpy(tmp_path, options, expected):
    outputs = run_program(
        tmp_path / "a.mlpackage", lambda x: {"y": mb.slice_by_index(x=x, **options)}, X
    )

    np.testing.assert_array_equal(outputs["y"], expected)


def test_slices_by_size(tmp_path):
    def build(x):
        return {
            "part": mb.slice_by_size(x=x, begin=[1, 0, 2], size=[2, 3, 1]),
            "rest": mb.slice_by_size(x=x, begin=[0, 1, -2], size=[-1, -1, 2]),
        }

    outputs = run_program(tmp_path / "a.mlpackage", build, X)

    np.testing.assert_array_equal(outputs["part"], X[1:3, 0:3, 2:3])
    np.testing.assert_array_equal(outputs["rest"], X[:, 1:, 3:])


@pytest.mark.parametrize("target", [IOS16, IOS17])
def test_slices_are_gathered_along_an_axis(tmp_path, target):
    places = np.int32([[2, 0], [3, 3]])

    def build(x, y):
        return {
            "matrix": mb.gather(x=x, indices=y, axis=1),
            "vector": mb.gather(x=x, indices=np.int32([4, 0]), axis=-1),
            "single": mb.gather(x=x, indices=np.int32(2), axis=0),
        }

    outputs = run_program(tmp_path / "a.mlpackage", build, X, places, target)

    np.testing.assert_array_equal(outputs["matrix"], np.take(X, places, 1))  # (3, 2, 2, 5)
    np.testing.assert_array_equal(outputs["vector"], X[:, :, [4, 0]])
    np.testing.assert_array_equal(outputs["single"], X[2])


def test_slices_are_gathered_for_each_element_of_a_batch(tmp_path):
    places = np.int32([[3, 0], [1, 1], [2, 3]])
    more = np.random.default_rng(1).integers(0, 5, (3, 4, 2)).astype(np.int32)

    def build(x, y):
        return {
            "rows": mb.gather(x=x, indices=y, axis=1, batch_dims=1),
            "late": mb.gather(x=x, indices=y, axis=2, batch_dims=1),
            "values": mb.gather(x=x, indices=more, axis=2, batch_dims=2),
        }

    outputs = run_program(tmp_path / "a.mlpackage", build, X, places)

    elements = range(3)
    np.testing.assert_array_equal(outputs["rows"], [X[b][places[b]] for b in elements])
    np.testing.assert_array_equal(outputs["late"], [X[b][:, places[b]] for b in elements])
    np.testing.assert_array_equal(outputs["values"], np.take_along_axis(X, more, 2))


@pytest.mark.parametrize("target", [IOS16, IOS17])
def test_values_are_gathered_along_an_axis(tmp_path, target):
    places = np.random.default_rng(0).integers(0, 4, (3, 2, 5)).astype(np.int32)

    outputs = run_program(
        tmp_path / "a.mlpackage",
        lambda x, y: {"z": mb.gather_along_axis(x=x, indices=y, axis=1)},
        X,
        places,
        target,
    )

    np.testing.assert_array_equal(outputs["z"], np.take_along_axis(X, places.astype(np.int64), 1))


@pytest.mark.parametrize("target", [IOS16, IOS17])
def test_positions_are_spelled_out(tmp_path, target):
    def build(x):
        return {
            "values": mb.gather_nd(x=x, indices=np.int32([[0, 1, 2], [2, 3, 4]])),
            "rows": mb.gather_nd(x=x, indices=np.int32([[2, 0]])),
            "batch": mb.gather_nd(x=x, indices=np.int32([[[1]], [[0]], [[3]]]), batch_dims=1),
        }

    outputs = run_program(tmp_path / "a.mlpackage", build, X, target=target)

    assert outputs["values"].tolist() == [X[0, 1, 2], X[2, 3, 4]]
    np.testing.assert_array_equal(outputs["rows"], X[2:3, 0])
    np.testing.assert_array_equal(outputs["batch"], np.stack([X[0, 1], X[1, 0], X[2, 3]])[:, None])


@pytest.mark.parametrize("kind", ["gather", "gather_along_axis", "gather_nd"])
def test_negative_positions_count_from_the_end_before_ios_17(tmp_path, kind):
    x, places = np.float32([[1], [2], [3]]), np.int32([[-1]])

    def build(x, y):
        return {"z": getattr(mb, kind)(x=x, indices=y)}

    outputs = run_program(tmp_path / "a.mlpackage", build, x, places)

    assert outputs["z"].ravel().tolist() == [3]
    with pytest.raises(
        ExportError, match=f"operation {kind} .* indices must not be negative from iOS 17"
    ):
        run_program(tmp_path / "b.mlpackage", build, x, places, IOS17)


@pytest.mark.parametrize("kind", ["gather", "gather_along_axis", "gather_nd"])
@pytest.mark.parametrize("place", [3, -4])
def test_position_outside_of_the_tensor_is_refused(tmp_path, kind, place):
    x, places = np.float32([[1], [2], [3]]), np.int32([[place]])

    with pytest.raises(ExportError, match="indices must lie between -3 and 2"):
        run_program(
            tmp_path / "a.mlpackage",
            lambda x, y: {"z": getattr(mb, kind)(x=x, indices=y)},
            x,
            places,
        )


def test_short_indices_are_taken(tmp_path):
    def build(x, y):
        return {"z": mb.gather(x=x, indices=mb.cast(x=y, dtype="uint16"), axis=0)}

    outputs = run_program(
        tmp_path / "a.mlpackage", build, np.float32([5, 6, 7]), np.int32([2, 0]), IOS17
    )

    assert outputs["z"].tolist() == [7, 5]


def test_tensors_are_made_of_values_and_positions(tmp_path):
    x = np.float32([[0, 2, 0], [3, 0, 4]])

    def build(x):
        return {
            "sizes": mb.shape(x=x),
            "ones": mb.fill(shape=[2, 1], value=np.float32(1.5)),
            "alike": mb.fill_like(ref_tensor=x, value=np.int32(7)),
            "range": mb.range_1d(start=np.int32(7), end=np.int32(0), step=np.int32(-3)),
            "steps": mb.range_1d(start=np.float32(0), end=np.float32(1), step=np.float32(0.4)),
            "places": mb.non_zero(x=x),
            "hot": mb.one_hot(
                indices=np.int32([2, 0]),
                one_hot_vector_size=3,
                axis=0,
                on_value=np.float32(5),
                off_value=np.float32(-1),
            ),
        }

    outputs = run_program(tmp_path / "a.mlpackage", build, x)

    assert {name: value.tolist() for name, value in outputs.items()} == {
        "sizes": [2, 3],
        "ones": [[1.5], [1.5]],
        "alike": [[7, 7, 7], [7, 7, 7]],
        "range": [7, 4, 1],
        "steps": pytest.approx([0, 0.4, 0.8]),
        "places": [[0, 1], [1, 0], [1, 2]],
        "hot": [[-1, 5], [-1, -1], [5, -1]],
    }
