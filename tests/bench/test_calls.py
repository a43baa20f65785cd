import numpy as np

import edgeseg
from edgeseg.bench.calls import clicks, segmenter_calls
from edgeseg.geometry import ModelFrame


def test_every_part_becomes_a_call_that_does_its_work(exported, photo):
    segmenter = edgeseg.load(exported, "onnx:cpu", 1)
    parts = ("encoder", "decoder", "decoder@3", "end_to_end")

    calls, missing = segmenter_calls(segmenter, parts, photo, "tiny")

    assert missing == ()
    assert tuple(calls) == parts
    assert calls["encoder"]()[0].shape == (1, 3, 4, 4)
    assert calls["decoder"]()[0].shape == (1, 4, 16, 16)
    assert calls["decoder@3"]()[1].shape == (3, 4)
    assert calls["end_to_end"]().shape == (1, 48, 80)


def test_parts_that_a_model_lacks_are_reported_with_the_reason(exported, photo):
    segmenter = edgeseg.load(exported, "onnx:cpu", 1)

    calls, missing = segmenter_calls(
        segmenter, ("proposals", "everything", "batch@4"), photo, "tiny"
    )

    assert calls == {}
    assert [each.part for each in missing] == ["proposals", "everything", "batch@4"]
    assert "propos" in missing[0].reason
    assert missing[2].reason == "its encoder takes one image a call"


def test_clicks_lie_on_the_picture_and_not_on_the_padding():
    frame = ModelFrame((50, 100), 64)  # 32 of 64 rows show the picture

    points_xy, labels = clicks(frame, 200)

    assert points_xy.shape == (200, 1, 2)
    assert points_xy.dtype == np.float32
    assert labels.tolist() == [[1]] * 200
    assert 40 < points_xy[..., 0].max() < 64
    assert 20 < points_xy[..., 1].max() < 32
    assert points_xy.min() > 0


def test_an_encoder_alone_is_not_run_before_it_is_timed(exported, photo, monkeypatch):
    segmenter = edgeseg.load(exported, "onnx:cpu", 1)
    runs = []
    monkeypatch.setattr(segmenter.backend, "encode", lambda pixels: runs.append(pixels))

    calls, _ = segmenter_calls(segmenter, ("encoder",), photo, "tiny")

    assert runs == []
    calls["encoder"]()
    assert len(runs) == 1
