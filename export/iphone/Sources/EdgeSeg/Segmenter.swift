import CoreGraphics
import CoreML
import Foundation

/// A picture as the network sees it: the slow part, done once for any number of prompts.
public struct EncodedImage: @unchecked Sendable {  // the arrays are never written again
    /// The place of the picture in the model input.
    public let frame: ModelFrame
    /// Hash of the weights that made the features.
    let weightsSha256: String
    /// What the encoder gave, by name.
    let features: [String: MLFeatureValue]
}

/// Answers prompts on pictures with the packages that `edgeseg export --target coreml_fp16` wrote.
///
/// It keeps no state between calls, so threads may share it; calls of one graph take turns. All
/// methods compute in the calling thread: do not call them on the main one.
public final class Segmenter: @unchecked Sendable {
    /// What the folder says about itself.
    public let manifest: ExportManifest
    private let encoder: Graph
    private let decoder: Graph
    private let proposals: Graph?
    private let featureNames: [String]

    /// Load encoder, decoder and, if there are any, proposals.
    ///
    /// - Parameters:
    ///   - folder: Holds `export.json` and the packages, or the `.mlmodelc` Xcode made of them.
    ///   - computeUnits: What Core ML may use.
    public init(folder: URL, computeUnits: MLComputeUnits = .all) throws {
        let manifest = try ExportManifest.read(folder: folder)
        func load(_ role: String) throws -> Graph {
            let compiled = try manifest.compiled(role: role, in: folder)
            return try Graph(role, at: compiled, computeUnits: computeUnits)
        }
        let encoder = try load("encoder")
        let decoder = try load("decoder")
        var proposals: Graph?
        if manifest.file(role: "proposals") != nil { proposals = try load("proposals") }
        let features = decoder.inputs(of: [
            Signature.imageEmbedding, Signature.highResS8, Signature.highResS4,
        ])
        try encoder.check(inputs: [Signature.imageRGB], outputs: features)
        try decoder.check(
            inputs: features + [
                Signature.pointsXYModel, Signature.pointLabels, Signature.maskLogits,
                Signature.hasMask,
            ],
            outputs: [Signature.lowResLogits, Signature.iouScores])
        try proposals?.check(
            inputs: Array(features.prefix(2)),
            outputs: [Signature.proposalBoxesXYXYModel, Signature.proposalScores])
        let expected = [Signature.numPrompts, Signature.numPointSlots, 2]
        let slots = decoder.inputShape(Signature.pointsXYModel)
        guard slots == expected else {
            throw EdgeSegError.weights(
                "the decoder must take points of the shape \(expected), got \(slots); export with "
                    + "the slots of coreml_fp16")
        }
        self.manifest = manifest
        self.encoder = encoder
        self.decoder = decoder
        self.proposals = proposals
        self.featureNames = features
    }

    /// Whether `propose` has something to run.
    public var hasProposals: Bool { return proposals != nil }

    /// Scale and pad a picture, the first half of `encode`.
    public func prepare(_ image: CGImage) throws -> ModelInput {
        return try ModelInput(image, imageSize: manifest.imageSize)
    }

    /// Run the image encoder on a picture of any size, upright; see `ModelInput`.
    public func encode(_ image: CGImage) throws -> EncodedImage {
        return try encode(prepare(image))
    }

    /// Run the image encoder on what `prepare` made.
    public func encode(_ input: ModelInput) throws -> EncodedImage {
        guard input.frame.imageSize == manifest.imageSize else {
            throw EdgeSegError.image(
                "the picture was scaled for \(input.frame.imageSize) pixels, this model takes "
                    + "\(manifest.imageSize); prepare it with this segmenter")
        }
        let picture = [Signature.imageRGB: MLFeatureValue(pixelBuffer: input.pixels)]
        let arrays = try encoder.run(picture, outputs: featureNames)
        var features: [String: MLFeatureValue] = [:]
        for (name, array) in zip(featureNames, arrays) {
            features[name] = MLFeatureValue(multiArray: array)
        }
        return EncodedImage(
            frame: input.frame, weightsSha256: manifest.weightsSha256, features: features)
    }

    /// Return what a prompt means: `segment(encoded, prompt).mask()` is the best mask.
    public func segment(_ encoded: EncodedImage, _ prompt: Prompt) throws -> Masks {
        try check(encoded)
        let packed = try prompt.packed(in: encoded.frame)
        let (slots, side) = (Signature.numPointSlots, encoded.frame.lowResSide)
        let noMask = [Float](repeating: 0, count: side * side)
        let points = try makeArray(packed.pointsXY, .float32, shape: [1, slots, 2])
        let labels = try makeArray(packed.labels, .int32, shape: [1, slots])
        let mask = try makeArray(prompt.maskLogits ?? noMask, .float32, shape: [1, 1, side, side])
        let hasMask: Float = prompt.maskLogits == nil ? 0 : 1
        let counts = try makeArray([hasMask], .float32, shape: [1])
        var inputs = encoded.features
        inputs[Signature.pointsXYModel] = MLFeatureValue(multiArray: points)
        inputs[Signature.pointLabels] = MLFeatureValue(multiArray: labels)
        inputs[Signature.maskLogits] = MLFeatureValue(multiArray: mask)
        inputs[Signature.hasMask] = MLFeatureValue(multiArray: counts)
        let names = [Signature.lowResLogits, Signature.iouScores]
        let found = try decoder.run(inputs, outputs: names)
        let logits = try readFloats(of: found[0], shape: [1, 4, side, side], name: names[0])
        let scores = try readFloats(of: found[1], shape: [1, 4], name: names[1])
        var lowResLogits: [[Float]] = []
        for token in 0..<4 {
            let start = token * side * side
            lowResLogits.append(Array(logits[start..<(start + side * side)]))
        }
        return Masks(
            lowResLogits: lowResLogits,
            scores: scores,
            best: chooseToken(scores: scores, isAmbiguous: packed.isAmbiguous),
            frame: encoded.frame)
    }

    /// Return boxes that probably hold an object, the most confident first; they overlap.
    ///
    /// - Parameter maxProposals: Most boxes.
    public func propose(_ encoded: EncodedImage, maxProposals: Int = 1000) throws -> [Proposal] {
        try check(encoded)
        guard let graph = proposals else {
            throw EdgeSegError.weights(
                "the model \(manifest.model) proposes nothing; export one with a proposal head")
        }
        var inputs: [String: MLFeatureValue] = [:]
        for name in featureNames.prefix(2) { inputs[name] = encoded.features[name] }
        let names = [Signature.proposalBoxesXYXYModel, Signature.proposalScores]
        let found = try graph.run(inputs, outputs: names)
        let total = numProposals(imageSize: manifest.imageSize)
        let boxesXYXY = try readFloats(of: found[0], shape: [1, total, 4], name: names[0])
        let scores = try readFloats(of: found[1], shape: [1, total], name: names[1])
        return readProposals(
            boxesXYXY: boxesXYXY, scores: scores, frame: encoded.frame, maxProposals: maxProposals)
    }

    private func check(_ encoded: EncodedImage) throws {
        let isOurs = encoded.weightsSha256 == manifest.weightsSha256
        guard isOurs && encoded.frame.imageSize == manifest.imageSize else {
            throw EdgeSegError.image(
                "the picture was encoded by another model, or for another size than "
                    + "\(manifest.imageSize); encode it with this segmenter")
        }
    }
}
