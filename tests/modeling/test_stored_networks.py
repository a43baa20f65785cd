import pytest
import torch

from edgeseg.modeling.registry import build_model
from edgeseg.modeling.stored_networks import Recognised, recognise_tensors


def shapes_of(name):
    with torch.device("meta"):
        net = build_model(name)
    return {key: tuple(tensor.shape) for key, tensor in net.state_dict().items()}


@pytest.mark.parametrize("name", ["edgesam", "vit_b"])
def test_networks_of_others_are_recognised_by_names_and_shapes(name):
    assert recognise_tensors(shapes_of(name), "a.pth") == Recognised(name)


def test_the_largest_network_takes_no_memory_to_be_recognised():
    assert recognise_tensors(shapes_of("vit_h"), "a.pth") == Recognised("vit_h")


def test_a_tensor_of_another_shape_is_named():
    shapes = shapes_of("edgesam") | {"mask_decoder.iou_token.weight": (1, 128)}

    found = recognise_tensors(shapes, "a.pth")

    assert found.model == "edgesam"
    assert (
        "other shape: mask_decoder.iou_token.weight (1, 128) instead of (1, 256)" in found.problem
    )


def test_an_unknown_network_is_none():
    found = recognise_tensors({"conv.weight": (1, 2)}, "a.pth")

    assert found.model is None
    assert "its first entries are conv.weight" in found.problem


@pytest.mark.parametrize("shape", [(2**62, 2**62), (2**63,), (-1,)])
def test_shapes_that_no_tensor_has_are_told(shape):
    found = recognise_tensors({"w": shape}, "a.pth")

    assert found.model is None
    assert found.problem.startswith("a.pth has impossible shapes: ")
