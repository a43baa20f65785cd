import CoreGraphics
import CoreVideo

/// A picture as the image encoder takes it: S x S pixels, padded at the right and bottom.
public struct ModelInput: @unchecked Sendable {  // the pixels are never written again
    /// The place of the picture in it.
    public let frame: ModelFrame
    /// 32BGRA, which Core ML turns into the RGB that the graph was exported for.
    let pixels: CVPixelBuffer

    /// Scale and pad a picture.
    ///
    /// The stored pixels are taken as they are. Unlike `edgeseg.images`, this does not apply an
    /// EXIF orientation: turn the picture upright first. A transparent pixel becomes darker where
    /// Python keeps its colour; grey and 16-bit pictures may differ a little. Meanwhile it takes
    /// four bytes of memory for each pixel of the picture.
    ///
    /// - Parameters:
    ///   - image: A picture of any size.
    ///   - imageSize: Side S of the model input, in pixels.
    public init(_ image: CGImage, imageSize: Int) throws {
        let frame = ModelFrame(
            imageWidth: image.width, imageHeight: image.height, imageSize: imageSize)
        self.frame = frame
        self.pixels = try makePixelBuffer(readPixels(of: image), in: frame)
    }
}

/// Return (height x width x 4) bytes: red, green, blue and one that means nothing.
private func readPixels(of image: CGImage) throws -> [UInt8] {
    var pixels = [UInt8](repeating: 0, count: 4 * image.width * image.height)
    // In its own colour space no value changes, as when OpenCV reads a file.
    if let own = image.colorSpace, own.model == CGColorSpaceModel.rgb, own.supportsOutput {
        if draw(image, into: &pixels, space: own) { return pixels }
    }
    if draw(image, into: &pixels, space: CGColorSpaceCreateDeviceRGB()) { return pixels }
    throw EdgeSegError.image(
        "cannot read the pixels of a picture of \(image.width) x \(image.height); convert it to "
            + "8-bit RGB")
}

private func draw(_ image: CGImage, into pixels: inout [UInt8], space: CGColorSpace) -> Bool {
    let (width, height) = (image.width, image.height)
    return pixels.withUnsafeMutableBytes { (bytes: UnsafeMutableRawBufferPointer) -> Bool in
        let layout = CGImageAlphaInfo.noneSkipLast.rawValue
        let context = CGContext(
            data: bytes.baseAddress, width: width, height: height, bitsPerComponent: 8,
            bytesPerRow: 4 * width, space: space, bitmapInfo: layout)
        guard let bitmap = context else { return false }
        bitmap.draw(image, in: CGRect(x: 0, y: 0, width: width, height: height))
        return true
    }
}

private func makePixelBuffer(_ picture: [UInt8], in frame: ModelFrame) throws -> CVPixelBuffer {
    let side = frame.imageSize
    let noProperties: [String: Any] = [:]
    let attributes: [String: Any] = [kCVPixelBufferIOSurfacePropertiesKey as String: noProperties]
    var created: CVPixelBuffer?
    CVPixelBufferCreate(
        kCFAllocatorDefault, side, side, kCVPixelFormatType_32BGRA, attributes as CFDictionary,
        &created)
    guard let buffer = created else {
        throw EdgeSegError.image("no memory for \(side) x \(side) pixels; free some and try again")
    }
    CVPixelBufferLockBaseAddress(buffer, [])
    defer { CVPixelBufferUnlockBaseAddress(buffer, []) }
    guard let base = CVPixelBufferGetBaseAddress(buffer) else {
        throw EdgeSegError.image("cannot write \(side) x \(side) pixels; try again")
    }
    let target = base.assumingMemoryBound(to: UInt8.self)
    scaleAndPad(picture, in: frame, into: target, rowBytes: CVPixelBufferGetBytesPerRow(buffer))
    return buffer
}

/// Scale a picture to the model input and pad it.
///
/// Areas are averaged when it shrinks, it is bilinear when it grows, as `edgeseg/preprocess.py`
/// does with OpenCV. vImage and Core Graphics have no such mean: they ring at edges (Lanczos) or
/// do not say what they compute. What shrinks gets the bytes of Python; of what grows one in ten
/// differs by one, as OpenCV rounds in between.
///
/// - Parameters:
///   - picture: (imageHeight x imageWidth x 4) bytes: red, green, blue and one without a meaning.
///   - target: (imageSize x rowBytes) bytes, written blue, green, red, 255.
func scaleAndPad(
    _ picture: [UInt8], in frame: ModelFrame, into target: UnsafeMutablePointer<UInt8>,
    rowBytes: Int
) {
    let (width, height) = (frame.imageWidth, frame.imageHeight)
    let (contentWidth, contentHeight) = (frame.contentWidth, frame.contentHeight)
    var rows = areaTaps(pixels: contentHeight, cells: height)
    var columns = areaTaps(pixels: contentWidth, cells: width)
    if max(width, height) < frame.imageSize {
        let stepY = Double(height) / Double(contentHeight)
        let stepX = Double(width) / Double(contentWidth)
        rows = linearTaps(pixels: contentHeight, cells: height, cellsAPixel: stepY)
        columns = linearTaps(pixels: contentWidth, cells: width, cellsAPixel: stepX)
    }
    let padding = Signature.paddingRGB
    for y in 0..<frame.imageSize {
        for x in 0..<frame.imageSize {
            let pixel = y * rowBytes + 4 * x
            target[pixel] = padding[2]
            target[pixel + 1] = padding[1]
            target[pixel + 2] = padding[0]
            target[pixel + 3] = 255
        }
    }
    let line = UnsafeMutableBufferPointer<Float>.allocate(capacity: 4 * width)
    defer { line.deallocate() }
    // A pointer: a photograph has so many bytes that checking each index would take most time.
    picture.withUnsafeBufferPointer { (source: UnsafeBufferPointer<UInt8>) -> Void in
        for row in 0..<contentHeight {
            line.initialize(repeating: 0)
            for tap in rows.starts[row]..<rows.starts[row + 1] {
                let weight = rows.weights[tap]
                let start = 4 * width * rows.sources[tap]
                for byte in 0..<(4 * width) { line[byte] += weight * Float(source[start + byte]) }
            }
            for column in 0..<contentWidth {
                var (red, green, blue): (Float, Float, Float) = (0.5, 0.5, 0.5)  // rounds
                for tap in columns.starts[column]..<columns.starts[column + 1] {
                    let weight = columns.weights[tap]
                    let start = 4 * columns.sources[tap]
                    red += weight * line[start]
                    green += weight * line[start + 1]
                    blue += weight * line[start + 2]
                }
                let pixel = row * rowBytes + 4 * column
                target[pixel] = UInt8(blue)
                target[pixel + 1] = UInt8(green)
                target[pixel + 2] = UInt8(red)
            }
        }
    }
}
