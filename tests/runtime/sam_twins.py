"""SAM and one of our networks with the same random weights; `segment_anything` is the oracle."""

import pytest


def sam_and_ours():
    """Return a `segment_anything` model with 128 pixel input and our segmenter of its weights."""
    torch = pytest.importorskip("torch")
    sam = pytest.importorskip("segment_anything")
    from edgeseg.modeling.registry import build_model
    from edgeseg.modeling.torch_backend import TorchBackend
    from edgeseg.preprocess import PIXEL_MEAN, PIXEL_STD
    from edgeseg.runtime import Segmenter

    torch.manual_seed(0)
    ours = build_model("vit_tiny")
    for parameter in ours.parameters():  # what starts at zero or one would hide a term
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=parameter[0].numel() ** -0.5)
        else:
            torch.nn.init.normal_(parameter, mean=parameter.mean().round().item(), std=0.2)
    encoder = sam.modeling.ImageEncoderViT(
        img_size=128,
        embed_dim=64,
        depth=2,
        num_heads=2,
        out_chans=32,
        norm_layer=lambda width: torch.nn.LayerNorm(width, eps=1e-6),
        use_rel_pos=True,
        window_size=14,
        global_attn_indexes=(1,),
    )
    prompt_encoder = sam.modeling.PromptEncoder(
        embed_dim=32, image_embedding_size=(8, 8), input_image_size=(128, 128), mask_in_chans=16
    )
    transformer = sam.modeling.TwoWayTransformer(2, embedding_dim=32, num_heads=8, mlp_dim=2048)
    decoder = sam.modeling.MaskDecoder(transformer_dim=32, transformer=transformer)
    statistics = PIXEL_MEAN.tolist(), PIXEL_STD.tolist()
    net = sam.modeling.Sam(encoder, prompt_encoder, decoder, *statistics).eval()
    net.load_state_dict(ours.state_dict(), strict=True)
    return net, Segmenter(TorchBackend(ours))
