import pytest

from edgeseg.bench.stopwatch import Rounds
from edgeseg.bench.suite import SuiteConfig, split_part
from edgeseg.errors import ConfigError

SUITE = """
name = "two"
rounds = 7
parts = ["encoder", "decoder@64"]
reference = "slow"

[[contender]]
label = "slow"
model = "vit_b"
driver = "pytorch"
parts = ["encoder"]
runs = { rounds = 2, warmup = 0 }
cold_start = false

[[contender]]
label = "fast"
model = "edgeseg_s"
"""


def read(tmp_path, text):
    path = tmp_path / "suite.toml"
    path.write_text(text)
    return SuiteConfig.read(path)


def test_contenders_may_differ_from_the_suite(tmp_path):
    suite = read(tmp_path, SUITE)
    slow, fast = suite.contender

    assert suite.parts_of(slow) == ("encoder",)
    assert suite.rounds_of(slow) == Rounds(2, 0)
    assert suite.parts_of(fast) == ("encoder", "decoder@64")
    assert suite.rounds_of(fast) == Rounds(7, 2)
    assert fast.driver == "onnx"
    assert (suite.starts_alone(slow), suite.starts_alone(fast)) == (False, True)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("rounds = 7", "rounds = 0", "rounds: Input should be greater than or equal to 1, got 0"),
        ('"decoder@64"', '"decode"', "unknown part 'decode'; choose from encoder, decoder"),
        ('"decoder@64"', '"encoder@4"', "unknown part 'encoder@4'"),
        ('"decoder@64"', '"decoder@0"', "unknown part 'decoder@0'"),
        ('label = "fast"', 'label = "slow"', "labels must differ, got slow more than once"),
        ('reference = "slow"', 'reference = "none"', "the reference 'none' is no contender"),
        ("rounds = 7", "round = 7", "round: Extra inputs are not permitted"),
        ("rounds = 7", "rounds =", "cannot read the suite"),
    ],
)
def test_a_wrong_suite_is_refused_with_the_place(tmp_path, old, new, message):
    with pytest.raises(ConfigError, match=message):
        read(tmp_path, SUITE.replace(old, new, 1))


def test_a_missing_suite_is_named(tmp_path):
    with pytest.raises(ConfigError, match="cannot read the suite .*none.toml"):
        SuiteConfig.read(tmp_path / "none.toml")


def test_parts_have_one_prompt_or_image_unless_they_say_so():
    assert split_part("decoder") == ("decoder", 1)
    assert split_part("batch@4") == ("batch", 4)
