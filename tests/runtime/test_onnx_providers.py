import pytest

from edgeseg.errors import ConfigError
from edgeseg.runtime.onnx_providers import check_used, choose_providers, providers_of

CPU, CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"
COREML, TENSORRT = "CoreMLExecutionProvider", "TensorrtExecutionProvider"


@pytest.mark.parametrize(
    ("wanted", "available", "expected"),
    [
        ("auto", [CPU], [CPU]),
        ("auto", [TENSORRT, CUDA, CPU], [CUDA, CPU]),
        ("auto", [COREML, CPU], [COREML, CPU]),
        ("auto", [COREML, CUDA, CPU], [CUDA, CPU]),
        ("auto", ["OpenVINOExecutionProvider", CPU], [CPU]),
        ("cpu", [CUDA, CPU], [CPU]),
        ("tensorrt", [TENSORRT, CUDA, CPU], [TENSORRT, CUDA, CPU]),
        ("tensorrt", [TENSORRT, CPU], [TENSORRT, CPU]),
        ("openvino", ["OpenVINOExecutionProvider", CPU], ["OpenVINOExecutionProvider", CPU]),
        ("DmlExecutionProvider", ["DmlExecutionProvider", CPU], ["DmlExecutionProvider", CPU]),
    ],
)
def test_providers_are_chosen_best_first_with_the_cpu_last(wanted, available, expected):
    assert choose_providers(wanted, available, strict=True) == expected


def test_an_absent_provider_is_replaced_by_the_next_best_with_a_warning():
    with pytest.warns(RuntimeWarning, match="provider tensorrt is not part of this onnxruntime"):
        assert choose_providers("tensorrt", [CUDA, CPU], strict=False) == [CUDA, CPU]
    with pytest.raises(ConfigError, match="which has cuda, cpu; install the onnxruntime package"):
        choose_providers("coreml", [CUDA, CPU], strict=True)


class Session:
    """A session whose graph was shared out as given, provider -> number of operations."""

    def __init__(self, *shares):
        self.shares = shares

    def get_provider_graph_assignment_info(self):
        class Subgraph:
            def __init__(self, ep_name, num_nodes):
                self.ep_name = ep_name
                self.get_nodes = lambda: [None] * num_nodes

        return [Subgraph(*share) for share in self.shares]


def test_providers_are_reported_by_the_number_of_their_operations():
    session = Session((CPU, 3), (CUDA, 2), (CUDA, 9), ("DmlExecutionProvider", 5))

    assert providers_of(session) == ("cuda", "DmlExecutionProvider", "cpu")


def test_an_older_onnxruntime_reports_the_registered_providers():
    class Older:
        def get_providers(self):
            return [CUDA, CPU]

    assert providers_of(Older()) == ("cuda", "cpu")


def test_a_provider_that_does_the_smaller_part_counts_as_replaced():
    check_used("encoder.onnx", CUDA, ("cuda", "cpu"), strict=True)
    check_used("encoder.onnx", CUDA, (), strict=True)  # everything was folded at load
    message = r"cuda was asked for, but onnxruntime runs encoder\.onnx on cpu, cuda \(most operati"

    with pytest.raises(ConfigError, match=message):
        check_used("encoder.onnx", CUDA, ("cpu", "cuda"), strict=True)
    with pytest.warns(RuntimeWarning, match=message):
        check_used("encoder.onnx", CUDA, ("cpu", "cuda"), strict=False)
