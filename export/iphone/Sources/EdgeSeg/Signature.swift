/// Names and fixed sizes of the exported graphs, as `edgeseg/signature.py` has them.
///
/// S is the side of the model input. The batch of every tensor is 1.
public enum Signature {
    /// Encoder input: an RGB picture of S x S pixels.
    public static let imageRGB = "image_rgb"
    /// (1, D, S/16, S/16) float32, what every model's encoder gives.
    public static let imageEmbedding = "image_embedding"
    /// (1, D/4, S/8, S/8) float32, of models with skips.
    public static let highResS8 = "high_res_s8"
    /// (1, D/8, S/4, S/4) float32, of models with skips.
    public static let highResS4 = "high_res_s4"
    /// (1, slots, 2) float32, x then y, in pixels of the model input.
    public static let pointsXYModel = "points_xy_model"
    /// (1, slots) int32, see `PointLabel`.
    public static let pointLabels = "point_labels"
    /// (1, 1, S/4, S/4) float32, above zero on the object.
    public static let maskLogits = "mask_logits"
    /// (1,) float32, 1 if `maskLogits` counts, else 0.
    public static let hasMask = "has_mask"
    /// (1, 4, S/4, S/4) float32, above zero on the object.
    public static let lowResLogits = "low_res_logits"
    /// (1, 4) float32, the IoU that each answer is expected to have.
    public static let iouScores = "iou_scores"
    /// (1, A, 4) float32, x0 y0 x1 y1 in pixels of the model input.
    public static let proposalBoxesXYXYModel = "proposal_boxes_xyxy_model"
    /// (1, A) float32 in 0..1.
    public static let proposalScores = "proposal_scores"

    /// Model pixels a cell of each level that proposes boxes; A is the number of all their cells.
    public static let proposalStrides: [Int] = [8, 16, 32, 64]
    /// The colour at the right and bottom of a picture that is no square.
    public static let paddingRGB: [UInt8] = [124, 116, 104]
    /// Prompts of one call, as the released Core ML targets have them.
    public static let numPrompts: Int = 1
    /// Points and box corners of a prompt, as the released Core ML targets have them.
    public static let numPointSlots: Int = 6
}

/// What a slot of a prompt is, as `edgeseg/prompts.py` has it.
public enum PointLabel {
    /// A point that must stay outside the mask.
    public static let negative: Int32 = 0
    /// A point on the object.
    public static let positive: Int32 = 1
    /// The first corner of a box.
    public static let boxTopLeft: Int32 = 2
    /// The second corner of a box.
    public static let boxBottomRight: Int32 = 3
    /// An empty slot.
    public static let absent: Int32 = -2
}
