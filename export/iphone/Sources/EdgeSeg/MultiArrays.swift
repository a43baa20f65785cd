import CoreML
import Foundation

/// Return values, in order, as an array that Core ML takes.
func makeArray<Scalar>(
    _ values: [Scalar], _ dataType: MLMultiArrayDataType, shape: [Int]
) throws -> MLMultiArray {
    let sizes = shape.map { (size: Int) -> NSNumber in NSNumber(value: size) }
    let array = try MLMultiArray(shape: sizes, dataType: dataType)
    let target = array.dataPointer.bindMemory(to: Scalar.self, capacity: values.count)
    for index in 0..<values.count { target[index] = values[index] }
    return array
}

/// Return the numbers of an array row by row, whatever their type and their places in memory.
///
/// The released targets declare float32 outputs; Core ML may still leave room between rows.
func readFloats(of array: MLMultiArray, shape: [Int], name: String) throws -> [Float] {
    let got = array.shape.map { (size: NSNumber) -> Int in size.intValue }
    guard got == shape else {
        throw EdgeSegError.weights(
            "\(name) must have the shape \(shape), got \(got); export again with `edgeseg export`")
    }
    switch array.dataType {
    case .float32:
        return gather(array, shape, Float.self) { (value: Float) -> Float in value }
    case .float16:  // as bits: Swift's Float16 does not exist on Intel Macs
        return gather(array, shape, UInt16.self, floatOfHalf)
    default:
        throw EdgeSegError.weights(
            "\(name) must hold float32 or float16, got type \(array.dataType.rawValue); "
                + "export again with `edgeseg export`")
    }
}

private func gather<Scalar>(
    _ array: MLMultiArray, _ shape: [Int], _ type: Scalar.Type, _ convert: (Scalar) -> Float
) -> [Float] {
    let strides = array.strides.map { (stride: NSNumber) -> Int in stride.intValue }
    let source = array.dataPointer.assumingMemoryBound(to: type)
    let columns = shape[shape.count - 1]
    let step = strides[shape.count - 1]
    let numRows = shape.reduce(1, *) / columns
    var values: [Float] = []
    values.reserveCapacity(numRows * columns)
    for row in 0..<numRows {
        let start = rowOffset(row, shape: shape, strides: strides)
        for column in 0..<columns {
            values.append(convert(source[start + column * step]))
        }
    }
    return values
}

/// Return at which element a row begins, the rows of all leading axes being counted as one.
func rowOffset(_ row: Int, shape: [Int], strides: [Int]) -> Int {
    var rest = row
    var offset = 0
    for axis in stride(from: shape.count - 2, through: 0, by: -1) {
        offset += (rest % shape[axis]) * strides[axis]
        rest = rest / shape[axis]
    }
    return offset
}

/// Return a half-precision number given by its bits; an infinite one becomes 65536 or more.
func floatOfHalf(_ bits: UInt16) -> Float {
    // Exponents of halves count from 15, those of floats from 127: 2^112 makes up for it.
    let magnitude = Float(bitPattern: UInt32(bits & 0x7FFF) << 13) * Float(bitPattern: 0x7780_0000)
    if bits & 0x8000 != 0 { return -magnitude }
    return magnitude
}
