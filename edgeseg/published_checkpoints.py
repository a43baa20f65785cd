"""Checkpoints that others publish and that load here: where they are, and under which licence.

Nothing here is ever downloaded unless a user asks for it. Sources: the checkpoint tables of
https://github.com/facebookresearch/segment-anything and https://github.com/chongzhou96/EdgeSAM for
addresses, licences and training data; the SHA-256 of the SAM files as micro-sam
(https://github.com/computational-cell-analytics/micro-sam) checks them. For the EdgeSAM files no
published hash was found.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class PublishedCheckpoint:
    """One file that others publish.

    Attributes:
        name: What the model is called here.
        model: Registry name of the network.
        image_size: Side of the square input, in pixels.
        num_parameters: Stored numbers without norm statistics.
        link: Where its authors publish it.
        sha256: Of the file; None if none is known.
        size_bytes: Of the file; None if not known to the byte.
        licence: Of the weights.
        homepage: Of its authors' project.
        trained_on: What the weights have seen.
        description: One sentence.
    """

    name: str
    model: str
    image_size: int
    num_parameters: int
    link: str
    sha256: str | None
    size_bytes: int | None
    licence: str
    homepage: str
    trained_on: str
    description: str


def _sam(
    name: str, model: str, num_parameters: int, file: str, sha256: str, size_bytes: int, use: str
) -> PublishedCheckpoint:
    return PublishedCheckpoint(
        name=name,
        model=model,
        image_size=1024,
        num_parameters=num_parameters,
        link=f"https://dl.fbaipublicfiles.com/segment_anything/{file}",
        sha256=sha256,
        size_bytes=size_bytes,
        licence="Apache-2.0",
        homepage="https://github.com/facebookresearch/segment-anything",
        trained_on="SA-1B (11 million images; SA-1B Dataset Research License)",
        description=f"Segment Anything with a ViT-{model[-1].upper()} encoder; {use}.",
    )


def _edgesam(name: str, file: str, share: str) -> PublishedCheckpoint:
    return PublishedCheckpoint(
        name=name,
        model="edgesam",
        image_size=1024,
        num_parameters=9_582_368,
        link=f"https://huggingface.co/spaces/chongzhou/EdgeSAM/resolve/main/weights/{file}",
        sha256=None,
        size_bytes=None,
        licence="NTU S-Lab License 1.0 (non-commercial)",
        homepage="https://github.com/chongzhou96/EdgeSAM",
        trained_on=f"{share} of SA-1B (SA-1B Dataset Research License)",
        description=f"EdgeSAM, distilled from SAM on {share} of SA-1B; CNN encoder (RepViT-M1).",
    )


_ALL = (
    _sam(
        "sam_vit_b",
        "vit_b",
        93_735_728,
        "sam_vit_b_01ec64.pth",
        "ec2df62732614e57411cdcf32a23ffdf28910380d03139ee0f4fcbe91eb8c912",
        375_042_383,
        "the smallest of the three",
    ),
    _sam(
        "sam_vit_l",
        "vit_l",
        312_343_088,
        "sam_vit_l_0b3195.pth",
        "3adcc4315b642a4d2101128f611684e8734c41232a17c648ed1693702a49a622",
        1_249_524_607,
        "the middle one",
    ),
    _sam(
        "sam_vit_h",
        "vit_h",
        641_090_864,
        "sam_vit_h_4b8939.pth",
        "a7bf3b02f3ebf1267aba913ff637d9a2d5c33d3173bb679e46d9f338c26f262e",
        2_564_550_879,
        "the largest",
    ),
    _edgesam("edgesam", "edge_sam.pth", "1 %"),
    _edgesam("edgesam_3x", "edge_sam_3x.pth", "3 %"),
)

PUBLISHED: dict[str, PublishedCheckpoint] = {checkpoint.name: checkpoint for checkpoint in _ALL}
"""Name here -> checkpoint."""
