"""A reference interpreter of Core ML ML Programs: `.mlpackage` files executed without a Mac.

```text
package.load_package     a folder on disk       -> MilPackage: inputs, outputs, operations
interpreter.Interpreter  a MilPackage           -> callable on numpy arrays, operation by operation
```

What a file says is honoured or refused, never skipped: an operation, argument, mode, element type
or shape that is not known here raises one `ExportError` that names it.

Sources: the Core ML specification (Model.proto, FeatureTypes.proto, MIL.proto), the storage format
of weight files (StorageFormat.hpp of MILBlob), and the MIL operation reference of coremltools
(https://apple.github.io/coremltools/source/coremltools.converters.mil.mil.ops.defs.html), opsets
of iOS 16 and newer. The code is our own; of coremltools only the protobuf classes are used.
"""
