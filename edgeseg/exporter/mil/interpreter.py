"""Run a ML Program operation by operation.

Two arithmetics. "float32" computes everything in single precision; half-precision weights are
widened exactly. "float16" also rounds the result of every operation that the program declares as
half precision, so that overflow (inf) and rounding show. Inside one operation both accumulate in
single precision, as devices do for most of them; a device that keeps sums or intermediate steps in
half precision loses more, and one that flushes subnormal numbers to zero differs below 6e-5.

Compressed weights are rounded to their declared type in both, since nothing else is stored.
"""

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import torch

from edgeseg.errors import ExportError
from edgeseg.exporter.mil.arguments import Implementation, Value
from edgeseg.exporter.mil.execution import Execution, find_non_finite
from edgeseg.exporter.mil.features import bind_inputs
from edgeseg.exporter.mil.operation_sets import implementations
from edgeseg.exporter.mil.package import MilPackage
from edgeseg.exporter.mil.program import Binding, MilOperation
from edgeseg.exporter.mil.typed_values import array_of, conformed, value_of
from edgeseg.exporter.mil.values import Constant

Arithmetic = Literal["float32", "float16"]


@dataclass(frozen=True)
class _Step:
    operation: MilOperation
    implementation: Implementation
    arguments: Mapping[str, tuple[Binding, ...]]

    @property
    def names(self) -> list[str]:
        """Return the names it uses, each as often as it does."""
        bindings = (binding for bound in self.arguments.values() for binding in bound)
        return [binding for binding in bindings if isinstance(binding, str)]

    def check_known(self, known: Collection[str]) -> None:
        """Check that every name it uses has a value when it runs."""
        unknown = sorted(set(self.names) - set(known))
        if unknown:
            raise ExportError(
                f"{self.operation.label} uses {unknown}, which nothing before it gives"
            )


