/// A box that probably holds an object, found before anyone has pointed at it.
public struct Proposal: Sendable {
    /// Inside the picture, in its pixels.
    public let box: Box
    /// Chance of an object times the IoU that its box is expected to have, 0..1.
    public let score: Float
}

extension Array where Element == Proposal {
    /// Leave out every box that overlaps a more confident one, which stands before it, too much.
    ///
    /// - Parameter maxIoU: Largest IoU of two boxes that stay, 0..1; 0.7 suits most.
    public func suppressed(maxIoU: Float) -> [Proposal] {
        var kept: [Proposal] = []
        for proposal in self {
            let isNew = kept.allSatisfy { (other: Proposal) -> Bool in
                other.box.iou(proposal.box) <= maxIoU
            }
            if isNew { kept.append(proposal) }
        }
        return kept
    }
}

/// Return the number A of cells that propose boxes.
func numProposals(imageSize: Int) -> Int {
    var total = 0
    for stride in Signature.proposalStrides {
        total += (imageSize / stride) * (imageSize / stride)
    }
    return total
}

/// Bring the most confident boxes into the picture and cut them at its edges.
///
/// - Parameters:
///   - boxesXYXY: (A x 4), x0 y0 x1 y1 in model pixels.
///   - scores: (A)
///   - maxProposals: Most boxes to look at; those smaller than a pixel are left out.
/// - Returns: The most confident first.
func readProposals(
    boxesXYXY: [Float], scores: [Float], frame: ModelFrame, maxProposals: Int
) -> [Proposal] {
    let (width, height) = (Float(frame.imageWidth), Float(frame.imageHeight))
    let (scaleX, scaleY) = (frame.scaleX, frame.scaleY)
    var proposals: [Proposal] = []
    for cell in mostConfident(scores).prefix(max(0, maxProposals)) {
        let x0 = clamped(boxesXYXY[4 * cell] / scaleX, width)
        let y0 = clamped(boxesXYXY[4 * cell + 1] / scaleY, height)
        let x1 = clamped(boxesXYXY[4 * cell + 2] / scaleX, width)
        let y1 = clamped(boxesXYXY[4 * cell + 3] / scaleY, height)
        if x1 - x0 >= 1 && y1 - y0 >= 1 {
            let box = Box(x0: x0, y0: y0, x1: x1, y1: y1)
            proposals.append(Proposal(box: box, score: scores[cell]))
        }
    }
    return proposals
}

/// Return the cells in the order of their scores; of two equal ones the first is better.
private func mostConfident(_ scores: [Float]) -> [Int] {
    return scores.indices.sorted { (first: Int, second: Int) -> Bool in
        if scores[first] != scores[second] { return scores[first] > scores[second] }
        return first < second
    }
}

private func clamped(_ value: Float, _ largest: Float) -> Float {
    return min(max(value, 0), largest)
}
