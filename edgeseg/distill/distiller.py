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
from edgeseg.data.domain_draws import DomainDraws, plan_draws
from edgeseg.data.records import ImageRecord
from edgeseg.data.sources import expand_path, list_records
from edgeseg.data.training import EmbeddingLookup, TrainingDataset
from edgeseg.distill.labelling import check_masks, label_records
from edgeseg.distill.loop import Reporter, Silence, StageRun
from edgeseg.distill.lora import add_lora, merge_lora
from edgeseg.distill.processes import build_fabric, share_norms
from edgeseg.distill.remembering_teacher import RememberingTeacher
from edgeseg.distill.run_evaluation import RunEvaluator, summary
from edgeseg.distill.run_folder import RunFolder
from edgeseg.distill.stages import EncoderStage, PromptStage, ProposalStage, Stage
from edgeseg.distill.student import build_student
from edgeseg.distill.teacher_cache import cached_embeddings
from edgeseg.distill.teachers import NetTeacher, Teacher, load_teacher
from edgeseg.errors import ConfigError, RunError
from edgeseg.modeling.checkpoints import save_weights
from edgeseg.modeling.promptable import PromptableNet
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
        self.should_stop = should_stop
        self.fabric = build_fabric(self.config.engine)
        self.reporter = reporter if self.fabric.is_global_zero else Silence()
        self.teacher = self._load_teacher()
        self.student = build_student(self.config, self.teacher).to(self.fabric.device)
        if self.config.engine.norms == "batch":
            share_norms(self.fabric, self.student)
        self.records = self._training_records()
        for stage in self.config.stages:  # now, not after the first stage
            self._domain_draws(stage.batch_size)
        self.broken_items = BrokenItems(max_share=self.config.data.max_broken_share)
        self._evaluator = self._build_evaluator()

    def run(self) -> RunResult:
        """Train all stages, from the last checkpoint if there is one.

        Raises:
            DivergedError: A loss is not finite; the last checkpoint is untouched.
            DataError: There is no mask to learn from, or too many records are broken.
            RunError: The checkpoint is damaged or of another run.
        """
        try:
            return self._run()
        finally:
            self.folder.close()

    def _run(self) -> RunResult:
        first = self.folder.load_checkpoint() if self.fabric.is_global_zero else None
        checkpoint: dict[str, Any] | None = self.fabric.broadcast(first)
        if checkpoint is None:
            if self.config.needs_masks:
                check_masks(self.records)
            self._milestone("start")
        builders = self.stage_builders()
        names = [name for name, _ in builders]
        stage = names[0] if checkpoint is None else checkpoint.get("stage")
        if stage not in names:
            raise RunError(
                f"the checkpoint of {self.folder.path} is of stage {stage!r}, but its config.json "
                f"has {names}; restore config.json or start a new run"
            )
        for name, build in builders[names.index(stage) :]:
            stage_run = build()
            if checkpoint is not None:
                stage_run.restore(checkpoint)
                checkpoint = None
            if not stage_run.run():
                return RunResult(self.folder.path, finished=False)
            stage_run.finish()
            merge_lora(self.student)
            self._milestone("student" if name == names[-1] else f"after_{name}")
        return RunResult(self.folder.path, finished=True)

    def stage_builders(self) -> list[tuple[str, Callable[[], StageRun]]]:
        """Return name and builder of each stage, in order; build one only when its turn comes."""
        builders: list[tuple[str, Callable[[], StageRun]]] = []
        if self.config.encoder_stage is not None:
            builders.append(("encoder", self._build_encoder_stage))
        if self.config.prompt_stage is not None:
            builders.append(("prompt", self._build_prompt_stage))
        if self.config.proposal_stage is not None:
            builders.append(("proposal", self._build_proposal_stage))
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
        stage = EncoderStage(self.student, self._in_loop(self.teacher), config, extra)
        return self._stage_run(stage, {"with_instances": False})

    def _build_prompt_stage(self) -> StageRun:
        config = self.config.prompt_stage
        assert config is not None
        if config.lora is not None:
            torch.manual_seed(self.config.seed)
            add_lora(self.student, config.lora)
        teacher = None if self.teacher is None else self._in_loop(self.teacher)
        stage = PromptStage(self.student, teacher, config)
        keys = {"max_instances", "box_share", "box_jitter"}
        return self._stage_run(stage, config.model_dump(include=keys))

    def _build_proposal_stage(self) -> StageRun:
        config = self.config.proposal_stage
        assert config is not None
        assert self.student.proposal_head is not None
        share_norms(self.fabric, self.student.proposal_head)
        stage = ProposalStage(self.student, config)
        options = config.model_dump(include={"max_instances", "center_share"})
        return self._stage_run(stage, {**options, "box_jitter": 0.0})

    def _stage_run(self, stage: Stage, options: dict[str, Any]) -> StageRun:
        follows = self.teacher is not None and stage.follows_teacher
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
            draws=self._domain_draws(stage.config.batch_size),
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

    def _domain_draws(self, batch_size: int) -> DomainDraws | None:
        """Return which domains the steps of a stage learn from; None if the stream decides."""
        flat = self.config.flat_minima
        if flat is None or not flat.needs_domains:
            return None
        return plan_draws(
            [record.domain for record in self.records],
            flat.domains_a_step,
            batch_size,
            self.config.seed,
            self.fabric.world_size,
        )

    def _in_loop(self, teacher: NetTeacher) -> Teacher:
        """Return the teacher for steps that come back to the same images."""
        if self.config.flat_minima is None:
            return teacher
        num_domains = len({record.domain for record in self.records})
        return RememberingTeacher(teacher, num_domains + 1)  # and the joint batch

    def _lookup(self) -> EmbeddingLookup | None:
        settings = self.config.teacher
        if settings is None or settings.cache is None:
            return None
        assert self.teacher is not None
        return cached_embeddings(
            settings.cache, self.teacher, self.records, self.fabric, self._show_caching
        )

    def _load_teacher(self) -> NetTeacher | None:
        settings = self.config.teacher
        if settings is None:
            return None
        weights = expand_path(Path(settings.weights))
        teacher = load_teacher(weights, settings.model, settings.image_size)
        teacher.net.to(self.fabric.device)
        return teacher

    def _training_records(self) -> list[ImageRecord]:
        records = list_records(self.config.data.train)
        return self._with_labels(records, "train") if self.config.needs_masks else records

    def _with_labels(self, records: Sequence[ImageRecord], use: str) -> list[ImageRecord]:
        """Give images without annotations the teacher's masks; each process makes its share."""
        num_bare = sum(record.annotations is None for record in records)
        if not num_bare:
            return list(records)
        if self.teacher is None or self.config.teacher is None:
            raise ConfigError(
                f"{num_bare} of {len(records)} images have no annotations and there is no teacher "
                "to label them; give [teacher] or annotations"
            )
        self.reporter.message(f"the teacher labels {num_bare} images without annotations")
        settings = self.config.teacher.labels
        # Names are unique among the images of one use only.
        folder = self.folder.path / "teacher_masks" / use
        segmenter = self._segmenter(self.teacher.net)
        share = records[self.fabric.global_rank :: self.fabric.world_size]
        label_records(share, segmenter, folder, settings, self._show_labelling)
        self.fabric.barrier()
        return label_records(records, segmenter, folder, settings)

    def _show_labelling(self, done: int, total: int) -> None:
        self._stop_preparing()
        if done == total or done % max(1, total // 20) == 0:
            self.reporter.message(f"labelling: {done} of {total} images")

    def _show_caching(self, text: str) -> None:
        self._stop_preparing()
        self.reporter.message(text)

    def _stop_preparing(self) -> None:
        """Stop if asked to: labels and cached features that are done are on disk."""
        if self.should_stop():
            raise KeyboardInterrupt

    def _segmenter(self, net: PromptableNet) -> Segmenter:
        return Segmenter(TorchBackend(net, str(self.fabric.device)))

    def _build_evaluator(self) -> RunEvaluator | None:
        if self.config.evaluation is None:
            return None
        records = self._with_labels(list_records(self.config.data.validation), "validation")
        teacher = self._segmenter(self.teacher.net) if self.teacher is not None else None
        return RunEvaluator(self.folder, records, teacher, str(self.fabric.device))

    def _evaluate(self, net: PromptableNet, label: str) -> None:
        if self._evaluator is not None and self.fabric.is_global_zero:
            report = self._evaluator.run(net, label)
            self.reporter.message(f"{label}: {summary(report)}")
            if net.proposal_head is not None:
                found = self._evaluator.measure_proposals(net, label)
                self.reporter.message(f"{label}: {found.summary()}")
        self.fabric.barrier()

    def _milestone(self, name: str) -> None:
        """Save and evaluate the student at the start and after a stage."""
        if self.fabric.is_global_zero:
            save_weights(self.student, self.folder.path / f"{name}.safetensors")
        self._evaluate(self.student, name)
