"""Which function executes which operation, for each set of operations.

A set belongs to a deployment target; a newer one redefines some operations of the older ones.
"""

from collections.abc import Mapping
from functools import cache

from edgeseg.errors import ExportError
from edgeseg.exporter.mil import (
    activation_ops,
    compression_ops,
    convolution_ops,
    elementwise_ops,
    indexing_ops,
    linear_ops,
    normalization_ops,
    reduction_ops,
    resizing_ops,
    shape_ops,
)
from edgeseg.exporter.mil.arguments import Function, Implementation, implementation

_IOS16: Mapping[str, Function] = {
    **elementwise_ops.OPERATIONS,
    **activation_ops.OPERATIONS,
    **convolution_ops.OPERATIONS,
    **linear_ops.OPERATIONS,
    **normalization_ops.OPERATIONS,
    **reduction_ops.OPERATIONS,
    **shape_ops.OPERATIONS,
    **indexing_ops.OPERATIONS,
    **resizing_ops.OPERATIONS,
    **compression_ops.OPERATIONS,
}
_IOS17: Mapping[str, Function] = {
    **_IOS16,
    **shape_ops.OPERATIONS_IOS17,
    **indexing_ops.OPERATIONS_IOS17,
    **resizing_ops.OPERATIONS_IOS17,
}
_IOS18: Mapping[str, Function] = {
    **_IOS17,
    **linear_ops.OPERATIONS_IOS18,
    **compression_ops.OPERATIONS_IOS18,
}
_BY_OPSET: Mapping[str, Mapping[str, Function]] = {
    "CoreML6": _IOS16,
    "CoreML7": _IOS17,
    "CoreML8": _IOS18,
    "CoreML9": _IOS18,  # iOS 26 redefines none of them
}


@cache
def implementations(opset: str) -> Mapping[str, Implementation]:
    """Return what executes the operations of a set, by kind; `const` is not among them.

    Args:
        opset: As programs name it: "CoreML6" (iOS 16), "CoreML7" (17), "CoreML8" (18), "CoreML9".

    Raises:
        ExportError: The set is not known.
    """
    if opset not in _BY_OPSET:
        raise ExportError(
            f"opset {opset} is not supported; export for iOS 16 or newer ({', '.join(_BY_OPSET)})"
        )
    return {kind: implementation(function) for kind, function in _BY_OPSET[opset].items()}
