"""The whole loop on a dozen photographs, for someone who has just installed EdgeSeg.

The photographs travel inside scikit-image and have no labels. The teacher labels them with its own
masks, the student follows it in both stages, and is compared with it on photographs that neither
stage has seen.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from edgeseg.distill.config import RunConfig, parse_config
from edgeseg.distill.distiller import Distiller
from edgeseg.distill.first_run_page import FirstRunPage, PromptFigures
from edgeseg.distill.loop import Reporter
from edgeseg.distill.run_folder import RunFolder
from edgeseg.errors import missing_extra
from edgeseg.files import write_atomically
from edgeseg.images import read_image
from edgeseg.modeling.checkpoints import load_model
from edgeseg.modeling.torch_backend import TorchBackend
from edgeseg.prompts import Prompt
from edgeseg.runtime.drawing import draw_masks, draw_prompts
from edgeseg.runtime.segmenter import Segmenter

TRAINING_PHOTOS = (
    "astronaut.png",
    "chelsea.png",
    "hubble_deep_field.jpg",
    "ihc.png",
    "moon.png",
    "motorcycle_left.png",
    "motorcycle_right.png",
    "page.png",
    "retina.jpg",
    "rocket.jpg",
)
HELD_OUT_PHOTOS = ("camera.png", "coffee.png", "coins.png")
_SHOWN_PROMPTS: dict[str, tuple[float, ...]] = {
    "coffee": (0.125, 0.04, 0.80, 0.905),  # a box around the cup and its saucer
    "camera": (0.01, 0.118, 0.605, 0.996),  # a box around the man
    "coins": (0.404, 0.426),  # a click on one coin
}
"""What is asked on the pictures, x and y in widths and heights of the photograph."""

_LABELS = {"points_per_side": 10, "min_score": 0.3, "min_stability": 0.5, "max_masks": 32}
"""Low thresholds: the released teacher is less sure of itself than SAM."""
_LONGEST_SIDE_PX = 512


@dataclass(frozen=True)
class FirstRunSettings:
    """How long the first run takes.

    Attributes:
        teacher: A released model, a model folder or a SAM checkpoint.
        student: Registry name of the student.
        image_size: Side of the student's input, in pixels.
        encoder_steps: Steps of stage 1.
        prompt_steps: Steps of stage 2.
    """

    teacher: str = "edgeseg_m"
    student: str = "edgeseg_s"
    image_size: int = 256
    encoder_steps: int = 300
    prompt_steps: int = 80


def run_first(folder: Path, settings: FirstRunSettings, reporter: Reporter) -> tuple[Path, Path]:
    """Distil a student on the photographs, or continue where an earlier call was stopped.

    Args:
        folder: Where everything goes.
        settings: Teacher, student and steps.
        reporter: Shows progress.

    Returns:
        The page to open and the student's weights.

    Raises:
        EdgesegError: The teacher cannot be loaded, or the folder holds something else.
    """
    load_model(settings.teacher)  # a wrong name should fail before anything is written
    photos = folder / "photos"
    write_photos(photos)
    run_path = folder / "run"
    if (run_path / "config.json").exists():
        run = RunFolder.open(run_path)
    else:
        run = RunFolder.create(run_path, first_run_config(photos, settings))
    if not run.student_weights.exists():
        Distiller(run, reporter).run()
    reporter.message("drawing what the student sees")
    pictures = _draw_answers(folder, photos, run, settings)
    page = FirstRunPage(settings.teacher, settings.student, _figures(run_path), pictures)
    path = folder / "index.html"
    write_atomically(path, lambda temporary: temporary.write_text(page.html(), "utf-8"))
    return path, run.student_weights


def write_photos(folder: Path) -> None:
    """Copy the photographs out of scikit-image, at most 512 pixels on the longest side.

    Raises:
        MissingExtraError: scikit-image is not installed.
    """
    try:
        from skimage import data
    except ImportError as error:
        raise missing_extra("scikit-image", "train") from error
    source = Path(data.__file__).parent
    for split, names in (("train", TRAINING_PHOTOS), ("val", HELD_OUT_PHOTOS)):
        for name in names:
            target = (folder / split / name).with_suffix(".png")
            if not target.exists():
                _write_small(source / name, target)


def _write_small(source: Path, target: Path) -> None:
    image = read_image(source)
    scale = min(1.0, _LONGEST_SIDE_PX / max(image.shape[:2]))
    size_wh = round(image.shape[1] * scale), round(image.shape[0] * scale)
    small = cv2.resize(image, size_wh, interpolation=cv2.INTER_AREA)
    write_atomically(target, lambda path: cv2.imwrite(str(path), small[..., ::-1]))


def first_run_config(photos: Path, settings: FirstRunSettings) -> RunConfig:
    """Return the settings of the run, as they could stand in a TOML file."""
    tables: dict[str, Any] = {
        "student": {
            "model": settings.student,
            "image_size": settings.image_size,
            "imagenet": True,
            "decoder": "teacher",
        },
        "teacher": {"weights": settings.teacher, "labels": _LABELS},
        "data": {
            "train": [{"format": "images", "path": str(photos / "train")}],
            "validation": [{"format": "images", "path": str(photos / "val")}],
            "workers": 0,
        },
        "augmentation": {"horizontal_flip": 0.5, "crop": {"min_area_share": 0.4}, "color": {}},
        "engine": {"ema_decay": 0.98, "checkpoint_every_steps": 30, "log_every_steps": 5},
        "encoder_stage": {
            "steps": settings.encoder_steps,
            "batch_size": 4,
            "learning_rate": 2e-3,
            "final_learning_rate": 1e-5,
            "backbone_learning_rate_factor": 0.3,
            "warmup_steps": 10,
        },
        "prompt_stage": {
            "steps": settings.prompt_steps,
            "batch_size": 4,
            "max_instances": 8,
            "learning_rate": 1e-4,
            "final_learning_rate": 1e-5,
            "backbone_learning_rate_factor": 0.3,
            "max_grad_norm": 1.0,
            "warmup_steps": 5,
            "score_weight": 5.0,
            "truth_click_share": 0.5,
            # Ten photographs are soon known by heart: a decoder that learned from them as well lost
            # 2 points of agreement on others for boxes and 8 for clicks, instead of 1 and 5.
            "train": {"image_encoder": True, "mask_decoder": False},
        },
        "evaluation": {"every_steps": 100_000, "max_objects_an_image": 24, "panel_images": 2},
    }
    return parse_config(tables, "the first run's settings")


def _figures(run_path: Path) -> list[PromptFigures]:
    """Collect the agreement with the teacher at each milestone."""
    milestones = ("start", "after_encoder", "student")
    reports = [
        json.loads((run_path / "evaluations" / f"{name}.json").read_text("utf-8"))
        for name in milestones
    ]
    columns = [
        {row["name"]: row["mean"]["agreement"] for row in report["rows"]} for report in reports
    ]
    return [
        PromptFigures(name, *(column[name] for column in columns))
        for name, value in columns[0].items()
        if value is not None and ":" not in name
    ]


def _draw_answers(
    folder: Path, photos: Path, run: RunFolder, settings: FirstRunSettings
) -> list[str]:
    """Draw photograph with prompt, teacher and student side by side; return the file names."""
    teacher = Segmenter(TorchBackend(load_model(settings.teacher)))
    student = Segmenter(TorchBackend(load_model(run.student_weights)))
    names = []
    for photo, unit_xy in _SHOWN_PROMPTS.items():
        image = read_image(photos / "val" / f"{photo}.png")
        prompt = _prompt(unit_xy, image)
        tiles: list[NDArray[np.uint8]] = [draw_prompts(image, [prompt])]
        for segmenter in (teacher, student):
            masks = segmenter.segment(segmenter.encode(image), prompt)
            tiles.append(draw_masks(image, masks.crops, 0.5))
        picture = np.concatenate(tiles, axis=1)[..., ::-1]
        names.append(f"{photo}.png")
        write_atomically(folder / names[-1], lambda out, p=picture: cv2.imwrite(str(out), p))  # type: ignore[misc]
    return names


def _prompt(unit_xy: tuple[float, ...], image: NDArray[np.uint8]) -> Prompt:
    height, width = image.shape[:2]
    scaled = np.array(unit_xy, np.float32).reshape(-1, 2) * (width, height)
    return Prompt(scaled) if len(scaled) == 1 else Prompt(box_xyxy=scaled.reshape(4))
