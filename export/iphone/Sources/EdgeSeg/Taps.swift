import Foundation

/// Which cells of a line each pixel of another line is made of, and their shares.
struct Taps {
    /// Cells, those of the first pixel first.
    var sources: [Int] = []
    /// The share of each; those of a pixel sum to 1.
    var weights: [Float] = []
    /// Pixel p is made of sources[starts[p]] up to, not including, sources[starts[p + 1]].
    var starts: [Int] = [0]
}

/// Average all cells that a larger pixel covers, as OpenCV's INTER_AREA does.
func areaTaps(pixels: Int, cells: Int) -> Taps {
    var taps = Taps()
    let scale = Double(cells) / Double(pixels)
    for pixel in 0..<pixels {
        let begin = Double(pixel) * scale
        let end = min(begin + scale, Double(cells))
        for cell in Int(begin)..<Int(ceil(end)) {
            let covered = min(end, Double(cell + 1)) - max(begin, Double(cell))
            taps.sources.append(cell)
            taps.weights.append(Float(covered / (end - begin)))
        }
        taps.starts.append(taps.sources.count)
    }
    return taps
}

/// Interpolate between the centres of two cells; constant beyond the outermost centres.
///
/// - Parameter cellsAPixel: Length of a pixel; the lines begin at the same place.
func linearTaps(pixels: Int, cells: Int, cellsAPixel: Double) -> Taps {
    var taps = Taps()
    for pixel in 0..<pixels {
        let centre = (Double(pixel) + 0.5) * cellsAPixel - 0.5
        let position = min(max(centre, 0), Double(cells - 1))
        let lower = Int(position)
        let weight = Float(position - Double(lower))
        taps.sources.append(lower)
        taps.weights.append(1 - weight)
        taps.sources.append(min(lower + 1, cells - 1))
        taps.weights.append(weight)
        taps.starts.append(taps.sources.count)
    }
    return taps
}
