import numpy as np
import pytest
import torch
import torch.nn.functional as F
from coremltools.converters.mil import Builder as mb
from mil_programs import IOS18, edited, operation_of, run_program, save_program

from edgeseg.errors import ExportError
from edgeseg.exporter.mil.interpreter import Interpreter
from edgeseg.exporter.mil.package import load_package

RANDOM = np.random.default_rng(1)


def drawn(*shape):
    return RANDOM.integers(-4, 5, shape).astype(np.float32)


def test_linear_multiplies_by_the_transposed_weight(tmp_path):
    x, weight, bias = (
        np.float32([[1, 2, 3]]),
        np.float32([[1, 0, 2], [0, -1, 0]]),
        np.float32([10, 20]),
    )

    outputs = run_program(
        tmp_path / "a.mlpackage", lambda x: {"y": mb.linear(x=x, weight=weight, bias=bias)}, x
    )

    assert outputs["y"].tolist() == [[17, 18]]  # 1 + 6 + 10, -2 + 20


@pytest.mark.parametrize(
    ("x_shape", "y_shape", "options", "equation"),
    [
        ((2, 3), (3, 4), {}, "ik,kj->ij"),
        ((5, 1, 2, 3), (4, 3, 2), {}, "aik,bkj->abij"),  # batches are broadcast
        ((2, 3, 2), (2, 3, 4), {"transpose_x": True}, "aki,akj->aij"),
        ((2, 2, 3), (2, 4, 3), {"transpose_y": True}, "aik,ajk->aij"),
        ((3,), (3, 4), {}, "k,kj->j"),
    ],
)
def test_matrix_product(tmp_path, x_shape, y_shape, options, equation):
    x, y = drawn(*x_shape), drawn(*y_shape)

    outputs = run_program(
        tmp_path / "a.mlpackage", lambda x, y: {"z": mb.matmul(x=x, y=y, **options)}, x, y
    )

    expected = np.einsum(equation, x.squeeze(1) if x.ndim == 4 else x, y)
    np.testing.assert_array_equal(outputs["z"], expected)


def test_einsum_sums_over_the_shared_letter(tmp_path):
    x, y = drawn(2, 3, 4, 5), drawn(2, 5, 4, 6)

    outputs = run_program(
        tmp_path / "a.mlpackage",
        lambda x, y: {"z": mb.einsum(values=(x, y), equation="nchw,nwhu->nchu")},
        x,
        y,
    )

    # For every n and h, the matrices (c, w) and (w, u) are multiplied.
    products = x.transpose(0, 2, 1, 3) @ y.transpose(0, 2, 1, 3)
    np.testing.assert_array_equal(outputs["z"], products.transpose(0, 2, 1, 3))


def test_einsum_of_another_equation_is_refused(tmp_path):
    x = drawn(1, 2, 1, 2)
    path = save_program(
        tmp_path / "a.mlpackage",
        lambda x: {"y": mb.einsum(values=(x, x), equation="nchw,nwhu->nchu")},
        x,
    )
    with edited(path) as model:
        equation = operation_of(model, "const").attributes["val"].immediateValue.tensor.strings
        equation.values[0] = "nchw,nwhu->nuhc"

    with pytest.raises(ExportError, match="equation must be one of .* got 'nchw,nwhu->nuhc'"):
        Interpreter(load_package(path)).run({"x": x})


@pytest.mark.parametrize("mask", [None, "flags", "numbers"])
def test_attention_weighs_values_by_scores(tmp_path, mask):
    query, key = RANDOM.normal(size=(2, 3, 4, 8)), RANDOM.normal(size=(2, 3, 5, 8))
    value = RANDOM.normal(size=(3, 5, 6)).astype(np.float32)
    allowed = RANDOM.random((4, 5)) < 0.7
    allowed[:, 0] = True
    added = RANDOM.normal(size=(4, 5)).astype(np.float32)

    def build(x, y):
        options = {"flags": {"attn_mask": allowed}, "numbers": {"attn_mask": added}}.get(mask, {})
        values = np.broadcast_to(value, (2, 3, 5, 6)).copy()
        return {"z": mb.scaled_dot_product_attention(query=x, key=y, value=values, **options)}

    x, y = query.astype(np.float32), key.astype(np.float32)
    outputs = run_program(tmp_path / "a.mlpackage", build, x, y, target=IOS18)

    torch_mask = {"flags": torch.from_numpy(allowed), "numbers": torch.from_numpy(added)}.get(mask)
    expected = F.scaled_dot_product_attention(
        torch.from_numpy(x),
        torch.from_numpy(y),
        torch.from_numpy(value).expand(2, 3, 5, 6),
        attn_mask=torch_mask,
    )
    np.testing.assert_allclose(outputs["z"], expected.numpy(), rtol=1e-5, atol=1e-6)


