"""The page at the end of a first run: what happened, how good it is, what to do next."""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape


@dataclass(frozen=True)
class PromptFigures:
    """Agreement of the student with its teacher for one prompt set, as mean IoU.

    Attributes:
        name: Prompt set.
        start: Before training.
        after_encoder: After stage 1.
        after_prompts: After stage 2.
    """

    name: str
    start: float
    after_encoder: float
    after_prompts: float


@dataclass(frozen=True)
class FirstRunPage:
    """What the page shows.

    Attributes:
        teacher: Name of the teacher.
        student: Name of the student.
        figures: One row a prompt set.
        pictures: File names beside the page: photograph, teacher, student.
    """

    teacher: str
    student: str
    figures: Sequence[PromptFigures]
    pictures: Sequence[str]

    def html(self) -> str:
        """Return the whole page; it refers to files beside it only."""
        rows = "\n".join(
            f"<tr><td>{escape(f.name)}</td><td>{f.start:.3f}</td><td>{f.after_encoder:.3f}</td>"
            f"<td><b>{f.after_prompts:.3f}</b></td></tr>"
            for f in self.figures
        )
        pictures = "\n".join(
            f'<img src="{escape(name)}" alt="{escape(name)}">' for name in self.pictures
        )
        commands = "\n".join(_NEXT)
        return _PAGE.format(
            teacher=escape(self.teacher),
            student=escape(self.student),
            rows=rows,
            pictures=pictures,
            commands=escape(commands),
        )


_NEXT = (
    "# a mask of your own photograph",
    "edgeseg segment photo.jpg --point 400,300 --model run/student.safetensors",
    "",
    "# distil on your own images, labelled or not",
    "edgeseg distill CONFIG.toml --out runs/mine",
    "",
    "# measure a model on images with masks",
    "edgeseg evaluate run/student.safetensors DATA",
)

_PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>EdgeSeg: your first student</title>
<style>
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; }}
body {{ margin: 2rem auto; padding: 0 1rem; }}
img {{ width: 100%; margin: .3rem 0; border-radius: .3rem; }}
table {{ border-collapse: collapse; }}
td, th {{ padding: .2rem 1rem .2rem 0; text-align: right; border-bottom: 1px solid #ddd; }}
td:first-child, th:first-child {{ text-align: left; }}
pre {{ background: #f4f4f4; padding: 1rem; overflow-x: auto; }}
</style>
<h1>Your first student</h1>
<p><b>{student}</b> has just learned from <b>{teacher}</b> on ten photographs without labels: first
to give the teacher's image embedding, then to answer the teacher's prompts. Ten photographs teach
it little; the loop is the one that trains a real model.</p>
<h2>What it sees on photographs it was not trained on</h2>
<p>Left the prompt, in the middle the teacher, on the right the student.</p>
{pictures}
<h2>Agreement with the teacher</h2>
<p>Mean IoU of the student's masks with the teacher's for the same prompts, on the held-out
photographs. "+1" and "+2" are refinement clicks. Ten photographs are soon known by heart, so
stage 2 may lose a little on others here; with some thousand images it gains.</p>
<table>
<tr><th>prompt</th><th>before training</th><th>after stage 1</th><th>after stage 2</th></tr>
{rows}
</table>
<h2>In this folder</h2>
<ul>
<li><code>run/student.safetensors</code> the student's weights</li>
<li><code>run/evaluations/</code> tables, plots and picture panels of each milestone</li>
<li><code>run/*_metrics.csv</code>, <code>run/tensorboard/</code> the losses</li>
<li><code>run/config.json</code> all settings</li>
<li><code>run/teacher_masks/</code> the teacher's labels</li>
<li><code>photos/</code> what it was trained and tested on</li>
</ul>
<h2>What to do next</h2>
<pre>{commands}</pre>
</html>
"""
