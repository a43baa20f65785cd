"""What the Neural Engine takes of an ML Program.

Apple documents neither the list nor the limits. Each rule names where it is from:

- CM: MIL operation reference and messages of coremltools; issues 832 and 1003 of apple/coremltools
  (at most five dimensions, none longer than 16384).
- ANE: Deploying Transformers on the Apple Neural Engine, machinelearning.apple.com, 2022 (four
  dimensions, channels second).
- PLAN: what Core ML's own compute plan said of published packages for iOS 16, as the WhisperKit
  project ships them (`*.mlcomputeplan.json`: convolutions, gelu, layer_norm over channels,
  batch_norm, split and the like on the Neural Engine; gather and padding by reflection on the CPU).
- CAT: the operation catalogue of ANEForge, 2026, aneforge.readthedocs.io, and the Apple Neural
  Engine guide, 2026, ane-guide.readthedocs.io, both from measurement and disassembly.
- FLEX: Flexible Input Shapes in the coremltools guide, and issues 1764 and 2370.
"""

from collections.abc import Iterator, Sequence

import numpy as np

from edgeseg.exporter.lint_findings import MAX_ON_CPU, Finding, Runtime
from edgeseg.exporter.mil.package import MilPackage
from edgeseg.exporter.mil.program import MilOperation
from edgeseg.exporter.mil.values import TensorType

_RUNTIME: Runtime = "neural_engine"
_MAX_RANK = 4
_MAX_SIDE, _MAX_CHANNELS = 16_384, 65_536
_MAX_KERNEL = 13

_TAKEN_TEXT = """
    conv conv_transpose linear matmul einsum scaled_dot_product_attention
    batch_norm layer_norm instance_norm l2_norm softmax avg_pool max_pool

    add sub mul real_div maximum minimum pow square sqrt rsqrt inverse abs exp exp2 log floor ceil
    round sign clip threshold erf
    relu relu6 leaky_relu prelu elu gelu sigmoid sigmoid_hard silu softplus softplus_parametric
    softsign tanh scaled_tanh clamped_relu thresholded_relu linear_activation
    equal not_equal greater greater_equal less less_equal select

    reduce_mean reduce_sum reduce_max reduce_min reduce_sum_square reduce_l1_norm reduce_l2_norm

    reshape transpose expand_dims squeeze concat split stack tile reverse slice_by_index
    slice_by_size crop pad identity cast
    pixel_shuffle pixel_unshuffle space_to_depth depth_to_space
    upsample_bilinear upsample_nearest_neighbor resize_bilinear resize_nearest_neighbor resize
"""
_TAKEN = frozenset(_TAKEN_TEXT.split())
"""By PLAN and CAT."""
_REFUSED = {
    "gather": "is done by the CPU (PLAN)",
    "gather_along_axis": "is done by the CPU (PLAN)",
    "gather_nd": "is done by the CPU (PLAN)",
    "scatter": "has no hardware path (CAT)",
    "scatter_along_axis": "has no hardware path (CAT)",
    "scatter_nd": "has no hardware path (CAT)",
    "reduce_prod": "has no hardware path (CAT)",
    "lstm": "is recurrent and has no hardware path (CAT)",
    "gru": "is recurrent and has no hardware path (CAT)",
    "rnn": "is recurrent and has no hardware path (CAT)",
    "non_zero": "gives a tensor whose size depends on the data (FLEX)",
    "non_maximum_suppression": "gives a tensor whose content depends on sorting (CAT)",
    "shape": "computes with sizes, which are to be fixed (FLEX)",
    "sin": "exists from the A15 on only; compute the few angles in single precision (CAT)",
    "cos": "exists from the A15 on only; compute the few angles in single precision (CAT)",
    "cond": "is control flow, which runs on the CPU (CM)",
    "while_loop": "is control flow, which runs on the CPU (CM)",
}
_FLAGS = {"equal", "not_equal", "greater", "greater_equal", "less", "less_equal", "select"}


def lint_program(package: MilPackage) -> Iterator[Finding]:
    """Yield what the Neural Engine would not take of a package, in the order of the program."""
    for feature in package.inputs:
        fixed = len(feature.accepted) == 1 and all(low == high for low, high in feature.accepted[0])
        if not fixed:
            reason = f"takes several shapes ({feature}), which moves work off the engine (FLEX)"
            yield Finding("input", feature.name, reason, _RUNTIME)
    operations = [operation for operation in package.operations if not operation.is_stored]
    if not any(output.type.dtype == "fp16" for each in operations for output in each.outputs):
        for operation in operations[:1]:
            yield _error(operation, "and all others compute no half precision, as the engine does")
    beginning = _single_beginning(operations)
    for operation in operations:
        yield from _lint_shapes(operation)
        if operation not in beginning:
            yield from _lint_operation(operation, package)
    if beginning:
        yield _note(
            beginning[0],
            f"and {len(beginning) - 1} other operations that place prompts compute at most "
            f"{max(map(_numbers, beginning))} numbers each in single precision, which the CPU does",
        )


