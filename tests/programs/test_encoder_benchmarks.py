def test_every_variant_of_the_graph_runs_and_is_timed(run_program):
    result = run_program(
        "benchmarks/graph_variants.py", "--image-size", 64, "--rounds", 2, "--threads", 1
    )

    assert result["image_size"] == 64
    assert list(result["latency_p50_ms"]) == [
        "PyTorch, folded",
        "as released",
        "graph optimisation: none",
        "graph optimisation: basic",
        "one block of memory for all tensors",
        "threads spin while they wait",
        "one thread",
        "branches and norms not folded",
        "upsampling as Resize, not as a matrix product",
        "hard swish instead of GELU",
        "ReLU instead of GELU",
    ]
    assert all(milliseconds > 0 for milliseconds in result["latency_p50_ms"].values())


def test_folding_is_timed_and_changes_nothing(run_program):
    result = run_program("benchmarks/encoder_fusion.py", "--models", "edgeseg_tiny", "--runs", 2)

    (row,) = result["models"]
    assert row["model"] == "edgeseg_tiny"
    assert row["plain_ms"] > 0
    assert row["fused_ms"] > 0
    assert row["max_difference"] < 1e-4


def test_every_candidate_for_small_devices_is_timed(run_program):
    result = run_program("benchmarks/small_encoders.py", "--image-size", 64, "--runs", 1)

    assert len(result["encoders"]) == 10
    for row in result["encoders"]:
        assert row["latency_ms"] > 0
        assert 0 < row["parameters"] < 10e6
