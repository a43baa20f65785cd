def test_a_click_is_measured_alone_and_with_each_way_to_merge_boxes(
    run_program, proposing_tiny, one_rectangle
):
    result = run_program("benchmarks/click_boxes.py", proposing_tiny, "--data", one_rectangle)

    assert result["num_objects"] == {"shapes": 1}
    assert list(result["rows"]) == [
        "point alone",
        "K = 1, weight^1",
        "K = 2, weight^0",
        "K = 2, weight^1",
        "K = 2, weight^2",
        "K = 4, weight^1",
    ]
    for row in result["rows"].values():
        assert 0 <= row["mean"] <= 1
        assert row["domains"] == {"shapes": row["mean"]}
