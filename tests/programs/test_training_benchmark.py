def test_both_steps_are_timed_on_the_same_batches_and_agree(run_program, one_rectangle):
    result = run_program(
        "benchmarks/training_step.py", "--data", one_rectangle, "--model", "edgeseg_tiny",
        "--image-size", 64, "--batch-size", 1, "--instances", 2, "--rounds", 1,
    )  # fmt: skip

    assert result["images_per_s"] > 0
    assert result["speedup"] > 0
    assert 0 < result["loading_share"] < 1
    for row in result["steps"]:
        # At this size rounding the border of the picture is a part of the loss.
        assert abs(row["loss"] - row["straightforward_loss"]) < 0.01 * row["loss"]