def test_attention_is_not_known_before_ios_18(tmp_path):
    x = drawn(1, 2, 3)
    path = save_program(
        tmp_path / "a.mlpackage",
        lambda x: {"y": mb.scaled_dot_product_attention(query=x, key=x, value=x)},
        x,
        target=IOS18,
    )
    with edited(path) as model:
        main = model.mlProgram.functions["main"]
        main.block_specializations["CoreML7"].CopyFrom(main.block_specializations["CoreML8"])
        main.opset = "CoreML7"

    with pytest.raises(ExportError, match="scaled_dot_product_attention with output 'y' is not"):
        Interpreter(load_package(path))


# Two channels, so that a norm over the wrong dimension shows.
X = np.float32([[[[1, 3], [5, 7]], [[0, 0], [0, 40]]]])


def test_batch_norm_uses_the_stored_statistics(tmp_path):
    def build(x):
        return {
            "y": mb.batch_norm(
                x=x,
                mean=np.float32([1, 0]),
                variance=np.float32([3, 99]),
                gamma=np.float32([2, 10]),
                beta=np.float32([0, 1]),
                epsilon=1.0,
            )
        }

    outputs = run_program(tmp_path / "a.mlpackage", build, X)

    # Channel 0: (x - 1) / sqrt(3 + 1) * 2; channel 1: x / sqrt(99 + 1) * 10 + 1.
    np.testing.assert_allclose(outputs["y"], [[[[0, 2], [4, 6]], [[1, 1], [1, 41]]]], rtol=1e-6)


def test_instance_norm_uses_the_statistics_of_each_channel(tmp_path):
    def build(x):
        return {
            "y": mb.instance_norm(
                x=x, gamma=np.float32([1, 3]), beta=np.float32([0, 5]), epsilon=4.0
            )
        }

    outputs = run_program(tmp_path / "a.mlpackage", build, X)

    # Channel 0: mean 4, variance 5, so over 3. Channel 1: mean 10, variance 300, over sqrt(304).
    expected = np.float32([[[-1, -1 / 3], [1 / 3, 1]], [[0, 0], [0, 0]]])
    expected[1] = (X[0, 1] - 10) / np.sqrt(304) * 3 + 5
    np.testing.assert_allclose(outputs["y"][0], expected, rtol=1e-6)


@pytest.mark.parametrize("axes", [[1], [-1], [1, 3], [3, 2]])
def test_layer_norm_over_any_axes(tmp_path, axes):
    x = RANDOM.normal(size=(2, 3, 4, 5)).astype(np.float32)
    over = sorted(axis % 4 for axis in axes)
    shape = [x.shape[axis] for axis in over]
    gamma, beta = (RANDOM.normal(size=shape).astype(np.float32) for _ in range(2))

    def build(x):
        return {"y": mb.layer_norm(x=x, axes=axes, gamma=gamma, beta=beta, epsilon=0.5)}

    outputs = run_program(tmp_path / "a.mlpackage", build, x)

    # The same through torch's kernel: normalised dimensions last, and back again.
    order = [axis for axis in range(4) if axis not in over] + over
    last = F.layer_norm(
        torch.from_numpy(x.transpose(order).copy()),
        shape,
        torch.from_numpy(gamma),
        torch.from_numpy(beta),
        0.5,
    )
    expected = last.numpy().transpose(np.argsort(order))
    np.testing.assert_allclose(outputs["y"], expected, rtol=1e-4, atol=1e-5)


def test_layer_norm_without_axes_is_over_all(tmp_path):
    x = np.float32([[1, 3], [5, 7]])  # mean 4, variance 5
    path = save_program(
        tmp_path / "a.mlpackage", lambda x: {"y": mb.layer_norm(x=x, axes=[0, 1], epsilon=4.0)}, x
    )
    with edited(path) as model:
        del operation_of(model, "layer_norm").inputs["axes"]

    outputs = Interpreter(load_package(path)).run({"x": x})

    np.testing.assert_allclose(outputs["y"], [[-1, -1 / 3], [1 / 3, 1]], rtol=1e-6)


def test_l2_norm_runs_over_the_last_three_dimensions(tmp_path):
    x = np.zeros((2, 1, 2, 1), np.float32)
    x[0, 0, :, 0], x[1, 0, :, 0] = (3, 4), (0, 2)

    outputs = run_program(
        tmp_path / "a.mlpackage", lambda x: {"y": mb.l2_norm(x=x, epsilon=0.0)}, x
    )

    np.testing.assert_allclose(outputs["y"].ravel(), [0.6, 0.8, 0, 1], rtol=1e-6)
