def test_every_search_is_timed_and_its_recall_written_down(
    run_program, proposing_tiny, one_rectangle
):
    result = run_program(
        "benchmarks/everything.py", proposing_tiny, "--data", one_rectangle,
        "--min-score", "0", "--min-stability", "0",
    )  # fmt: skip

    rows = result["rows"]
    assert rows["segment_anything 32 x 32"]["mean_prompts"] == 1024
    assert rows["grid 32 x 32"]["mean_prompts"] == 1024
    assert rows["grid 16 x 16"]["mean_prompts"] == 256
    for row in rows.values():
        assert row["mean_seconds"] > 0
        assert set(row["recall"]) == {"10", "100", "1000"}
        assert all(0 <= value <= 1 for value in row["recall"].values())


def test_stability_is_compared_at_both_resolutions(run_program, proposing_tiny, one_rectangle):
    result = run_program("benchmarks/stability.py", proposing_tiny, "--data", one_rectangle)

    assert result["num_images"] == 1
    assert 0 < result["num_masks"] <= 3 * 256
    assert 0 <= result["mean_difference"] <= result["p99_difference"] < 0.5
    assert 0 <= result["judged_otherwise"] <= 1
