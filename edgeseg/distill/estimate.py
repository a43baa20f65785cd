"""What a run will cost, measured on a few of its own steps."""

import resource
import shutil
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from edgeseg.data.sources import SourceConfig, expand_path, list_records
from edgeseg.distill.config import RunConfig
from edgeseg.distill.distiller import Distiller
from edgeseg.distill.embedding_cache import CacheEstimate
from edgeseg.distill.loop import Silence, StageRun
from edgeseg.distill.run_folder import RunFolder
from edgeseg.distill.teacher_cache import cache_key
from edgeseg.distill.teachers import NetTeacher

WARMUP_STEPS = 2
MEASURED_STEPS = 3
_NUM_SAMPLE_IMAGES = 4
_MIB = 2**20


@dataclass(frozen=True)
class StageEstimate:
    """Time of one stage.

    Attributes:
        name: Of the stage.
        num_steps: Steps it will take.
        step_s: Seconds a step, loading included, mean of `MEASURED_STEPS` after a warm-up.
        batch_size: Images a step.
    """

    name: str
    num_steps: int
    step_s: float
    batch_size: int


@dataclass(frozen=True)
class RunEstimate:
    """Memory, disk and time of a run on this machine.

    Attributes:
        num_images: Training images.
        student_parameters: Numbers stored in the student's weights.
        teacher_parameters: Of the teacher; None without one.
        stages: Time of each stage.
        memory_bytes: Peak memory of this process in the measured steps: of the accelerator if
            there is one, else of the machine.
        checkpoint_bytes: Disk space of checkpoint and weights.
        free_bytes: Disk space free where the run folder will be.
        cache: Cost of the teacher's cache, or None without one.
        label_s: Seconds the teacher needs to label images without annotations.
    """

    num_images: int
    student_parameters: int
    teacher_parameters: int | None
    stages: tuple[StageEstimate, ...]
    memory_bytes: int
    checkpoint_bytes: int
    free_bytes: int
    cache: CacheEstimate | None
    label_s: float

    @property
    def total_s(self) -> float:
        """Seconds of the whole run without evaluations."""
        cached_s = (self.cache.seconds or 0.0) if self.cache is not None else 0.0
        return cached_s + self.label_s + sum(s.num_steps * s.step_s for s in self.stages)

    def summary(self) -> str:
        """Return the estimate as text, one fact a line."""
        teacher = ""
        if self.teacher_parameters is not None:
            teacher = f", teacher {self.teacher_parameters / 1e6:.2f} M"
        lines = [
            f"images     {self.num_images:,}",
            f"parameters student {self.student_parameters / 1e6:.2f} M{teacher}",
            f"memory     {self.memory_bytes / _MIB:,.0f} MiB at the peak of the measured steps",
            f"disk       {self.checkpoint_bytes / _MIB:,.0f} MiB for checkpoint and weights, "
            f"{self.free_bytes / _MIB:,.0f} MiB free",
        ]
        if self.cache is not None:
            lines.append(f"cache      {self.cache.summary()}")
        if self.label_s:
            lines.append(f"labelling  {_hours(self.label_s)} by the teacher")
        for stage in self.stages:
            lines.append(
                f"{stage.name:10} {stage.num_steps:,} steps x {stage.step_s:.2f} s = "
                f"{_hours(stage.num_steps * stage.step_s)}, "
                f"{stage.batch_size / stage.step_s:.1f} images/s"
            )
        lines.append(f"total      {_hours(self.total_s)}, evaluations not counted")
        return "\n".join(lines)


def estimate_run(config: RunConfig, out: Path) -> RunEstimate:
    """Measure a few real steps of every stage; nothing stays on disk.

    Args:
        config: Of the run.
        out: Folder the run would get, for the free disk space.

    Raises:
        EdgesegError: Whatever would stop the run at its start.
    """
    records = list_records(config.data.train)
    with TemporaryDirectory(prefix="edgeseg-dry-run-") as scratch:
        sample = _sample_of(config, Path(scratch))
        started = time.perf_counter()
        distiller = Distiller(RunFolder(Path(scratch), sample), Silence())
        setup_s = time.perf_counter() - started
        stages = tuple(
            _measure(name, build(), len(records)) for name, build in distiller.stage_builders()
        )
        cache = _cache_estimate(config, distiller.teacher, len(records))
        num_bare = sum(record.annotations is None for record in records)
        labels = config.needs_masks and num_bare
        label_s = setup_s / len(distiller.records) * num_bare if labels else 0.0
    parameters = distiller.student.num_parameters()
    teacher = distiller.teacher
    averages = config.engine.ema_decay is not None
    return RunEstimate(
        num_images=len(records),
        student_parameters=parameters,
        teacher_parameters=None if teacher is None else teacher.net.num_parameters(),
        stages=stages,
        memory_bytes=_peak_bytes(distiller.fabric.device),
        # Weights, two moments of AdamW and the average; start, intermediate and final weights.
        checkpoint_bytes=4 * parameters * (3 + averages + 1 + len(stages)),
        free_bytes=shutil.disk_usage(_existing(out)).free,
        cache=cache,
        label_s=label_s,
    )


def _sample_of(config: RunConfig, scratch: Path) -> RunConfig:
    """Return the same run on a few images, with everything it writes in a scratch folder."""
    if config.flat_minima is not None and config.flat_minima.needs_domains:
        train = tuple(_few_of_all_domains(source) for source in config.data.train)
    else:
        train = (config.data.train[0].model_copy(update={"limit": _NUM_SAMPLE_IMAGES}),)
    teacher = config.teacher
    if teacher is not None and teacher.cache is not None:
        teacher = teacher.model_copy(update={"cache": scratch / "cache"})
    data = config.data.model_copy(update={"train": train, "workers": 0})
    return config.model_copy(update={"data": data, "teacher": teacher, "evaluation": None})


def _few_of_all_domains(source: SourceConfig) -> SourceConfig:
    """Return a source with few images, but some of each of its domains."""
    wanted = {record.domain for record in list_records([source])}
    limit = _NUM_SAMPLE_IMAGES
    while True:
        few = source.model_copy(update={"limit": min(limit, source.limit or limit)})
        if {record.domain for record in list_records([few])} == wanted:
            return few
        limit *= 2


def _measure(name: str, run: StageRun, num_records: int) -> StageEstimate:
    run.num_steps = WARMUP_STEPS + MEASURED_STEPS
    durations = run.time_steps()[WARMUP_STEPS:]
    schedule = run.stage.config
    return StageEstimate(
        name, schedule.num_steps(num_records), _mean(durations), schedule.batch_size
    )


def _cache_estimate(
    config: RunConfig, teacher: NetTeacher | None, num_images: int
) -> CacheEstimate | None:
    if teacher is None or config.teacher is None or config.teacher.cache is None:
        return None
    side = teacher.image_size
    images = torch.zeros(1, 3, side, side, device=next(teacher.net.parameters()).device)
    teacher.embed(images)
    started = time.perf_counter()
    teacher.embed(images)
    rate = 1 / (time.perf_counter() - started)
    folder = expand_path(config.teacher.cache)
    return CacheEstimate.measure(folder, cache_key(teacher), num_images, rate)


def _peak_bytes(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    unit = 1 if sys.platform == "darwin" else 1024  # bytes on macOS, KiB on Linux
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _existing(path: Path) -> Path:
    return next(folder for folder in (path.absolute(), *path.absolute().parents) if folder.exists())


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _hours(seconds: float) -> str:
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes:02d} min"
