"""Execution providers of ONNX Runtime: who runs a graph, and who really did.

ONNX Runtime hands whatever a provider does not take to the CPU and says so in a log at most. Here
every session tells which providers got its operations.
"""

import warnings
from collections import Counter
from collections.abc import Sequence

import onnxruntime

from edgeseg.errors import ConfigError

PROVIDERS = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
    "coreml": "CoreMLExecutionProvider",
    "openvino": "OpenVINOExecutionProvider",
}
"""Our short name -> ONNX Runtime's name."""

_AUTOMATIC = ("cuda", "coreml", "cpu")
"""Best first. TensorRT and OpenVINO compile for minutes or round otherwise: only when asked for."""
_FALLBACK = {"tensorrt": ("cuda", "cpu")}
_SHORT_NAMES = {name: short for short, name in PROVIDERS.items()}


def choose_providers(wanted: str, available: Sequence[str], strict: bool) -> list[str]:
    """Return the providers to give to a session, best first, the CPU last.

    Args:
        wanted: "auto", a short name, or ONNX Runtime's own name of any provider.
        available: What this ONNX Runtime has, by its own names.
        strict: Refuse instead of warning when the wanted provider is not there.

    Raises:
        ConfigError: The name is unknown; or, if strict, the provider is not available.

    >>> choose_providers("auto", ["CoreMLExecutionProvider", "CPUExecutionProvider"], True)
    ['CoreMLExecutionProvider', 'CPUExecutionProvider']
    """
    if wanted != "auto" and wanted not in PROVIDERS and not wanted.endswith("ExecutionProvider"):
        raise ConfigError(
            f"unknown execution provider {wanted!r}; choose auto, {', '.join(PROVIDERS)} or a full "
            "name such as DmlExecutionProvider"
        )
    if wanted == "auto":
        wanted = next((name for name in _AUTOMATIC if PROVIDERS[name] in available), "cpu")
    names = [PROVIDERS.get(name, name) for name in (wanted, *_FALLBACK.get(wanted, ()), "cpu")]
    if names[0] not in available:
        report_replaced(
            f"execution provider {short_name(names[0])} is not part of this onnxruntime, which has "
            f"{', '.join(map(short_name, available))}; install the onnxruntime package that "
            "brings it",
            strict,
        )
    usable = [name for name in dict.fromkeys(names) if name in available]
    return usable or [PROVIDERS["cpu"]]


def providers_of(session: onnxruntime.InferenceSession) -> tuple[str, ...]:
    """Return short names of the providers that run a session's operations, most operations first.

    An ONNX Runtime that cannot tell (before 1.24) gives the registered providers instead.
    """
    if not hasattr(session, "get_provider_graph_assignment_info"):
        return tuple(map(short_name, session.get_providers()))
    num_operations: Counter[str] = Counter()
    for subgraph in session.get_provider_graph_assignment_info():
        num_operations[short_name(subgraph.ep_name)] += len(subgraph.get_nodes())
    return tuple(name for name, _ in num_operations.most_common())


def check_used(file: str, wanted: str, used: tuple[str, ...], strict: bool) -> None:
    """Warn, or refuse if strict, when another provider than the wanted one does most of the work.

    Args:
        file: Name of the file that was opened.
        wanted: ONNX Runtime's name of the provider it was opened for.
        used: Short names of the providers that run it, see `providers_of`.
        strict: Refuse instead of warning.

    Raises:
        ConfigError: The wanted provider was replaced, if strict.
    """
    name = short_name(wanted)
    if used[:1] in ((), (name,)):  # a graph that folded to nothing has no operations
        return
    report_replaced(
        f"execution provider {name} was asked for, but onnxruntime runs {file} on "
        f"{', '.join(used)} (most operations first); choose another provider or export for this "
        "one",
        strict,
    )


def report_replaced(message: str, strict: bool) -> None:
    """Warn that a provider was replaced, or refuse it.

    Raises:
        ConfigError: If strict.
    """
    if strict:
        raise ConfigError(message)
    warnings.warn(message, RuntimeWarning, stacklevel=2)


def short_name(provider: str) -> str:
    """Return our name of a provider, or ONNX Runtime's if we have none.

    >>> short_name("CUDAExecutionProvider")
    'cuda'
    """
    return _SHORT_NAMES.get(provider, provider)
