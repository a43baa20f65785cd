import logging

import pytest

from edgeseg.data.broken import BrokenItems
from edgeseg.errors import ConfigError, DataError


def test_records_are_counted_once_however_often_they_come():
    items = BrokenItems(max_share=1.0)

    items.count(["a", "b"], ["c.jpg is broken"])
    items.count(["b", "a"], ["c.jpg is broken"])

    assert (items.num_broken, items.num_touched) == (1, 3)
    assert items.messages == ("c.jpg is broken",)


def test_every_broken_record_is_reported_once(caplog):
    items = BrokenItems(max_share=1.0)

    with caplog.at_level(logging.WARNING, logger="edgeseg.data"):
        items.count(broken=["c.jpg is broken"])
        items.count(broken=["c.jpg is broken", "d.json is broken"])

    assert [entry.getMessage() for entry in caplog.records] == [
        "skipped: c.jpg is broken",
        "skipped: d.json is broken",
    ]


def test_the_share_is_taken_of_all_records_touched():
    items = BrokenItems(max_share=0.25, min_broken=1)
    items.count(["a", "b", "c"], ["d is broken"])  # 1 of 4: exactly the limit

    with pytest.raises(DataError, match=r"2 of 5 records \(40\.0%\).*allowed 25\.0%.*d is broken"):
        items.count(broken=["e is broken"])


def test_a_few_broken_records_at_the_start_do_not_stop_the_run():
    items = BrokenItems(max_share=0.0, min_broken=3)
    items.count(broken=["a", "b"])

    with pytest.raises(DataError, match="3 of 3 records"):
        items.count(broken=["c"])


@pytest.mark.parametrize("wrong", [{"max_share": -0.1}, {"max_share": 1.1}, {"min_broken": 0}])
def test_limits_out_of_range_are_refused(wrong):
    with pytest.raises(ConfigError, match="max_share must be between 0 and 1"):
        BrokenItems(**wrong)
