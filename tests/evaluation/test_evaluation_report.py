import builtins
import io
import json

import cv2
import pytest
from rich.console import Console

from edgeseg.errors import MissingExtraError
from edgeseg.evaluation import EvaluationConfig, EvaluationReport
from edgeseg.evaluation.report import BadRecord, DomainCount
from edgeseg.evaluation.tally import Figures, Row, Tally, mean_figures


@pytest.fixture
def report():
    tally = Tally(
        [
            ("box", "prompt"),
            ("center", "prompt"),
            ("center:best", "choice"),
            ("center:top-score", "choice"),
            ("filled box", "floor"),
            ("GrabCut", "floor"),
        ]
    )
    tally.add("box", "cats", Figures(0.5, 0.25, 0.75, 0.125))
    tally.add("box", "cats", Figures(0.75, 0.75, 1.0, 0.25))
    tally.add("box", "dogs", Figures(1.0, 1.0, 1.0, 0.0))
    tally.add("center", "dogs", Figures(0.5, 0.5, 0.5, 0.5))
    tally.add("center:best", "dogs", Figures(0.875))
    tally.add("center:top-score", "dogs", Figures(0.5))
    tally.add("filled box", "cats", Figures(0.375, 0.5))
    return EvaluationReport(
        config=EvaluationConfig(prompt_sets=("box", "center")),
        domains={"cats": DomainCount(3, 14), "dogs": DomainCount(1, 2)},
        rows=tally.rows(),
        bad_records=(BadRecord("x", "cats", "no file"),),
    )


def rendered(table):
    console = Console(file=io.StringIO(), width=160)
    console.print(table)
    return console.file.getvalue()


def line_of(text, start):
    (line,) = [line for line in text.splitlines() if line.startswith(f"│ {start} ")]
    return [cell.strip() for cell in line.strip("│").split("│")]


def test_means_are_taken_in_the_domain_first():
    figures = mean_figures([Figures(0.5, 0.25, None, 0.5), Figures(1.0, 0.75, 0.5, None)])

    assert figures == Figures(0.75, 0.5, 0.5, 0.5, num_objects=2)


def test_rows_keep_their_order_and_empty_ones_are_left_out(report):
    names = [row.name for row in report.rows]

    assert names == ["box", "center", "center:best", "center:top-score", "filled box"]
    assert report.row("box").domains["cats"] == Figures(0.625, 0.5, 0.875, 0.1875, 2)
    assert report.row("box").mean == Figures(0.8125, 0.75, 0.9375, 0.09375, 3)


def test_unknown_row_names_those_there_are(report):
    with pytest.raises(KeyError, match=r"no row 'circle'; there are \['box', 'center'"):
        report.row("circle")


def test_ranking_gap_is_what_better_scores_could_win(report):
    assert report.ranking_gaps() == {"center": 0.375}


def test_json_holds_everything(report):
    document = json.loads(report.to_json())

    assert document["num_images"] == 4
    assert document["num_objects"] == 16
    assert document["domains"]["cats"] == {"num_images": 3, "num_objects": 14}
    assert document["config"]["prompt_sets"] == ["box", "center"]
    assert document["rows"][0]["name"] == "box"
    assert document["rows"][0]["domains"]["cats"]["iou"] == 0.625
    assert document["rows"][4]["mean"]["agreement"] is None
    assert document["ranking_gaps"] == {"center": 0.375}
    assert document["num_bad_records"] == 1
    assert document["bad_records"] == [{"name": "x", "domain": "cats", "message": "no file"}]


def test_table_has_domains_then_the_mean_then_the_other_metrics(report):
    text = rendered(report.table(title="edgeseg_s"))

    assert "edgeseg_s IoU" in text
    assert "3 img" in text
    assert "14 obj" in text
    assert "16 objects in 4 images, 1 unreadable records" in text
    box = ["box", "0.625", "1.000", "0.812", "0.750", "0.938", "0.094"]
    assert line_of(text, "box") == box
    assert line_of(text, "filled box") == ["filled box", "0.375", "-", "0.375", "0.500", "-", "-"]
    assert text.index("center:best") < text.index("filled box")
    assert text.count("├") == 2  # lines between prompt sets, choices and floors


def test_table_of_one_metric_has_no_other_columns(report):
    text = rendered(report.table("agreement"))

    assert "IoU with the teacher" in text
    assert line_of(text, "box") == ["box", "0.875", "1.000", "0.938"]


def test_columns_without_any_value_are_left_out():
    figures = Figures(0.5)
    report = EvaluationReport(
        config=EvaluationConfig(),
        domains={"cats": DomainCount(1, 1)},
        rows=(Row("box", "prompt", {"cats": figures}, figures),),
        bad_records=(),
    )

    assert line_of(rendered(report.table()), "box") == ["box", "0.500", "0.500"]


def test_plot_is_a_picture_without_global_state(report, tmp_path):
    report.save_plot(tmp_path / "plot.png", title="cats and dogs")

    picture = cv2.imread(str(tmp_path / "plot.png"))
    assert picture.shape[0] > 400
    assert picture.shape[1] > 600
    blue, red = (164, 101, 52), (0, 0, 164)  # OpenCV's order: the IoU bars and the floor
    assert (picture == blue).all(axis=2).sum() > 1000
    assert (picture == red).all(axis=2).sum() > 100


def test_plot_without_matplotlib_names_the_command(report, tmp_path, monkeypatch):
    real_import = builtins.__import__

    def without_matplotlib(name, *args, **kwargs):
        if name.startswith("matplotlib"):
            raise ImportError(name)
        return real_import(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without_matplotlib)

    with pytest.raises(MissingExtraError, match=r"pip install 'edgeseg\[train\]'"):
        report.save_plot(tmp_path / "plot.png")
