"""What a run leaves on disk: settings, metrics, checkpoints, evaluations, weights.

```text
RUN/
├── config.json               the resolved settings; `--resume` reads them from here
├── encoder_metrics.csv       a row every so many steps, one file a stage
├── prompt_metrics.csv
├── tensorboard/              the same as curves
├── checkpoints/last.pt       everything a resume needs
├── teacher_masks/            what the teacher saw in images without annotations, SA-1B layout
├── evaluations/              tables and plots (JSON, PNG) and picture panels
├── start.safetensors         the student before training
├── after_encoder.safetensors and after stage 1, when there is one
└── student.safetensors       the result
```

Of several processes only the first one writes; the others read the same folder.
"""

import csv
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch.utils.tensorboard import SummaryWriter

from edgeseg.distill.config import RunConfig, parse_config
from edgeseg.distill.processes import is_first_process
from edgeseg.errors import RunError
from edgeseg.files import write_atomically


class RunFolder:
    """A run's folder.

    Args:
        path: The folder; `create` or `open` make sure of its state.
        config: The run's settings.
    """

    def __init__(self, path: Path, config: RunConfig) -> None:
        self.path = path
        self.config = config
        self._writer: SummaryWriter | None = None

    @classmethod
    def create(cls, path: Path, config: RunConfig) -> "RunFolder":
        """Start a run in a folder that is new or empty.

        Raises:
            RunError: There is something in it already.
        """
        if not is_first_process():
            return cls(path, config)
        if path.exists() and (not path.is_dir() or any(path.iterdir())):
            raise RunError(
                f"{path} is not empty; continue that run with --resume or choose another folder"
            )
        text = config.model_dump_json(indent=2)
        write_atomically(path / "config.json", lambda temporary: temporary.write_text(text))
        return cls(path, config)

    @classmethod
    def open(cls, path: Path) -> "RunFolder":
        """Continue the run in a folder.

        Raises:
            RunError: There is no run in it.
            ConfigError: Its settings were changed and are not valid.
        """
        file = path / "config.json"
        try:
            tables = json.loads(file.read_text("utf-8"))
        except (OSError, ValueError) as error:
            raise RunError(f"{path} holds no run that could be resumed: {error}") from error
        return cls(path, parse_config(tables, str(file)))

    @property
    def student_weights(self) -> Path:
        """Where the result goes."""
        return self.path / "student.safetensors"

    def save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Write everything a resume needs, atomically."""
        path = self.path / "checkpoints" / "last.pt"
        write_atomically(path, lambda temporary: torch.save(checkpoint, temporary))

    def load_checkpoint(self) -> dict[str, Any] | None:
        """Read the last checkpoint; None if the run did not reach one.

        Raises:
            RunError: The file is damaged.
        """
        path = self.path / "checkpoints" / "last.pt"
        if not path.exists():
            return None
        try:
            checkpoint = torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:  # damaged bytes make an unpickler fail in any way
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise RunError(f"{path} is damaged: {reason}; delete it to start over") from error
        if not isinstance(checkpoint, dict):
            raise RunError(f"{path} holds no checkpoint; delete it to start over")
        return checkpoint

    def log(self, stage: str, step: int, values: Mapping[str, float]) -> None:
        """Add a row of metrics to the stage's CSV and to TensorBoard."""
        path = self.path / f"{stage}_metrics.csv"
        is_new = not path.exists()
        with path.open("a", newline="") as file:
            writer = csv.writer(file)
            if is_new:
                writer.writerow(["step", *values])
            writer.writerow([step, *(f"{value:.6g}" for value in values.values())])
        for name, value in values.items():
            self._tensorboard.add_scalar(f"{stage}/{name}", value, step)

    def forget_metrics_from(self, stage: str, step: int) -> None:
        """Drop rows a resumed run is about to write again."""
        path = self.path / f"{stage}_metrics.csv"
        if not path.exists():
            return
        with path.open(newline="") as file:
            header, *rows = list(csv.reader(file)) or [[]]
        if not header:  # a crash came before its first row
            path.unlink()
            return
        whole = [row for row in rows if len(row) == len(header) and row[0].isdigit()]
        kept = [row for row in whole if int(row[0]) < step]

        def write(temporary: Path) -> None:
            with temporary.open("w", newline="") as file:
                csv.writer(file).writerows([header, *kept])

        write_atomically(path, write)

    @property
    def _tensorboard(self) -> SummaryWriter:
        if self._writer is None:
            self._writer = SummaryWriter(str(self.path / "tensorboard"))
        return self._writer

    def close(self) -> None:
        """Flush and close what is open."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None
