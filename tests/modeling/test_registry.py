import pytest
import torch
from segment_anything import sam_model_registry

from edgeseg.errors import ConfigError, ImageError, WeightsError
from edgeseg.modeling import MODELS, build_model
from edgeseg.modeling.reparam import fuse

SMALL = sorted(set(MODELS) - {"vit_b", "vit_l", "vit_h"})
CONVOLUTIONAL = [name for name in SMALL if not name.startswith(("vit", "mobilesam", "nanosam"))]
DEFAULT_SIZES = {
    "edgesam": 1024,
    "edgeseg_m": 512,
    "edgeseg_s": 512,
    "edgeseg_tiny": 64,
    "edgeseg_xs": 384,
    "mobilesam_form": 1024,
    "nanosam_form": 1024,
    "vit_t_teacher": 256,
    "vit_tiny": 128,
}


@pytest.mark.parametrize("name", SMALL)
def test_a_model_knows_its_name_and_default_size(name):
    net = build_model(name)

    assert (net.name, net.image_size) == (name, DEFAULT_SIZES[name])
    assert net.embed_dim == net.prompt_encoder.no_mask_embed.embedding_dim


@pytest.mark.parametrize("name", SMALL)
@torch.inference_mode()
def test_a_model_works_at_another_size(name):
    net = build_model(name, image_size=192).eval()

    features = net.encode(torch.zeros(1, 3, 192, 192))

    assert net.image_size == 192
    assert features.embedding.shape == (1, net.embed_dim, 12, 12)
    if net.mask_decoder.high_res_s8 is not None:
        assert features.high_res[0].shape == (1, net.embed_dim // 4, 24, 24)
        assert features.high_res[1].shape == (1, net.embed_dim // 8, 48, 48)


@pytest.mark.parametrize("name", ["vit_b", "vit_l", "vit_h"])
def test_teachers_have_every_entry_of_official_checkpoints(name):
    with torch.device("meta"):  # shapes only; ViT-H alone would take 2.5 GB
        ours, official = build_model(name), sam_model_registry[name]()

    expected = {key: tensor.shape for key, tensor in official.state_dict().items()}
    assert {key: tensor.shape for key, tensor in ours.state_dict().items()} == expected
    theirs = official.image_encoder
    assert [block.window_size for block in ours.image_encoder.blocks] == [
        block.window_size for block in theirs.blocks
    ]
    assert ours.image_encoder.blocks[0].attn.num_heads == theirs.blocks[0].attn.num_heads
    assert ours.image_encoder.blocks[0].norm1.eps == theirs.blocks[0].norm1.eps
    assert ours.image_size == 1024


def test_edgesam_has_the_published_number_of_parameters_and_entries():
    net = build_model("edgesam")
    state = net.state_dict()

    assert net.num_parameters() == 9_582_368
    assert len(state) == 821
    for key, shape in {
        "image_encoder.features.0.0.c.weight": (24, 3, 3, 3),
        "image_encoder.features.1.token_mixer.0.conv1.c.weight": (48, 1, 1, 1),
        "image_encoder.features.1.token_mixer.1.fc1.weight": (16, 48, 1, 1),
        "image_encoder.features.4.token_mixer.0.c.weight": (48, 1, 3, 3),
        "image_encoder.features.26.channel_mixer.m.2.c.weight": (384, 768, 1, 1),
        "image_encoder.fuse_stage2.weight": (256, 192, 1, 1),
        "image_encoder.fuse_stage3.op_list.0.weight": (256, 384, 1, 1),
        "image_encoder.neck.3.bias": (256,),
        "prompt_encoder.pe_layer.positional_encoding_gaussian_matrix": (2, 128),
        "prompt_encoder.mask_downscaling.6.weight": (256, 16, 1, 1),
        "mask_decoder.transformer.layers.1.cross_attn_image_to_token.q_proj.weight": (128, 256),
        "mask_decoder.output_hypernetworks_mlps.3.layers.2.weight": (32, 256),
        "mask_decoder.iou_prediction_head.layers.2.weight": (4, 256),
    }.items():
        assert state[key].shape == shape


def test_models_are_as_small_as_their_names_say():
    sizes = {name: build_model(name).num_parameters() for name in CONVOLUTIONAL}

    assert sizes["edgeseg_xs"] < 2_500_000
    assert sizes["edgeseg_xs"] < sizes["edgeseg_s"] < sizes["edgeseg_m"] < 10_000_000


@pytest.mark.parametrize("name", CONVOLUTIONAL)
def test_image_encoders_are_made_of_what_every_device_runs(name):
    encoder = fuse(build_model(name).image_encoder)

    leaves = {type(part).__name__ for part in encoder.modules() if not list(part.children())}
    activations = {"ReLU", "ReLU6", "GELU", "Sigmoid", "Identity"}
    assert leaves <= {"Conv2d", "LayerNorm2d"} | activations  # no attention, no batch norm


@pytest.mark.parametrize("name", ["edgeseg_tiny", "vit_tiny"])
@pytest.mark.parametrize(
    ("image_size", "nearest"), [(100, 128), (0, 64), (-64, 64), (95, 64), (1000, 1024)]
)
def test_a_size_that_is_no_multiple_of_64_is_refused(name, image_size, nearest):
    with pytest.raises(ImageError, match=f"multiple of 64, got {image_size}; use {nearest}$"):
        build_model(name, image_size=image_size)


def test_an_unknown_model_lists_the_known_ones():
    with pytest.raises(ConfigError, match="unknown model 'sam'; choose one of edgesam, edgeseg_m"):
        build_model("sam")


@pytest.mark.parametrize("name", ["edgesam", "vit_tiny"])
def test_imagenet_weights_are_refused_where_there_are_none(name):
    with pytest.raises(WeightsError, match=f"{name} has no ImageNet weights; give a checkpoint"):
        build_model(name, imagenet=True)


def test_the_forms_of_peers_have_the_size_that_is_published_for_them():
    with torch.device("meta"):
        mobilesam, nanosam = build_model("mobilesam_form"), build_model("nanosam_form")

    def millions(module):
        return sum(parameter.numel() for parameter in module.parameters()) / 1e6

    assert millions(mobilesam) == pytest.approx(9.8, abs=0.1)  # paper: 9.66 M with the decoder
    # ResNet-18 without classifier 11.18 M, transposed convolution 0.52 M, neck 0.66 M
    assert millions(nanosam.image_encoder) == pytest.approx(12.36, abs=0.01)
