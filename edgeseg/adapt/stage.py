"""Training a pack as a stage like any other: a batch of kept features in, named losses out."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from pydantic import Field, model_validator
from torch import nn

from edgeseg.adapt.adapted import AdaptedNet
from edgeseg.data.batches import TrainingBatch
from edgeseg.distill.losses import Mean
from edgeseg.distill.prompt_losses import prompt_losses
from edgeseg.distill.stage_config import PromptStageConfig, TargetsConfig
from edgeseg.distill.stages import channels_last
from edgeseg.distill.step_random import StepRandom


class AdaptStageConfig(PromptStageConfig):
    """How a pack learns: prompts in the loop as in stage 2, from annotated masks alone.

    What learns is a matter of the pack; `train` and `lora` have no say. Defaults suit some sixty
    images and two processor cores.
    """

    steps: int | None = Field(default=300, ge=1)
    batch_size: int = Field(default=4, ge=1)
    learning_rate: float = Field(default=2e-3, gt=0)
    final_learning_rate: float = Field(default=1e-5, ge=0)
    warmup_steps: int = Field(default=20, ge=0)
    weight_decay: float = Field(default=1e-4, ge=0)
    max_grad_norm: float = Field(default=1.0, gt=0)
    max_instances: int = Field(default=8, ge=1)
    refinement_rounds: int = Field(default=1, ge=0, le=8)
    targets: TargetsConfig = TargetsConfig(teacher=0.0, ground_truth=1.0)

    @model_validator(mode="after")
    def _something_learns(self) -> "AdaptStageConfig":
        if self.targets.teacher:
            raise ValueError("a pack has no teacher; set targets.teacher = 0")
        return self


@dataclass(frozen=True)
class AdaptStage:
    """A pack in training.

    Attributes:
        student: The network with the pack.
        config: Settings.
    """

    student: AdaptedNet
    config: AdaptStageConfig
    name = "adapt"
    extra: nn.Module | None = None
    follows_teacher = False

    @property
    def weights(self) -> Mapping[str, float]:
        """Weight of each part of the loss."""
        return {"truth_mask": 1.0, "truth_score": self.config.score_weight}

    def learning_parts(self) -> Iterator[nn.Module]:
        """Yield nothing: the network knows what of it learns."""
        return iter(())

    def losses(self, batch: TrainingBatch, random: StepRandom) -> dict[str, Mean]:
        """Decode the prompts of a batch; see `prompt_losses`."""
        if not sum(batch.counts):
            return {}
        net = self.student
        assert batch.teacher_embedding is not None
        read = net.read_shapes().unpack(batch.teacher_embedding)
        images = channels_last(batch.student_images)
        features = net.adapt(images, read, batch.names)
        return prompt_losses(net, features, None, None, batch, self.config, random)


def set_training(net: AdaptedNet) -> None:
    """Put the adapter into training mode and everything that is frozen into eval mode."""
    net.eval()
    if net.adapter is not None:
        net.adapter.train()
