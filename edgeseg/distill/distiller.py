"""A whole run: teacher and student are built, the stages follow each other, results are saved.

This is the file to read for the order of things; the arithmetic is in `encoder_losses` and
`prompt_losses`, the step in `step`, the loop in `loop`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from edgeseg.data.broken import BrokenItems
from edgeseg.data.records import ImageRecord
from edgeseg.data.sources import list_records
from edgeseg.data.training import EmbeddingLookup, TrainingDataset
from edgeseg.distill.config import RunConfig
from edgeseg.distill.labelling import LabelSettings, label_records
from edgeseg.distill.lora import add_lora, merge_lora
from edgeseg.distill.loop import Reporter, StageRun
from edgeseg.distill.processes import build_fabric
from edgeseg.distill.run_evaluation import RunEvaluator, summary
from edgeseg.distill.run_folder import RunFolder
from edgeseg.distill.stages import EncoderStage, PromptStage
from edgeseg.distill.teacher_cache import cached_embeddings
from edgeseg.distill.teachers import NetTeacher, load_teacher
from edgeseg.errors import ConfigError
from edgeseg.modeling.checkpoints import (
    copy_decoder,
    find_weights,
    load_decoder,
    load_strict,
    read_state,
    save_weights,
)
from edgeseg.modeling.promptable import PromptableNet
from edgeseg.modeling.registry import build_model
from edgeseg.modeling.torch_backend import TorchBackend
from edgeseg.runtime.segmenter import Segmenter


@dataclass(frozen=True)
class RunResult:
    """How a run ended.

    Attributes:
        folder: The run's folder.
        finished: False if it was asked to stop; it can be resumed.
    """

    folder: Path
    finished: bool


def build_student(config: RunConfig, teacher: NetTeacher | None) -> PromptableNet:
    """Build the student with the weights it starts from.

    Raises:
        ConfigError: The model is unknown.
        WeightsError: Initial weights do not fit.
    """
    settings = config.student
    torch.manual_seed(config.seed)
    net = build_model(settings.model, settings.image_size, settings.imagenet)
    if settings.decoder == "teacher":
        assert teacher is not None  # the config is validated
        copy_decoder(teacher.net, net)
    elif settings.decoder != "random":
        load_decoder(net, Path(settings.decoder))
    if settings.weights is not None:
        state, _ = read_state(find_weights(settings.weights))
        load_strict(net, state, settings.weights)
    return net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


class Distiller:
    """Runs or resumes one run.

    Args:
        folder: Its folder and settings.
        reporter: Shows progress.
        should_stop: Whether the process was asked to stop; checked after every step.
    """

    def __init__(
        self,
        folder: RunFolder,
        reporter: Reporter,
        should_stop: Callable[[], bool] = lambda: False,
    ) -> None:
        self.folder = folder
        self.config = folder.config
        self.reporter = reporter
        self.should_stop = should_stop
        self.fabric = build_fabric(self.config.engine)
        self.teacher = self._load_teacher()
        self.student = build_student(self.config, self.teacher).to(self.fabric.device)
        self.records = self._training_records()
        self.broken_items = BrokenItems(max_share=self.config.data.max_broken_share)
        self._evaluator = self._build_evaluator()

    def run(self) -> RunResult:
        """Train all stages, from the last checkpoint if there is one.

        Raises:
            DivergedError: A loss is not finite; the last checkpoint is untouched.
            RunError: The checkpoint is damaged.
        """
        checkpoint = self.folder.load_checkpoint()
        if checkpoint is None:
            self._milestone("start")
        names = [name for name, _ in self._stage_builders()]
        first = 0 if checkpoint is None else names.index(checkpoint["stage"])
        for name, build in self._stage_builders()[first:]:
            stage_run = build()
            if checkpoint is not None:
                stage_run.restore(checkpoint)
                checkpoint = None
            if not stage_run.run():
                self.folder.close()
                return RunResult(self.folder.path, finished=False)
            stage_run.finish()
            merge_lora(self.student)
            self._milestone("student" if name == names[-1] else f"after_{name}")
        self.folder.close()
        return RunResult(self.folder.path, finished=True)

    def stage_runs(self) -> list[StageRun]:
        """Build all stages without running them, for estimates."""
        return [build() for _, build in self._stage_builders()]

    def _stage_builders(self) -> list[tuple[str, Callable[[], StageRun]]]:
        builders: list[tuple[str, Callable[[], StageRun]]] = []
        if self.config.encoder_stage is not None:
            builders.append(("encoder", self._build_encoder_stage))
        if self.config.prompt_stage is not None:
            builders.append(("prompt", self._build_prompt_stage))
        return builders

    def _build_encoder_stage(self) -> StageRun:
        config = self.config.encoder_stage
        assert config is not None
        assert self.teacher is not None
        extra = None
        if self.student.embed_dim != self.teacher.net.embed_dim:
            torch.manual_seed(self.config.seed)
            extra = nn.Conv2d(self.student.embed_dim, self.teacher.net.embed_dim, 1)
            extra = extra.to(self.fabric.device)
        stage = EncoderStage(self.student, self.teacher, config, extra)
        return self._stage_run(stage, with_instances=False)

    def _build_prompt_stage(self) -> StageRun:
        config = self.config.prompt_stage
        assert config is not None
        if config.lora is not None:
            torch.manual_seed(self.config.seed)
            add_lora(self.student, config.lora)
        stage = PromptStage(self.student, self.teacher, config)
        return self._stage_run(
            stage,
            with_instances=True,
            max_instances=config.max_instances,
            box_share=config.box_share,
            box_jitter=config.box_jitter,
        )

    def _stage_run(self, stage: EncoderStage | PromptStage, **options: Any) -> StageRun:
        follows = self.teacher is not None and not (
            isinstance(stage, PromptStage) and not stage.config.targets.teacher
        )
        lookup = self._lookup() if follows else None
        teacher_size = self.teacher.image_size if self.teacher and follows and not lookup else None
        dataset = TrainingDataset(
            self.records,
            self.config.seed,
            self.student.image_size,
            teacher_size,
            augmentation=self.config.augmentation,
            embedding_lookup=lookup,
            balance_domains=self.config.data.balance_domains,
            **options,
        )
        return StageRun(
            stage=stage,
            fabric=self.fabric,
            folder=self.folder,
            dataset=dataset,
            num_steps=stage.config.num_steps(len(self.records)),
            reporter=self.reporter,
            should_stop=self.should_stop,
            evaluate=lambda net, step: self._evaluate(net, f"{stage.name}_{step:06d}"),
            broken_items=self.broken_items,
        )

    def _lookup(self) -> EmbeddingLookup | None:
        settings = self.config.teacher
        if settings is None or settings.cache is None:
            return None
        assert self.teacher is not None
        return cached_embeddings(
            settings.cache, self.teacher, self.records, self.fabric, self.reporter.message
        )

    def _load_teacher(self) -> NetTeacher | None:
        settings = self.config.teacher
        if settings is None:
            return None
        teacher = load_teacher(settings.weights, settings.model, settings.image_size)
        teacher.net.to(self.fabric.device)
        return teacher

    def _training_records(self) -> list[ImageRecord]:
        records = list_records(self.config.data.train)
        return self._with_labels(records) if self.config.prompt_stage is not None else records

    def _with_labels(self, records: Sequence[ImageRecord]) -> list[ImageRecord]:
        """Give images without annotations the teacher's masks."""
        num_bare = sum(record.annotations is None for record in records)
        if not num_bare:
            return list(records)
        if self.teacher is None or self.config.teacher is None:
            raise ConfigError(
                f"{num_bare} of {len(records)} images have no annotations and there is no teacher "
                "to label them; give [teacher] or annotations"
            )
        self.reporter.message(f"the teacher labels {num_bare} images without annotations")
        settings = LabelSettings(points_per_side=self.config.teacher.label_points_per_side)
        folder = self.folder.path / "teacher_masks"
        return label_records(records, self._segmenter(self.teacher.net), folder, settings)

    def _segmenter(self, net: PromptableNet) -> Segmenter:
        return Segmenter(TorchBackend(net, str(self.fabric.device)))

    def _build_evaluator(self) -> RunEvaluator | None:
        if self.config.evaluation is None:
            return None
        records = self._with_labels(list_records(self.config.data.validation))
        teacher = self._segmenter(self.teacher.net) if self.teacher is not None else None
        return RunEvaluator(self.folder, records, teacher, str(self.fabric.device))

    def _evaluate(self, net: PromptableNet, label: str) -> None:
        if self._evaluator is not None and self.fabric.is_global_zero:
            report = self._evaluator.run(net, label)
            self.reporter.message(f"{label}: {summary(report)}")
        self.fabric.barrier()

    def _milestone(self, name: str) -> None:
        """Save and evaluate the student at the start and after a stage."""
        if self.fabric.is_global_zero:
            save_weights(self.student, self.folder.path / f"{name}.safetensors")
        self._evaluate(self.student, name)
