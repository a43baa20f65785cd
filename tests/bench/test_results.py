import pytest

from edgeseg.bench.results import BenchResult, ContenderCard, Measurement
from edgeseg.bench.summary import summarise
from edgeseg.errors import ConfigError


def result():
    card = ContenderCard(
        label="a", model="edgeseg_s", driver="onnx", runs_on="cpu", precision="float32",
        image_size=512,
    )  # fmt: skip
    return BenchResult(
        suite="two",
        created_utc="2026-01-01T00:00:00Z",
        machine={"processor": "one"},
        threads=2,
        contenders=(card,),
        measurements=(
            Measurement(
                label="a", part="encoder", samples_ms=(2, 1, 3), in_turns=True, num_warmup=1
            ),
            Measurement(
                label="a", part="decoder", reported=summarise([4.0]), in_turns=False, num_warmup=0,
                clock="trtexec",
            ),
        ),
    )  # fmt: skip


def test_a_result_survives_its_file(tmp_path):
    result().write(tmp_path / "result.json")

    assert BenchResult.read(tmp_path / "result.json") == result()


def test_the_table_has_a_line_a_measurement():
    header, first, second = result().to_csv().splitlines()

    assert header.startswith(
        "label,model,driver,runs_on,precision,image_size,part,count,min_ms,p50"
    )
    assert first.startswith("a,edgeseg_s,onnx,cpu,float32,512,encoder,3,1.0,2.0,")
    assert second.endswith("0.0,trtexec")  # no spread


def test_what_is_no_result_is_refused(tmp_path):
    (tmp_path / "other.json").write_text('{"format": 2}')

    with pytest.raises(ConfigError, match="no result of edgeseg bench: format: Input should be 1"):
        BenchResult.read(tmp_path / "other.json")
    with pytest.raises(ConfigError, match="cannot read the result"):
        BenchResult.read(tmp_path / "none.json")
    with pytest.raises(ConfigError, match="no contender 'b'; it has a"):
        result().card("b")
