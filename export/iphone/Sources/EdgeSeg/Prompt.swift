import CoreGraphics

/// A rectangle x0 y0 x1 y1 with x0 < x1 and y0 < y1, outer edges, in pixels of the picture.
public struct Box: Equatable, Sendable {
    /// The edges.
    public var x0, y0, x1, y1: Float

    /// Make a box; it is checked when it is used.
    public init(x0: Float, y0: Float, x1: Float, y1: Float) {
        self.x0 = x0
        self.y0 = y0
        self.x1 = x1
        self.y1 = y1
    }

    /// Share of the two boxes' common area in what both cover, 0..1.
    public func iou(_ other: Box) -> Float {
        let width = max(0, min(x1, other.x1) - max(x0, other.x0))
        let height = max(0, min(y1, other.y1) - max(y0, other.y0))
        let both = width * height
        let area = (x1 - x0) * (y1 - y0)
        let otherArea = (other.x1 - other.x0) * (other.y1 - other.y0)
        return both / max(area + otherArea - both, Float.leastNormalMagnitude)
    }
}

/// What a user points at: points, a box and a rough mask, for one object.
public struct Prompt: Sendable {
    /// In pixels of the picture, y downwards; the centre of the first pixel is (0.5, 0.5).
    public var points: [CGPoint]
    /// For each point `PointLabel.positive` or `PointLabel.negative`.
    public var labels: [Int32]
    /// In pixels of the picture.
    public var box: Box?
    /// (S/4 x S/4), row by row, one of the `lowResLogits` of an earlier answer on this picture.
    public var maskLogits: [Float]?

    /// Make a prompt; it is checked when it is used. Without labels all points are positive.
    public init(
        points: [CGPoint] = [],
        labels: [Int32]? = nil,
        box: Box? = nil,
        maskLogits: [Float]? = nil
    ) {
        self.points = points
        self.labels = labels ?? [Int32](repeating: PointLabel.positive, count: points.count)
        self.box = box
        self.maskLogits = maskLogits
    }
}

/// A prompt in the slots of the decoder.
struct PackedPrompt {
    /// (slots x 2), x then y, in model pixels; 0 in empty slots.
    var pointsXY: [Float] = []
    /// (slots)
    var labels: [Int32] = []
    /// Whether it is a single point, which may mean a whole, a part or a sub-part.
    var isAmbiguous = false
}

extension Prompt {
    /// Fill the slots: points, the two corners of the box, then empty ones.
    func packed(in frame: ModelFrame) throws -> PackedPrompt {
        try check(in: frame)
        var packed = PackedPrompt()
        packed.labels = labels
        for point in points {
            packed.pointsXY.append(Float(point.x) * frame.scaleX)
            packed.pointsXY.append(Float(point.y) * frame.scaleY)
        }
        if let box = box {
            packed.pointsXY.append(box.x0 * frame.scaleX)
            packed.pointsXY.append(box.y0 * frame.scaleY)
            packed.pointsXY.append(box.x1 * frame.scaleX)
            packed.pointsXY.append(box.y1 * frame.scaleY)
            packed.labels.append(PointLabel.boxTopLeft)
            packed.labels.append(PointLabel.boxBottomRight)
        }
        try refuse(
            packed.labels.count > Signature.numPointSlots,
            "a prompt takes at most \(Signature.numPointSlots) points and box corners, got "
                + "\(packed.labels.count); leave some out")
        packed.isAmbiguous = packed.labels.count == 1 && maskLogits == nil
        while packed.labels.count < Signature.numPointSlots {
            packed.labels.append(PointLabel.absent)
            packed.pointsXY.append(0)
            packed.pointsXY.append(0)
        }
        return packed
    }

    /// Throw unless it fits the picture; what is not a number fails every comparison.
    private func check(in frame: ModelFrame) throws {
        try refuse(
            points.isEmpty && box == nil && maskLogits == nil,
            "the prompt is empty; give points, box or maskLogits")
        let known = labels.filter { (label: Int32) -> Bool in
            label == PointLabel.positive || label == PointLabel.negative
        }
        try refuse(
            labels.count != points.count || known.count != points.count,
            "labels must be 1 (object) or 0 (not object) for each of \(points.count) points, got "
                + "\(labels); leave them out if all points are on the object")
        let (width, height) = (frame.imageWidth, frame.imageHeight)
        for point in points {
            let isInside = point.x >= 0 && point.y >= 0
            let isBefore = point.x <= CGFloat(width) && point.y <= CGFloat(height)
            try refuse(
                !(isInside && isBefore),
                "points must lie on the picture, \(width) wide and \(height) high, got \(point); "
                    + "give pixels of the picture, not points of the screen")
        }
        if let box = box {
            let isBox = box.x0 < box.x1 && box.y0 < box.y1
            let isFinite = (box.x1 - box.x0).isFinite && (box.y1 - box.y0).isFinite
            let isBefore = box.x0 < Float(width) && box.y0 < Float(height)
            try refuse(
                !(isBox && isFinite && isBefore && box.x1 > 0 && box.y1 > 0),
                "a box needs x0 < x1 and y0 < y1 and must overlap the picture, \(width) wide and "
                    + "\(height) high, got \(box); give two opposite corners in its pixels")
        }
        if let logits = maskLogits {
            let expected = frame.lowResSide * frame.lowResSide
            let isFinite = logits.allSatisfy { (logit: Float) -> Bool in logit.isFinite }
            try refuse(
                logits.count != expected || !isFinite,
                "maskLogits must be \(expected) finite numbers for this model, got "
                    + "\(logits.count); pass lowResLogits of an earlier answer")
        }
    }
}

private func refuse(_ isWrong: Bool, _ message: @autoclosure () -> String) throws {
    if isWrong { throw EdgeSegError.prompt(message()) }
}