def _single_beginning(operations: Sequence[MilOperation]) -> list[MilOperation]:
    """Return the small operations in single precision that no half-precision result goes into."""
    found: list[MilOperation] = []
    half: set[str] = set()  # names of half-precision results and of what comes from them
    for operation in operations:
        names = {output.name for output in operation.outputs}
        if half & set(_names(operation)) or not _is_single(operation):
            half |= names
        elif operation.kind != "cast" and _numbers(operation) <= MAX_ON_CPU:
            found.append(operation)
    return found


def _lint_operation(operation: MilOperation, package: MilPackage) -> Iterator[Finding]:
    if operation.kind in _REFUSED:
        yield _error(operation, _REFUSED[operation.kind])
    elif operation.num_blocks:
        yield _error(operation, "is control flow, which runs on the CPU (CM)")
    elif operation.kind not in _TAKEN:
        yield _error(operation, "is not known to run there (PLAN, CAT)")
    if operation.kind != "cast":  # casts stand at the borders
        yield from _lint_types(operation)
    if operation.kind in _FLAGS:
        yield _note(operation, "computes flags; arithmetic with 0 and 1 is safer (CAT)")
    yield from _lint_arguments(operation, package)


def _lint_types(operation: MilOperation) -> Iterator[Finding]:
    kinds = {output.type.dtype for output in operation.outputs}
    if kinds & {"fp32", "fp64"}:
        reason = (
            f"computes {_numbers(operation)} numbers in single precision, which the CPU or GPU "
            f"does; up to {MAX_ON_CPU} are tolerated before half precision begins (CAT)"
        )
        yield _error(operation, reason)
    elif kinds - {"fp16", "bool"}:
        reason = f"computes {', '.join(sorted(kinds))}; the engine computes half precision (CAT)"
        yield _error(operation, reason)


def _lint_shapes(operation: MilOperation) -> Iterator[Finding]:
    for output in operation.outputs:
        declared = output.type
        if None in declared.shape:
            yield _error(operation, f"gives {declared} of open size; fix the sizes (FLEX)")
        elif declared.rank > _MAX_RANK:
            reason = f"gives {declared}; four dimensions are its native layout (ANE, CM)"
            yield _error(operation, reason)
        elif _is_too_long(declared):
            yield _error(operation, f"gives {declared}; no side may exceed {_MAX_SIDE} (CM, CAT)")


def _lint_arguments(operation: MilOperation, package: MilPackage) -> Iterator[Finding]:
    if operation.kind in ("conv", "conv_transpose"):
        yield from _lint_weight(operation, package)
    if operation.kind in ("avg_pool", "max_pool"):
        sizes = package.constant(operation.inputs["kernel_sizes"][0])
        if sizes is not None and np.max(sizes.value) > _MAX_KERNEL:  # type: ignore[arg-type]
            yield _error(operation, f"has windows of {sizes.value}, over {_MAX_KERNEL} (CAT)")
    if operation.kind == "pad" and "mode" in operation.inputs:
        mode = package.constant(operation.inputs["mode"][0])
        if mode is not None and mode.value != "constant":
            yield _error(operation, f"pads by mode '{mode.value}', which the CPU does (PLAN)")


def _lint_weight(operation: MilOperation, package: MilPackage) -> Iterator[Finding]:
    (binding,) = operation.inputs["weight"]
    if isinstance(binding, str):
        stored = (each for each in package.operations if each.is_stored)
        is_stored = any(output.name == binding for each in stored for output in each.outputs)
        declared = package.types[binding]
    else:
        is_stored, declared = True, binding.type or TensorType("fp16", ())
    if not is_stored:
        yield _error(operation, "has weights that are computed; they must be stored (CAT)")
    elif any(size is not None and size > _MAX_KERNEL for size in declared.shape[2:]):
        yield _error(operation, f"has weights {declared}; kernels end at {_MAX_KERNEL} (CAT)")


def _names(operation: MilOperation) -> list[str]:
    bindings = (binding for bound in operation.inputs.values() for binding in bound)
    return [binding for binding in bindings if isinstance(binding, str)]


def _is_single(operation: MilOperation) -> bool:
    return all(output.type.dtype == "fp32" for output in operation.outputs)


def _numbers(operation: MilOperation) -> int:
    return max(int(np.prod([size or 1 for size in out.type.shape])) for out in operation.outputs)


def _is_too_long(declared: TensorType) -> bool:
    sizes = [size or 0 for size in declared.shape]
    sides = sizes[-2:] if declared.rank > 2 else sizes
    return any(size > _MAX_SIDE for size in sides) or any(s > _MAX_CHANNELS for s in sizes)


def _error(operation: MilOperation, reason: str) -> Finding:
    return Finding(operation.kind, operation.outputs[0].name, reason, _RUNTIME)


def _note(operation: MilOperation, reason: str) -> Finding:
    return Finding(operation.kind, operation.outputs[0].name, reason, _RUNTIME, is_error=False)
