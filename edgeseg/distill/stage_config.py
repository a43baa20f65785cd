"""The settings of the stages: how long, how fast, against what.

The defaults are the published recipe (Zhou et al. 2023, EdgeSAM, arXiv:2312.06660).
"""

from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator


class Table(BaseModel):
    """A table of the file: frozen, and unknown keys are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class ScheduleConfig(Table):
    """What all stages share: how long, how fast.

    Attributes:
        steps: Optimiser steps; give either this or `epochs`.
        epochs: Passes over the training images.
        batch_size: Images a step, over all processes together.
        learning_rate: After warm-up.
        final_learning_rate: At the end of the cosine.
        backbone_learning_rate_factor: The image encoder's backbone learns this many times as fast.
        warmup_steps: Steps of linear warm-up from zero.
        weight_decay: Of AdamW; norms, biases and embeddings have none.
        max_grad_norm: Gradients are clipped to this norm.
    """

    steps: int | None = Field(default=None, ge=1)
    epochs: float | None = Field(default=None, gt=0)
    batch_size: int = Field(ge=1)
    learning_rate: float = Field(gt=0)
    final_learning_rate: float = Field(ge=0)
    backbone_learning_rate_factor: float = Field(default=1.0, ge=0)
    warmup_steps: int = Field(default=0, ge=0)
    weight_decay: float = Field(default=0.0, ge=0)
    max_grad_norm: float = Field(gt=0)

    @model_validator(mode="after")
    def _one_length(self) -> Self:
        if (self.steps is None) == (self.epochs is None):
            raise ValueError("give either steps or epochs")
        return self

    def num_steps(self, num_records: int) -> int:
        """Return the number of optimiser steps for so many training images."""
        if self.steps is not None:
            return self.steps
        assert self.epochs is not None
        return max(1, round(self.epochs * num_records / self.batch_size))


class FlatMinimaConfig(Table):
    """Sharpness-aware steps in all stages; see `flat_minima`.

    Attributes:
        method: "gradual" climbs domain after domain, "pooled" on the joint batch, "per_domain" for
            each domain by itself.
        rho: Length of an ascent, over all learning weights together; "gradual" makes one a domain.
        domains_a_step: Domains of a step, drawn at random and in the long run equally often;
            absent: all that the data has ("pooled": as they come).
        drop_first: Leave the gradient at the unmoved weights out; "gradual" only.
        fixed_order: Visit the domains by name instead of in random order, for comparison;
            "gradual" only.
    """

    method: Literal["gradual", "pooled", "per_domain"] = "gradual"
    rho: float = Field(default=0.05, ge=0, allow_inf_nan=False)
    domains_a_step: int | None = Field(default=None, ge=1)
    drop_first: bool = False
    fixed_order: bool = False

    @property
    def needs_domains(self) -> bool:
        """Whether a step holds equally many images of each of its domains."""
        return self.method != "pooled" or self.domains_a_step is not None

    @model_validator(mode="after")
    def _options_of_gradual(self) -> Self:
        if self.method != "gradual" and (self.drop_first or self.fixed_order):
            raise ValueError(f"{self.method!r} has no drop_first and no fixed_order; remove them")
        return self


class EncoderStageConfig(ScheduleConfig):
    """Stage 1: the image embedding follows the teacher's. Defaults: the published recipe.

    Attributes:
        grid: Whose grid the embeddings are compared on where they differ. The teacher's was better
            when measured (docs/distilling.md).
        high_res_weight: Weight of following the teacher's high-resolution features, where both
            networks have them.
    """

    batch_size: int = Field(default=64, ge=1)
    learning_rate: float = Field(default=1.25e-2, gt=0)
    final_learning_rate: float = Field(default=6.25e-7, ge=0)
    max_grad_norm: float = Field(default=1.0, gt=0)
    grid: Literal["student", "teacher"] = "teacher"
    high_res_weight: float = Field(default=1.0, ge=0)


class TargetsConfig(Table):
    """What masks are compared with.

    Attributes:
        teacher: Weight of the teacher's masks and scores; zero leaves them out.
        ground_truth: Weight of the annotated masks; zero leaves them out.
    """

    teacher: float = Field(default=1.0, ge=0)
    ground_truth: float = Field(default=0.0, ge=0)

    @model_validator(mode="after")
    def _something(self) -> Self:
        if not self.teacher and not self.ground_truth:
            raise ValueError("give teacher or ground_truth a weight above zero")
        return self


class UncertainPointsConfig(Table):
    """Compute mask losses on some points instead of on all pixels.

    Attributes:
        num_points: Points a mask.
        uncertain_share: Share of them where the student hesitates; the rest is uniform.
    """

    num_points: int = Field(default=4096, ge=16)
    uncertain_share: float = Field(default=0.75, ge=0, le=1)


class TrainedPartsConfig(Table):
    """Which parts learn. The published study: a frozen prompt encoder is best.

    Attributes:
        image_encoder: Train the image encoder.
        prompt_encoder: Train the prompt encoder.
        mask_decoder: Train the mask decoder.
    """

    image_encoder: bool = True
    prompt_encoder: bool = False
    mask_decoder: bool = True


class LoraConfig(Table):
    """Low-rank updates (Hu et al. 2021, arXiv:2106.09685) of the parts that are otherwise frozen.

    Attributes:
        parts: Whose linear layers and convolutions are updated.
        rank: Rank of each update.
        alpha: Updates are scaled by alpha / rank.
    """

    parts: tuple[Literal["prompt_encoder", "mask_decoder"], ...] = Field(
        default=("mask_decoder",), min_length=1
    )
    rank: int = Field(default=8, ge=1)
    alpha: float = Field(default=8.0, gt=0)


class PromptStageConfig(ScheduleConfig):
    """Stage 2: prompts in the loop. Defaults: the published recipe.

    Attributes:
        max_instances: Most objects an image.
        box_share: Share of objects that start from their box instead of from a point.
        box_jitter: Largest shift of a box edge as a share of its side.
        refinement_rounds: Times a click is added and everything decoded again.
        truth_click_share: Share of the clicks that correct the student's mask towards the annotated
            one, as a person would, instead of towards the teacher's.
        mask_prompt_share: Share of the refinements that also get the last mask as a prompt.
        bce_weight: Of binary cross-entropy.
        dice_weight: Of Dice loss.
        score_weight: Of the predicted scores' squared error.
        balanced_share: Share of the stage, from its start, in which the mask's own pixels get half
            of the cross-entropy's weight, however few they are. It helps a decoder off the answer
            "nothing"; without it masks end tighter.
        targets: Teacher's masks, ground truth or both.
        train: Which parts learn.
        lora: Low-rank updates instead of full ones, or None.
        uncertain_points: Losses on points instead of all pixels, or None.
    """

    batch_size: int = Field(default=16, ge=1)
    learning_rate: float = Field(default=1e-4, gt=0)
    final_learning_rate: float = Field(default=1e-5, ge=0)
    max_grad_norm: float = Field(default=0.01, gt=0)
    max_instances: int = Field(default=16, ge=1)
    box_share: float = Field(default=0.5, ge=0, le=1)
    box_jitter: float = Field(default=0.1, ge=0, lt=0.5)
    refinement_rounds: int = Field(default=1, ge=0, le=8)
    truth_click_share: float = Field(default=0.0, ge=0, le=1)
    mask_prompt_share: float = Field(default=0.0, ge=0, le=1)
    bce_weight: float = Field(default=5.0, ge=0)
    dice_weight: float = Field(default=5.0, ge=0)
    score_weight: float = Field(default=1.0, ge=0)
    balanced_share: float = Field(default=0.0, ge=0, le=1)
    targets: TargetsConfig = TargetsConfig()
    train: TrainedPartsConfig = TrainedPartsConfig()
    lora: LoraConfig | None = None
    uncertain_points: UncertainPointsConfig | None = None

    @model_validator(mode="after")
    def _something_learns(self) -> Self:
        for part in self.lora.parts if self.lora else ():
            if getattr(self.train, part):
                raise ValueError(f"lora updates {part}, so set train.{part} = false")
        if self.lora is None and not any(self.train.model_dump().values()):
            raise ValueError("nothing learns; set one of train.* to true or give lora")
        return self


class ProposalStageConfig(ScheduleConfig):
    """Stage 3: the proposal head learns where objects are, on features that stay as they are.

    Attributes:
        max_instances: Most objects of an image; the others would be taken for background, so it
            should be more than any image has.
        box_weight: Of the boxes' generalised IoU.
        iou_weight: Of the predicted IoU's cross-entropy.
        click_weight: Of what cells say of a click: which level is meant, and the box.
        center_share: Share of the clicks that go to the point farthest from the border instead of
            to any pixel.
        train_image_encoder: Let the image encoder learn, too. Prompts are then answered worse; it
            is there to measure what the frozen features cost.
    """

    batch_size: int = Field(default=16, ge=1)
    learning_rate: float = Field(default=2e-3, gt=0)
    final_learning_rate: float = Field(default=1e-5, ge=0)
    weight_decay: float = Field(default=1e-2, ge=0)
    max_grad_norm: float = Field(default=5.0, gt=0)
    max_instances: int = Field(default=256, ge=1)
    box_weight: float = Field(default=2.0, ge=0)
    iou_weight: float = Field(default=1.0, ge=0)
    click_weight: float = Field(default=0.5, ge=0)
    center_share: float = Field(default=0.5, ge=0, le=1)
    train_image_encoder: bool = False
