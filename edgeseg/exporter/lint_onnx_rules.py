"""Tables of what ONNX runtimes take, with their sources.

TensorRT: `docs/operators.md` of onnx/onnx-tensorrt and the layer pages of the TensorRT Operators
Documentation, docs.nvidia.com (versions 8 to 10). WebGPU: `js/web/docs/webgpu-operators.md` of
microsoft/onnxruntime, which is generated from the kernels of ONNX Runtime Web, and the kernels that
release notes name since.
"""

_UNSUPPORTED = "has no importer (onnx-tensorrt, operators.md)"
_DEPENDS = "gives a size that depends on the data, so no engine of fixed sizes can hold it"
_CONTROL = "is control flow; engines of fixed sizes must not branch on data"
_INTEGER = "is ONNX Runtime's integer arithmetic; TensorRT takes QuantizeLinear / DequantizeLinear"

TENSORRT_REFUSED = {
    "NonZero": _DEPENDS,
    "Compress": _UNSUPPORTED,
    "Unique": _UNSUPPORTED,
    "NonMaxSuppression": _DEPENDS,
    "If": _CONTROL,
    "Loop": _CONTROL,
    "Scan": _CONTROL,
    "QLinearConv": _INTEGER,
    "QLinearMatMul": _INTEGER,
    "ConvInteger": _INTEGER,
    "MatMulInteger": _INTEGER,
    "DynamicQuantizeLinear": _INTEGER,
    "BitShift": _UNSUPPORTED,
    "BitwiseAnd": _UNSUPPORTED,
    "BitwiseNot": _UNSUPPORTED,
    "BitwiseOr": _UNSUPPORTED,
    "BitwiseXor": _UNSUPPORTED,
    "CenterCropPad": _UNSUPPORTED,
    "Col2Im": _UNSUPPORTED,
    "ConcatFromSequence": _UNSUPPORTED,
    "Det": _UNSUPPORTED,
    "MaxRoiPool": _UNSUPPORTED,
    "MaxUnpool": _UNSUPPORTED,
    "MelWeightMatrix": _UNSUPPORTED,
    "Multinomial": _UNSUPPORTED,
    "NegativeLogLikelihoodLoss": _UNSUPPORTED,
    "SequenceAt": _UNSUPPORTED,
    "SequenceConstruct": _UNSUPPORTED,
    "SequenceEmpty": _UNSUPPORTED,
    "SequenceErase": _UNSUPPORTED,
    "SequenceInsert": _UNSUPPORTED,
    "SequenceLength": _UNSUPPORTED,
    "SoftmaxCrossEntropyLoss": _UNSUPPORTED,
    "SplitToSequence": _UNSUPPORTED,
    "StringNormalizer": _UNSUPPORTED,
    "TfIdfVectorizer": _UNSUPPORTED,
}

SHAPE_INPUTS = {
    "Reshape": (1,),
    "Expand": (1,),
    "ConstantOfShape": (0,),
    "Range": (0, 1, 2),
    "Tile": (1,),
    "Resize": (2, 3),
    "Slice": (1, 2, 3, 4),
    "Pad": (1,),
    "Split": (1,),
    "TopK": (1,),
    "OneHot": (1,),
}
"""Inputs that decide the size of the result."""

TENSORRT_RESIZE_MODES = {"nearest", "linear"}
TENSORRT_RESIZE_FRAMES = {
    "half_pixel",
    "pytorch_half_pixel",
    "tf_half_pixel_for_nn",
    "asymmetric",
    "align_corners",
}
TENSORRT_MAX_RANK = 8

_WEBGPU_TEXT = """
    Abs Acos Acosh Add ArgMax ArgMin Asin Asinh Atan Atanh Attention AveragePool BatchNormalization
    BiasAdd BiasGelu BiasSplitGelu Cast Ceil Clip Concat Conv ConvTranspose Cos Cosh CumSum
    DepthToSpace DequantizeLinear Div Einsum Elu Equal Erf Exp Expand FastGelu Flatten Floor
    FusedConv Gather GatherBlockQuantized GatherElements GatherND Gelu Gemm GlobalAveragePool
    GlobalMaxPool Greater GreaterOrEqual GridSample GroupQueryAttention HardSigmoid If
    InstanceNormalization LayerNormalization LeakyRelu Less LessOrEqual Log MatMul MatMulNBits
    MaxPool MemcpyFromHost MemcpyToHost Mul MultiHeadAttention Neg Not Pad Pow QuickGelu Range
    Reciprocal ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean ReduceMin
    ReduceProd ReduceSum ReduceSumSquare Relu Reshape Resize RotaryEmbedding ScatterND Shape Sigmoid
    SimplifiedLayerNormalization Sin Sinh SkipLayerNormalization SkipSimplifiedLayerNormalization
    Slice Softmax Split Sqrt Squeeze Sub Tan Tanh ThresholdedRelu Tile Transpose Unsqueeze Where
"""
WEBGPU_TAKEN = frozenset(_WEBGPU_TEXT.split())
WEBGPU_TYPES = frozenset(("FLOAT", "FLOAT16", "INT32", "UINT32", "BOOL"))
"""Element types that shaders compute with; others stay on the CPU."""
_SHAPE_TEXT = "Shape Gather Concat Unsqueeze Squeeze Slice Cast Range Add Sub Mul Div Reshape"
WEBGPU_SHAPE_WORK = frozenset(_SHAPE_TEXT.split())
"""Operators that compute sizes, which stay on the CPU by design (a comment of the same table)."""
