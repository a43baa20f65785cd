import Foundation

/// A mask at the size of the picture.
public struct Mask: Sendable {
    /// In pixels.
    public let width: Int
    /// In pixels.
    public let height: Int
    /// (height x width), row by row, true on the object.
    public let isObject: [Bool]

    /// Whether the pixel at column x and row y is on the object.
    public subscript(x: Int, y: Int) -> Bool { return isObject[y * width + x] }
}

/// The four answers to a prompt, of which one is meant.
public struct Masks: Sendable {
    /// (4, S/4 x S/4), row by row, in the model frame, above zero on the object. One of them may
    /// be the `maskLogits` of a next prompt on this picture.
    public let lowResLogits: [[Float]]
    /// (4,), the IoU that each answer is expected to have.
    public let scores: [Float]
    /// The answer to take: of a single point the one of 1 to 3 with the best score, otherwise 0.
    public let best: Int
    /// The place of the picture in the model input.
    public let frame: ModelFrame

    /// Compute an answer, the best one if not told, at the size of the picture.
    public func mask(_ token: Int? = nil) -> Mask {
        let isObject = upsampledMask(lowResLogits[token ?? best], in: frame)
        return Mask(width: frame.imageWidth, height: frame.imageHeight, isObject: isObject)
    }
}

/// Return which of the four answers is meant; the first of equally good ones.
func chooseToken(scores: [Float], isAmbiguous: Bool) -> Int {
    if !isAmbiguous { return 0 }
    var best = 1
    for token in 2..<4 {
        if scores[token] > scores[best] { best = token }
    }
    return best
}

/// Return how many rows or columns of low-res cells have their centre on the picture.
func numContentCells(_ content: Int, imageSize: Int, cells: Int) -> Int {
    let stride = Double(imageSize) / Double(cells)
    return max(1, Int(ceil(Double(content) / stride - 0.5)))
}

/// Cut the padding off logits, bring them to the size of the picture bilinearly, threshold at 0.
///
/// - Parameter logits: (S/4 x S/4), row by row.
/// - Returns: (imageHeight x imageWidth), row by row, the pixels of `postprocess.upsample_masks`.
func upsampledMask(_ logits: [Float], in frame: ModelFrame) -> [Bool] {
    let (width, height) = (frame.imageWidth, frame.imageHeight)
    let (side, cells) = (frame.imageSize, frame.lowResSide)
    let numColumns = numContentCells(frame.contentWidth, imageSize: side, cells: cells)
    let numRows = numContentCells(frame.contentHeight, imageSize: side, cells: cells)
    let alongX = Double(frame.contentWidth) / Double(width) * Double(cells) / Double(side)
    let alongY = Double(frame.contentHeight) / Double(height) * Double(cells) / Double(side)
    let columns = linearTaps(pixels: width, cells: numColumns, cellsAPixel: alongX)
    let rows = linearTaps(pixels: height, cells: numRows, cellsAPixel: alongY)
    var wide = [Float](repeating: 0, count: numRows * width)
    var hasObject = [Bool](repeating: false, count: numRows)
    for row in 0..<numRows {
        let start = row * cells
        for column in 0..<numColumns {
            if logits[start + column] > 0 { hasObject[row] = true }
        }
        for x in 0..<width {
            let near = logits[start + columns.sources[2 * x]]
            let far = logits[start + columns.sources[2 * x + 1]]
            wide[row * width + x] = near + (far - near) * columns.weights[2 * x + 1]
        }
    }
    var mask = [Bool](repeating: false, count: width * height)
    for y in 0..<height {
        let (above, below) = (rows.sources[2 * y], rows.sources[2 * y + 1])
        if !hasObject[above] && !hasObject[below] { continue }  // a mean of what is outside
        let weight = rows.weights[2 * y + 1]
        for x in 0..<width {
            let near = wide[above * width + x]
            let far = wide[below * width + x]
            mask[y * width + x] = near + (far - near) * weight > 0
        }
    }
    return mask
}
