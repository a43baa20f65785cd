"""Evaluations during a run: figures, plot and pictures of the student as it is now."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from edgeseg.data.records import ImageRecord
from edgeseg.distill.panels import save_panel
from edgeseg.distill.run_folder import RunFolder
from edgeseg.evaluation.evaluator import evaluate
from edgeseg.evaluation.objects import select_records
from edgeseg.evaluation.proposal_recall import ProposalRecall, proposal_recall
from edgeseg.evaluation.report import EvaluationReport
from edgeseg.files import write_atomically
from edgeseg.modeling.promptable import PromptableNet
from edgeseg.modeling.torch_backend import TorchBackend
from edgeseg.runtime.segmenter import Segmenter


@dataclass(frozen=True)
class RunEvaluator:
    """Evaluates a network on a run's validation images.

    Attributes:
        folder: Where the results go.
        records: Validation images.
        teacher: For agreement, or None.
        device: Where the student runs.
    """

    folder: RunFolder
    records: Sequence[ImageRecord]
    teacher: Segmenter | None
    device: str

    def run(self, net: PromptableNet, label: str) -> EvaluationReport:
        """Evaluate and write `evaluations/LABEL.json`, `.png` and `-panel.png`."""
        config = self.folder.config.evaluation
        assert config is not None
        student = Segmenter(TorchBackend(net, self.device))
        report = evaluate(student, self.records, config, teacher=self.teacher)
        path = self.folder.path / "evaluations" / f"{label}.json"
        write_atomically(path, lambda temporary: temporary.write_text(report.to_json(), "utf-8"))
        report.save_plot(path.with_suffix(".png"), label)
        shown = [r for r in select_records(self.records, config) if isinstance(r, ImageRecord)]
        panel = path.with_name(f"{label}-panel.png")
        save_panel(panel, shown, student, self.teacher, config.panel_images)
        return report

    def measure_proposals(self, net: PromptableNet, label: str) -> ProposalRecall:
        """Measure what the proposal head finds and write `evaluations/LABEL-proposals.json`."""
        config = self.folder.config.evaluation
        assert config is not None
        found = proposal_recall(Segmenter(TorchBackend(net, self.device)), self.records, config)
        text = json.dumps(asdict(found), indent=2)
        path = self.folder.path / "evaluations" / f"{label}-proposals.json"
        write_atomically(path, lambda temporary: temporary.write_text(text, "utf-8"))
        return found


def summary(report: EvaluationReport) -> str:
    """Return the means of all rows in one line."""
    parts = []
    for row in report.rows:
        if row.mean is not None:
            agreement = row.mean.agreement
            followed = f" (teacher {agreement:.3f})" if agreement is not None else ""
            parts.append(f"{row.name} {row.mean.iou:.3f}{followed}")
    return ", ".join(parts)
