"""How good a promptable segmenter is, on records with masks; no torch.

In reading order: `config` (what is measured), `objects` (records to objects), `clicks` (prompts
and simulated refinement), `floors` (answers that need no network), `evaluator` (the run), `tally`
(scores to figures), `report` (the figures as JSON, table and plot).
"""

from edgeseg.evaluation.clicks import PromptableSegmenter
from edgeseg.evaluation.config import EvaluationConfig, GrabCutConfig
from edgeseg.evaluation.evaluator import evaluate
from edgeseg.evaluation.report import EvaluationReport

__all__ = [
    "EvaluationConfig",
    "EvaluationReport",
    "GrabCutConfig",
    "PromptableSegmenter",
    "evaluate",
]
