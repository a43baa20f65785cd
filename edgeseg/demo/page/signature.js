/** What the graphs call their tensors: `edgeseg/signature.py` in JavaScript; a test compares them. */

export const IMAGE = "image";
export const IMAGE_RGB = "image_rgb";
export const IMAGE_EMBEDDING = "image_embedding";
export const HIGH_RES_S8 = "high_res_s8";
export const HIGH_RES_S4 = "high_res_s4";
export const POINTS_XY_MODEL = "points_xy_model";
export const POINT_LABELS = "point_labels";
export const MASK_LOGITS = "mask_logits";
export const HAS_MASK = "has_mask";
export const LOW_RES_LOGITS = "low_res_logits";
export const IOU_SCORES = "iou_scores";
export const PROPOSAL_BOXES_XYXY_MODEL = "proposal_boxes_xyxy_model";
export const PROPOSAL_SCORES = "proposal_scores";
export const PROPOSAL_CLICK_LOGITS = "proposal_click_logits";

/** Model pixels a cell of each level that proposes boxes. */
export const PROPOSAL_STRIDES = [8, 16, 32, 64];
/** The colour that pads an image whose normalisation happens inside the graph. */
export const PADDING_RGB = [124, 116, 104];

/** Labels of the slots of a prompt. */
export const NEGATIVE = 0;
export const POSITIVE = 1;
export const BOX_TOP_LEFT = 2;
export const BOX_BOTTOM_RIGHT = 3;
export const ABSENT = -2;

/** Answers to a prompt: token 0 for boxes and several points, 1 to 3 for a single point. */
export const NUM_TOKENS = 4;
