import pytest

from edgeseg.bench.layer_work import LayerWork, count_macs, layers_of, profile_layers
from edgeseg.bench.roofline import MachineLimits, Roofline, measure_limits, roofline_report
from edgeseg.errors import BenchError

LIMITS = MachineLimits(peak_gmacs=10, cache_gbs=100, memory_gbs=20, cache_bytes=1000)


def layer(macs, bytes_moved, time_ms, name="layer", op="Conv"):
    return LayerWork(name, op, (1, 2, 3, 3), macs, bytes_moved, time_ms)


def test_a_layer_is_bound_by_its_work_or_by_the_memory_it_lies_in():
    busy = layer(10_000_000, 900, 2.0)  # 10 M / 10 G = 1 ms
    cached = layer(0, 900, 2.0)  # 900 B at 100 GB/s = 9 ns
    large = layer(0, 20_000_000, 2.0)  # 20 MB at 20 GB/s = 1 ms

    assert LIMITS.limit_ms(busy) == pytest.approx(1.0)
    assert LIMITS.limit_ms(cached) == pytest.approx(9e-6)
    assert LIMITS.limit_ms(large) == pytest.approx(1.0)
    assert [LIMITS.bound_by(one) for one in (busy, cached, large)] == ["work", "memory", "memory"]


def test_the_farthest_layers_are_those_with_the_most_time_to_win():
    near = layer(90_000_000, 1, 10.0, "near")  # limit 9 ms
    far = layer(10_000_000, 1, 4.0, "far", "MatMul")  # limit 1 ms
    found = Roofline(LIMITS, (near, far))

    assert [one.name for one in found.farthest(2)] == ["far", "near"]
    assert found.achieved_share == pytest.approx(10 / 14)
    assert found.by_operation() == {
        "Conv": pytest.approx((10, 9)), "MatMul": pytest.approx((4, 1))
    }  # fmt: skip
    assert "71 % of the limit is reached" in roofline_report(found, 1)
    assert found.as_dict()["layers"][1]["limit_ms"] == pytest.approx(1)


@pytest.mark.parametrize(
    ("op", "inputs", "output", "macs"),
    [
        ("Conv", [(1, 3, 8, 8), (4, 3, 3, 3), (4,)], (1, 4, 8, 8), 4 * 64 * 27),
        ("Conv", [(1, 6, 8, 8), (6, 1, 5, 5)], (1, 6, 4, 4), 6 * 16 * 25),  # depthwise
        (
            "QLinearConv",
            [(1, 3, 8, 8), (), (), (4, 3, 1, 1), (4,), (), (), (), (4,)],
            (1, 4, 8, 8),
            4 * 64 * 3,
        ),
        ("ConvTranspose", [(1, 5, 4, 4), (5, 7, 2, 2)], (1, 7, 8, 8), 5 * 16 * 7 * 4),
        ("MatMul", [(2, 9, 5), (5, 7)], (2, 9, 7), 2 * 9 * 7 * 5),
        ("FusedMatMul", [(2, 9, 5), (2, 7, 5)], (2, 9, 7), 2 * 9 * 7 * 5),  # second transposed
        ("FusedMatMul", [(5, 9), (5, 7)], (9, 7), 9 * 7 * 5),  # first transposed
        ("Gemm", [(9, 5), (5, 7), (7,)], (9, 7), 9 * 7 * 5),
        ("Add", [(9, 5), (9, 5)], (9, 5), 0),
    ],
)
def test_work_is_counted_from_shapes(op, inputs, output, macs):
    assert count_macs(op, inputs, output) == macs


def event(name, microseconds, index=0, op="MatMul"):
    arguments = {
        "op_name": op,
        "node_index": str(index),
        "input_type_shape": [{"float": [4, 5]}, {"float16": [5, 6]}],
        "output_type_shape": [{"float": [4, 6]}],
    }
    return {"cat": "Node", "name": f"{name}_kernel_time", "dur": microseconds, "args": arguments}


def test_the_first_calls_of_a_profile_do_not_count():
    events = [event("a", duration) for duration in (9000, 9000, 1000, 3000, 2000)]
    events.insert(2, {"cat": "Session", "name": "model_run", "dur": 1})

    (found,) = layers_of(events, rounds=3)

    assert (found.name, found.time_ms) == ("a", 2.0)
    assert found.macs == 4 * 6 * 5
    assert found.bytes_moved == 4 * 20 + 2 * 30 + 4 * 24


def test_the_best_of_two_measurements_counts():
    first, second = MachineLimits(10, 50, 20), MachineLimits(9, 60, 21)

    assert first.or_better(second) == MachineLimits(10, 60, 21)


def test_a_view_moves_nothing():
    (found,) = layers_of([event("a", 1, op="Reshape")], rounds=1)

    assert found.bytes_moved == 0


def test_a_profile_that_lacks_calls_is_refused():
    with pytest.raises(BenchError, match="shows 1 layers, not each of them 3 times"):
        layers_of([event("a", 1)], rounds=3)


def test_a_real_graph_is_profiled_layer_by_layer(exported):
    found = profile_layers(exported / "encoder.onnx", 64, threads=1, rounds=2)

    assert found
    assert all(one.time_ms >= 0 for one in found)
    assert sum(one.bytes_moved for one in found) > 0


def test_limits_of_this_machine_are_plausible(tmp_path, monkeypatch):
    monkeypatch.setattr("edgeseg.bench.roofline._SECONDS", 0.01)
    monkeypatch.setattr("edgeseg.bench.roofline._PRODUCT_SIDE", 256)

    limits = measure_limits(tmp_path, 1)

    assert 0.1 < limits.peak_gmacs < 10_000
    assert 0.1 < limits.memory_gbs < 5_000
    assert 0.1 < limits.cache_gbs < 50_000
