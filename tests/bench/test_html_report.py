from html.parser import HTMLParser

from edgeseg.bench.html_report import html_page, write_html
from edgeseg.bench.layer_work import LayerWork
from edgeseg.bench.results import BenchResult, ColdStart, ContenderCard, Measurement, Missing
from edgeseg.bench.roofline import MachineLimits, Roofline


def result():
    cards = tuple(
        ContenderCard(
            label=label, model="m", driver="onnx", runs_on="cpu", precision="float32",
            image_size=64, size_bytes={"encoder": 2_500_000}, macs={"encoder": 1_500_000_000},
        )
        for label in ("fast", "<slow>")
    )  # fmt: skip
    measurements = tuple(
        Measurement(
            label=label, part=part, samples_ms=samples, in_turns=True, num_warmup=2
        )
        for part in ("encoder", "decoder")
        for label, samples in (("fast", (1.0, 2.0, 3.0)), ("<slow>", (8.0, 8.0, 8.0)))
    )  # fmt: skip
    start = ColdStart(
        label="fast", import_ms=1, load_ms=2, first_call_ms=3, second_call_ms=4,
        peak_memory_mb=123, base_memory_mb=20,
    )  # fmt: skip
    return BenchResult(
        suite="s", created_utc="2026-01-01T00:00:00+00:00", machine={"processor": "P"}, threads=2,
        contenders=cards, measurements=measurements, cold_starts=(start,),
        missing=(Missing(label="phone", reason="no phone"),),
    )  # fmt: skip


class Page(HTMLParser):
    def __init__(self):
        super().__init__()
        self.open, self.counts, self.links = [], {}, []

    def handle_starttag(self, tag, attributes):
        self.counts[tag] = self.counts.get(tag, 0) + 1
        self.links += [v for k, v in attributes if k in ("src", "href") and not v.startswith("#")]
        if tag != "meta":
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_a_page_holds_everything_and_needs_nothing_else(tmp_path):
    limits = MachineLimits(peak_gmacs=10, cache_gbs=100, memory_gbs=20)
    layers = LayerWork("a", "Conv", (1, 2), 10**6, 10**4, 0.2), LayerWork("b", "Add", (1,), 0, 9, 1)
    rooflines = {"fast encoder": Roofline(limits, layers)}
    write_html(result(), tmp_path / "page.html", "<slow>", {"fast": 61.0}, rooflines)
    text = (tmp_path / "page.html").read_text("utf-8")
    page = Page()
    page.feed(text)

    assert page.open == []
    assert page.counts["svg"] == 4  # a distribution a part, accuracy, a roofline
    assert page.counts["table"] == 4  # a table a part, starts, cards
    assert page.links == []
    assert "4 (2.67 to 8)" in text  # 8 / 2, 8 / 3 and 8 / 1
    assert "&lt;slow&gt;" in text
    assert "<slow>" not in text
    assert "not measured: phone: no phone" in text


def test_without_accuracy_there_is_no_such_plot():
    assert "Accuracy" not in html_page(result(), None, {}, {})
