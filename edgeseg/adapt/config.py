"""The settings of an adaptation."""

from pydantic import Field

from edgeseg.adapt.settings import NeckDeltaSettings, PackSettings
from edgeseg.adapt.stage import AdaptStageConfig
from edgeseg.data.augmentation import AugmentationConfig, ColorConfig, CropConfig
from edgeseg.distill.stage_config import Table
from edgeseg.evaluation.config import EvaluationConfig


class AdaptEvaluationConfig(EvaluationConfig):
    """What a pack is judged by: `edgeseg evaluate` without floors, made small."""

    prompt_sets: tuple[str, ...] = Field(default=("box", "center"), min_length=1)
    max_objects_an_image: int | None = Field(default=8, ge=1)
    boundary: bool = False
    grabcut: None = None


class AdaptConfig(Table):
    """How a domain's pack is made.

    Attributes:
        seed: Of views, order and prompts.
        pack: What is built.
        views: Ways in which each training image is seen; the first is the image as it is.
        augmentation: What may happen to an image in the others.
        training: How the pack learns.
        max_vectors: Training images whose features are kept for the router.
        evaluation: What it is judged by, on images it was not trained on.
        workers: Processes that read images; 0 reads in the training process.
    """

    seed: int = Field(default=0, ge=0)
    pack: PackSettings = Field(default=NeckDeltaSettings(), discriminator="kind")
    views: int = Field(default=4, ge=1)
    augmentation: AugmentationConfig = AugmentationConfig(crop=CropConfig(), color=ColorConfig())
    training: AdaptStageConfig = AdaptStageConfig()
    max_vectors: int = Field(default=30, ge=2)
    evaluation: AdaptEvaluationConfig = AdaptEvaluationConfig()
    workers: int = Field(default=1, ge=0)