class Interpreter:
    """Executes the program of a package on the CPU.

    Which operations and arguments the program has is checked here, before the first run.

    Args:
        package: What to run.
        arithmetic: "float32", or "float16" to round as the program's types say.

    Raises:
        ExportError: The program has an operation, argument or constant that is not known.
    """

    def __init__(self, package: MilPackage, arithmetic: Arithmetic = "float32") -> None:
        if arithmetic not in get_args(Arithmetic):
            raise ExportError(f"arithmetic must be float32 or float16, got '{arithmetic}'")
        _check_names(package)
        self._package = package
        self._rounds = arithmetic == "float16"
        self._constants: dict[str, Value] = {}
        self._steps: list[_Step] = []
        self._prepare()

    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Return the outputs by name; see `execute`."""
        return dict(self.execute(inputs).outputs)

    @torch.inference_mode()
    def execute(self, inputs: Mapping[str, np.ndarray], keep: Collection[str] = ()) -> Execution:
        """Run the program once.

        Args:
            inputs: By name, with the shapes and kinds that `MilPackage.inputs` states; images as
                (H, W, 3) uint8 RGB.
            keep: Names of intermediate values to return as well.

        Raises:
            ExportError: The inputs are not what the package states, a name in `keep` is not a
                value of the program, or an operation cannot be executed.
        """
        values = self._bound(inputs)
        outputs = [feature.name for feature in self._package.outputs]
        wanted = {*outputs, *keep}
        unknown = sorted(wanted - set(self._package.types))
        if unknown:
            raise ExportError(f"no values are named {unknown}; see MilPackage.types for all names")
        found = find_non_finite("input", values)
        uses = Counter(name for step in self._steps for name in step.names)
        for step in self._steps:
            try:
                results = self._results(step, values, self._rounds)
            except ExportError as error:
                hint = f" (before that, {found})" if found else ""
                raise ExportError(f"{error}{hint}") from error
            found = found or find_non_finite(step.operation.kind, results)
            values.update(results)
            for name in step.names:  # a value is freed after its last use
                uses[name] -= 1
                if not uses[name] and name not in wanted:
                    values.pop(name, None)
        arrays = {name: self._array(name, values) for name in wanted}
        return Execution(
            {name: arrays[name] for name in outputs}, found, {name: arrays[name] for name in keep}
        )

    def _prepare(self) -> None:
        """Split the program into constants and steps."""
        known = implementations(self._package.program.opset)
        computed = {tensor.name for tensor in self._package.program.inputs}
        for operation in self._package.operations:
            if operation.kind == "const":
                self._constants[operation.outputs[0].name] = _stated(operation)
                continue
            step = _step(operation, known)
            if operation.is_stored:
                step.check_known(self._constants)
                self._constants.update(self._results(step, self._constants, rounds=True))
            else:
                step.check_known({*computed, *self._constants})
                computed |= {output.name for output in operation.outputs}
                self._steps.append(step)

    def _bound(self, inputs: Mapping[str, np.ndarray]) -> dict[str, Value]:
        tensors = bind_inputs(self._package.inputs, inputs)
        try:
            return {
                declared.name: conformed(tensors[declared.name], declared.type, self._rounds)
                for declared in self._package.program.inputs
            }
        except ValueError as error:
            raise ExportError(
                f"the inputs that the package describes do not fit its program: {error}"
            ) from error

    def _results(
        self, step: _Step, values: Mapping[str, Value], rounds: bool
    ) -> Mapping[str, Value]:
        """Execute one operation on the values computed so far."""
        operation = step.operation
        try:
            arguments = {
                name: tuple(self._value(binding, values) for binding in bindings)
                for name, bindings in step.arguments.items()
            }
            results = step.implementation(arguments)
            if len(results) != len(operation.outputs):
                raise ValueError(f"it gives {len(results)} results, declared otherwise")
            return {
                output.name: conformed(result, output.type, rounds)
                for output, result in zip(operation.outputs, results, strict=True)
            }
        except (ValueError, RuntimeError, IndexError, TypeError, ArithmeticError) as error:
            raise ExportError(f"{operation.label} cannot be executed: {error}") from error

    def _value(self, binding: Binding, values: Mapping[str, Value]) -> Value:
        if isinstance(binding, Constant):
            return value_of(binding)
        return values[binding] if binding in values else self._constants[binding]

    def _array(self, name: str, values: Mapping[str, Value]) -> np.ndarray:
        value = self._value(name, values)
        if isinstance(value, str):
            raise ExportError(f"'{name}' is a string, not a tensor; ask for another value")
        return array_of(value, self._package.types[name])


def _check_names(package: MilPackage) -> None:
    images = [str(feature) for feature in package.outputs if feature.is_image]
    if images:
        raise ExportError(f"output {', '.join(images)} is not supported; export it as an array")
    results = [output.name for operation in package.operations for output in operation.outputs]
    if len(package.types) != len(package.program.inputs) + len(results):
        raise ExportError("two values of the program have one name; export it again")


def _step(operation: MilOperation, known: Mapping[str, Implementation]) -> _Step:
    if operation.kind not in known or operation.num_blocks:
        raise ExportError(
            f"{operation.label} is not supported; export without it, or add '{operation.kind}' to "
            "edgeseg.exporter.mil"
        )
    if operation.attributes and not operation.is_stored:
        raise ExportError(
            f"{operation.label} has unknown attributes {sorted(operation.attributes)}"
        )
    attributes = {name: (value,) for name, value in operation.attributes.items()}
    arguments = {**operation.inputs, **attributes}
    try:
        known[operation.kind].check_names(set(arguments))
    except ValueError as error:
        raise ExportError(f"{operation.label} is not supported: {error}") from error
    return _Step(operation, known[operation.kind], arguments)


def _stated(operation: MilOperation) -> Value:
    value = operation.attributes.get("val")
    if value is None or set(operation.attributes) != {"val"} or operation.inputs:
        raise ExportError(f"{operation.label} must state one value and nothing else")
    if value.type != operation.outputs[0].type:
        raise ExportError(
            f"{operation.label} holds {value.type}, declared is {operation.outputs[0].type}"
        )
    return value_of(value)
