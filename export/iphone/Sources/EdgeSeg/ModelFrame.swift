/// The place of a picture in the square model input: scaled, in the top left corner, rest padded.
///
/// Coordinates are continuous in both frames; the centre of the first pixel is (0.5, 0.5).
public struct ModelFrame: Equatable, Sendable {
    /// Width of the original picture, in pixels.
    public let imageWidth: Int
    /// Height of the original picture, in pixels.
    public let imageHeight: Int
    /// Side S of the square model input, in pixels.
    public let imageSize: Int
    /// Width of the scaled picture without padding, in model pixels.
    public let contentWidth: Int
    /// Height of the scaled picture without padding, in model pixels.
    public let contentHeight: Int

    /// Place a picture of at least one pixel.
    public init(imageWidth: Int, imageHeight: Int, imageSize: Int) {
        let longest = max(imageWidth, imageHeight)
        self.imageWidth = imageWidth
        self.imageHeight = imageHeight
        self.imageSize = imageSize
        self.contentWidth = contentSide(imageWidth, longest: longest, imageSize: imageSize)
        self.contentHeight = contentSide(imageHeight, longest: longest, imageSize: imageSize)
    }

    /// Model pixels per image pixel along x.
    public var scaleX: Float { return Float(Double(contentWidth) / Double(imageWidth)) }
    /// Model pixels per image pixel along y; sides are rounded, so it may differ from x.
    public var scaleY: Float { return Float(Double(contentHeight) / Double(imageHeight)) }
    /// Side S/4 of low-res logits, in cells.
    public var lowResSide: Int { return imageSize / 4 }
}

/// Return how long a side of the picture is in the model input, in model pixels.
func contentSide(_ side: Int, longest: Int, imageSize: Int) -> Int {
    // In double precision and this order as in Python, so that both round ties alike.
    let scale = Double(imageSize) / Double(longest)
    return max(1, Int(Double(side) * scale + 0.5))
}
