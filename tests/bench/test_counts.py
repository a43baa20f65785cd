import pytest

from edgeseg.bench.counts import count_network
from edgeseg.errors import ConfigError


def test_a_tiny_student_is_counted_by_part():
    counts = count_network("edgeseg_tiny", 64)

    assert counts.num_parameters.keys() == {"encoder", "decoder", "proposals"}
    assert counts.macs.keys() == counts.num_activations.keys() == counts.num_parameters.keys()
    assert counts.macs["encoder"] > counts.macs["decoder"] > 0


def test_work_of_convolutions_grows_with_the_area():
    small, large = (count_network("edgeseg_tiny", size) for size in (64, 128))

    assert large.macs["encoder"] == pytest.approx(4 * small.macs["encoder"], rel=0.02)
    assert large.num_parameters == small.num_parameters


def test_published_figures_are_met():
    edgesam, vit_h = (count_network(name, 1024) for name in ("edgesam", "vit_h"))

    assert sum(edgesam.num_parameters.values()) == pytest.approx(9.58e6, rel=0.001)
    # The paper counts 22.1 for encoder and decoder; ours decodes with fewer products.
    assert sum(edgesam.macs.values()) == pytest.approx(21.4e9, rel=0.01)
    assert vit_h.macs["encoder"] == pytest.approx(2980e9, rel=0.01)


def test_an_unknown_network_is_refused():
    with pytest.raises(ConfigError, match="unknown model 'none'"):
        count_network("none", 64)
