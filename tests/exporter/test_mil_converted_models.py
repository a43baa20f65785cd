"""Torch networks converted as export does, executed from the saved files."""

import functools
import shutil

import coremltools as ct
import coremltools.optimize.coreml as compression
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from mil_programs import IOS16, IOS17, IOS18, WEIGHTS, convert, converter_warnings, save_module
from torch import nn

from edgeseg.errors import ExportError
from edgeseg.exporter.mil.interpreter import Interpreter
from edgeseg.exporter.mil.package import load_package


class Blocks(nn.Module):
    """What encoders are made of, with uneven sizes everywhere."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8), nn.GELU()
        )
        self.depthwise = nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.squeeze, self.excite = nn.Conv2d(8, 4, 1), nn.Conv2d(4, 8, 1)
        self.norm = nn.LayerNorm(8, eps=1e-6)
        self.pointwise = nn.Conv2d(8, 12, 1)
        nn.init.normal_(self.stem[1].running_mean)
        nn.init.uniform_(self.stem[1].running_var, 0.5, 2.0)

    def forward(self, x):
        x = self.stem(x)
        gate = self.excite(F.relu(self.squeeze(x.mean((2, 3), keepdim=True)))).sigmoid()
        x = x + self.depthwise(x) * gate
        x = self.norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        x = F.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=False)
        return self.pointwise(x)


class Attention(nn.Module):
    """What decoders are made of: attention with absent slots, norms, Fourier features, a choice."""

    def __init__(self):
        super().__init__()
        self.project = nn.Linear(16, 48)
        self.out = nn.Linear(16, 16)
        self.norm = nn.LayerNorm(16)
        self.embedding = nn.Parameter(torch.randn(4, 16))
        self.directions = nn.Parameter(torch.randn(2, 8))

    def forward(self, points, labels):
        phase = 2 * torch.pi * points @ self.directions
        tokens = torch.cat([phase.sin(), phase.cos()], -1)  # (2, 5, 16)
        tokens = tokens + self.embedding[labels]
        tokens = torch.where((labels == 3)[..., None], self.embedding[0], tokens)
        q, k, v = self.project(tokens).unflatten(-1, (3, 2, 8)).permute(2, 0, 3, 1, 4)
        scores = q @ k.transpose(-1, -2) / 8**0.5
        scores = scores.masked_fill((labels == 2)[:, None, None, :], -1e4)
        mixed = (scores.softmax(-1) @ v).transpose(1, 2).flatten(2)
        return self.norm(tokens + self.out(mixed))


class Upscaling(nn.Module):
    """What mask heads are made of."""

    def __init__(self):
        super().__init__()
        self.up = nn.ConvTranspose2d(8, 4, 2, stride=2)
        self.up_more = nn.ConvTranspose2d(4, 4, 3, stride=2, padding=1, output_padding=1)
        self.weight = nn.Linear(6, 4)

    def forward(self, x, tokens):
        x = self.up_more(F.gelu(self.up(x)))
        masks = torch.einsum("bnc,bchw->bnhw", self.weight(tokens), x)
        return F.max_pool2d(F.pad(masks, (1, 1, 1, 1)), 3, 2) + F.avg_pool2d(masks, 3, 2, 1)


def built(module):
    torch.manual_seed(0)
    return module().eval()


@functools.cache
def exported(module):
    return torch.export.export(built(module), CASES[module]).run_decompositions({})


IMAGES = (torch.randn(2, 3, 12, 20, generator=torch.Generator().manual_seed(1)),)
PROMPTS = (
    torch.rand(2, 5, 2, generator=torch.Generator().manual_seed(2)),
    torch.tensor([[0, 1, 3, 2, 2], [1, 1, 0, 3, 0]], dtype=torch.int32),
)
MAPS = (torch.randn(1, 8, 3, 5), torch.randn(1, 2, 6))
CASES = {Blocks: IMAGES, Attention: PROMPTS, Upscaling: MAPS}


def named(package, tensors):
    return {f.name: t.numpy() for f, t in zip(package.inputs, tensors, strict=True)}


@pytest.fixture(scope="module")
def packages(tmp_path_factory):
    """Return a function that gives the package of a network, converted once."""
    folder, done = tmp_path_factory.mktemp("converted"), {}

    def package(module, precision, target=IOS16):
        key = f"{module.__name__}_{precision}_{target.name}"
        if key not in done:
            path = folder / f"{key}.mlpackage"
            with converter_warnings():
                convert(exported(module), precision, target).save(str(path))
            done[key] = path
        return load_package(done[key])

    return package


@pytest.mark.parametrize("module", CASES)
@pytest.mark.parametrize("target", [IOS16, IOS17, IOS18])
def test_single_precision_package_equals_the_network(packages, module, target):
    package = packages(module, "FLOAT32", target)

    answer = Interpreter(package).run(named(package, CASES[module]))["answer"]

    expected = built(module)(*CASES[module]).detach().numpy()
    np.testing.assert_allclose(answer, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("module", CASES)
def test_half_precision_package_equals_the_network_with_rounded_weights(packages, module):
    package = packages(module, "FLOAT16")
    rounded = built(module)
    stored = (operation for operation in package.operations if operation.kind == "const")
    assert "fp16" in {operation.outputs[0].type.dtype for operation in stored}

    exact = Interpreter(package).run(named(package, CASES[module]))["answer"]
    half = Interpreter(package, "float16").run(named(package, CASES[module]))["answer"]

    # Weights have 11 bits, so results are off by some thousandths of their size; rounding every
    # result as well changes something, but not more than that.
    expected = rounded(*CASES[module]).detach().numpy()
    np.testing.assert_allclose(exact, expected, rtol=0, atol=5e-3 * np.abs(expected).max())
    np.testing.assert_allclose(half, expected, rtol=0, atol=1e-2 * np.abs(expected).max())
    assert not np.array_equal(exact, half)


def quantised(model):
    operation = compression.OpLinearQuantizerConfig(mode="linear_symmetric", weight_threshold=0)
    config = compression.OptimizationConfig(global_config=operation)
    return compression.linear_quantize_weights(model, config)


def palettized(model, bits):
    operation = compression.OpPalettizerConfig(mode="uniform", nbits=bits, weight_threshold=0)
    config = compression.OptimizationConfig(global_config=operation)
    return compression.palettize_weights(model, config)


COMPRESSIONS = {
    "8-bit": quantised,
    "6-bit palette": lambda model: palettized(model, 6),
    "4-bit palette": lambda model: palettized(model, 4),
}


@pytest.fixture(scope="module")
def models():
    """The network converted for iOS 16 and 18, in memory."""
    with converter_warnings():
        return {target: convert(exported(Blocks), "FLOAT16", target) for target in (IOS16, IOS18)}


@pytest.mark.parametrize("target", [IOS16, IOS18])
@pytest.mark.parametrize("method", COMPRESSIONS)
def test_compressed_package_equals_its_decompressed_weights(models, tmp_path, method, target):
    compressed_path, plain_path = tmp_path / "small.mlpackage", tmp_path / "plain.mlpackage"
    with converter_warnings():
        compressed = COMPRESSIONS[method](models[target])
        compressed.save(str(compressed_path))
        compression.decompress_weights(compressed).save(str(plain_path))
    small, plain = load_package(compressed_path), load_package(plain_path)
    kinds = {operation.kind for operation in small.operations if operation.is_stored}
    assert kinds > {"const"}
    assert all(o.kind == "const" for o in plain.operations if o.is_stored)

    answers = [Interpreter(each).run(named(each, IMAGES))["answer"] for each in (small, plain)]

    np.testing.assert_array_equal(*answers)
    original = built(Blocks)(*IMAGES).detach().numpy()
    assert 0 < np.abs(answers[0] - original).max() < np.abs(original).max()


def test_each_changed_byte_of_the_weights_changes_the_answer_or_is_refused(packages, tmp_path):
    path = shutil.copytree(packages(Upscaling, "FLOAT16").path, tmp_path / "copy.mlpackage")
    content = (path / WEIGHTS).read_bytes()
    inputs = named(load_package(path), MAPS)
    original = Interpreter(load_package(path)).run(inputs)["answer"]

    refused = 0
    for place in range(0, len(content), 13):  # 13 reaches every place within 64 bytes
        changed = bytearray(content)
        changed[place] ^= 0x44  # in a half-precision number: exponent, or middle of the fraction
        (path / WEIGHTS).write_bytes(changed)
        try:
            answer = Interpreter(load_package(path)).run(inputs)["answer"]
        except ExportError:
            refused += 1
        else:
            assert not np.array_equal(answer, original), place

    assert refused > 5


def test_transposed_weight_is_noticed(packages, tmp_path):
    package = packages(Upscaling, "FLOAT32")
    original = Interpreter(package).run(named(package, MAPS))["answer"]
    network = built(Upscaling)
    network.up.weight.data = network.up.weight.data.transpose(2, 3)
    path = save_module(tmp_path / "turned.mlpackage", network, MAPS)

    answer = Interpreter(load_package(path)).run(named(package, MAPS))["answer"]

    assert np.abs(answer - original).max() > 0.01 * np.abs(original).max()


def test_open_sizes_follow_the_input(tmp_path):
    network = nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1), nn.ReLU(), nn.Conv2d(4, 2, 1))
    open_sizes = {2: torch.export.Dim("h", min=6, max=64), 3: torch.export.Dim("w", min=6, max=64)}
    program = torch.export.export(network, IMAGES, dynamic_shapes=(open_sizes,))
    path = tmp_path / "open.mlpackage"
    shape = (2, 3, ct.RangeDim(6, 64, 16), ct.RangeDim(6, 64, 16))
    with converter_warnings():
        inputs = [ct.TensorType("input", shape)]
        convert(program.run_decompositions({}), inputs=inputs).save(str(path))
    x = torch.randn(2, 3, 24, 15)

    answer = Interpreter(load_package(path)).run({"input": x.numpy()})["answer"]

    assert answer.shape == (2, 2, 12, 8)
    np.testing.assert_allclose(answer, network(x).detach().numpy(), rtol=1e-4, atol=1e-5)
    with pytest.raises(ExportError, match=r"'input' fp32 \(2, 3, 6\.\.64, 6\.\.64\) got"):
        Interpreter(load_package(path)).run({"input": np.zeros((2, 3, 5, 16), np.float32)})
