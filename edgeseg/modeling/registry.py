"""Models by name. The same string is the key here, the folder in `models/` and the builder.

Every builder takes the input size and whether to start from ImageNet weights, and returns a
`PromptableNet` whose other weights are random.
"""

from collections.abc import Callable
from functools import partial

from edgeseg.errors import ConfigError, WeightsError
from edgeseg.modeling.encoders.peers import ResNet18Encoder, TinyViTEncoder
from edgeseg.modeling.encoders.pyramid import PyramidEncoder
from edgeseg.modeling.encoders.repvit import RepViTEncoder
from edgeseg.modeling.encoders.vit import SamViT
from edgeseg.modeling.imagenet import load_imagenet
from edgeseg.modeling.mask_decoder import MaskDecoder
from edgeseg.modeling.prompt_encoder import PromptEncoder
from edgeseg.modeling.promptable import PromptableNet, check_image_size

Builder = Callable[[int | None, bool], PromptableNet]


def edgesam(image_size: int | None = None, imagenet: bool = False) -> PromptableNet:
    """Build the published EdgeSAM graph (9,582,368 parameters), 1024 input by default."""
    _no_imagenet("edgesam", imagenet)
    return PromptableNet(
        RepViTEncoder(), PromptEncoder(256), MaskDecoder(256), _or(image_size, 1024), "edgesam"
    )


def mobilesam_form(image_size: int | None = None, imagenet: bool = False) -> PromptableNet:
    """Build the form of MobileSAM, to be timed: its checkpoints have other names."""
    _no_imagenet("mobilesam_form", imagenet)
    parts = TinyViTEncoder(), PromptEncoder(256), MaskDecoder(256)
    return PromptableNet(*parts, _or(image_size, 1024), "mobilesam_form")


def nanosam_form(image_size: int | None = None, imagenet: bool = False) -> PromptableNet:
    """Build the form of NanoSAM, to be timed: its checkpoints have other names."""
    _no_imagenet("nanosam_form", imagenet)
    parts = ResNet18Encoder(), PromptEncoder(256), MaskDecoder(256)
    return PromptableNet(*parts, _or(image_size, 1024), "nanosam_form")


def _pyramid_model(
    name: str,
    backbone: str,
    default_size: int,
    embed_dim: int,
    mlp_dim: int,
    deepest_stride: int,
    separable_neck: bool,
    image_size: int | None = None,
    imagenet: bool = False,
) -> PromptableNet:
    encoder = PyramidEncoder(backbone, embed_dim, deepest_stride, separable_neck)
    if imagenet:
        load_imagenet(encoder, backbone)
    decoder = MaskDecoder(
        embed_dim,
        mlp_dim,
        high_res_channels=(encoder.stride8_channels, encoder.stride4_channels),
        refine=True,
    )
    prompt_encoder = PromptEncoder(embed_dim, prompt_map_width=16)
    return PromptableNet(encoder, prompt_encoder, decoder, _or(image_size, default_size), name)


edgeseg_m = partial(_pyramid_model, "edgeseg_m", "efficientnet_lite2", 512, 256, 2048, 32, False)
"""The teacher-class CNN: EfficientNet-Lite2 pyramid, SAM's decoder, 512 input."""
edgeseg_s = partial(_pyramid_model, "edgeseg_s", "efficientnet_lite0", 512, 256, 2048, 32, True)
"""The student for phones and laptops: EfficientNet-Lite0 pyramid, SAM's decoder, 512 input.

Its neck is separable: as one 3x3 convolution it was 23 % of the encoder's work.
"""
edgeseg_xs = partial(_pyramid_model, "edgeseg_xs", "efficientnet_lite0", 384, 128, 512, 16, True)
"""For the smallest devices: EfficientNet-Lite0 down to stride 16, a half-width decoder.

Chosen by latency (`benchmarks/small_encoders.py`) among ten: 32 ms at 384 pixels, where the fastest
pure CNNs of timm take 19 to 28; but those have no ImageNet weights that travel in a package, and
with few images these decide.
"""


def _sam_vit(
    name: str,
    width: int,
    depth: int,
    num_heads: int,
    global_blocks: tuple[int, ...],
    default_size: int = 1024,
    embed_dim: int = 256,
    window_size: int = 14,
    image_size: int | None = None,
    imagenet: bool = False,
) -> PromptableNet:
    _no_imagenet(name, imagenet)
    size = _or(image_size, default_size)
    check_image_size(size)
    encoder = SamViT(size, width, depth, num_heads, global_blocks, embed_dim, window_size)
    return PromptableNet(encoder, PromptEncoder(embed_dim), MaskDecoder(embed_dim), size, name)


vit_h = partial(_sam_vit, "vit_h", 1280, 32, 16, (7, 15, 23, 31))
"""SAM ViT-H, a teacher."""
vit_l = partial(_sam_vit, "vit_l", 1024, 24, 16, (5, 11, 17, 23))
"""SAM ViT-L, a teacher."""
vit_b = partial(_sam_vit, "vit_b", 768, 12, 12, (2, 5, 8, 11))
"""SAM ViT-B, a teacher."""
vit_t_teacher = partial(_sam_vit, "vit_t_teacher", 192, 12, 3, (2, 5, 8, 11), 256, 256, 8)
"""A ViT in SAM's form that two cores can train: 256 input, windows of half the grid."""
vit_tiny = partial(_sam_vit, "vit_tiny", 64, 2, 2, (1,), 128, 32)
"""A ViT small enough for tests: 128 input, embedding 32 wide."""
edgeseg_tiny = partial(_pyramid_model, "edgeseg_tiny", "efficientnet_lite0", 64, 32, 64, 16, True)
"""A student small enough for tests: 64 input, embedding 32 wide."""

MODELS: dict[str, Builder] = {
    "edgesam": edgesam,
    "edgeseg_m": edgeseg_m,
    "edgeseg_s": edgeseg_s,
    "edgeseg_xs": edgeseg_xs,
    "edgeseg_tiny": edgeseg_tiny,
    "mobilesam_form": mobilesam_form,
    "nanosam_form": nanosam_form,
    "vit_b": vit_b,
    "vit_h": vit_h,
    "vit_l": vit_l,
    "vit_t_teacher": vit_t_teacher,
    "vit_tiny": vit_tiny,
}


def build_model(name: str, image_size: int | None = None, imagenet: bool = False) -> PromptableNet:
    """Build a model by name with random weights.

    Args:
        name: A key of `MODELS`.
        image_size: Side of the square input in pixels, a multiple of 64; default: the model's own.
        imagenet: Start the backbone from ImageNet weights, for models that have them.

    Raises:
        ConfigError: The name is unknown.
        ImageError: The size is not a multiple of 64.
        WeightsError: There are no ImageNet weights for this model.
    """
    if name not in MODELS:
        raise ConfigError(f"unknown model {name!r}; choose one of {', '.join(sorted(MODELS))}")
    return MODELS[name](image_size=image_size, imagenet=imagenet)  # type: ignore[call-arg]


def _or(image_size: int | None, default: int) -> int:
    return default if image_size is None else image_size  # 0 is a mistake, not the default


def _no_imagenet(name: str, imagenet: bool) -> None:
    if imagenet:
        raise WeightsError(f"{name} has no ImageNet weights; give a checkpoint or start at random")
