import CoreML
import Foundation

/// One loaded model. Threads may share it; their calls take turns, as Core ML demands.
final class Graph {
    private let model: MLModel
    private let name: String
    private let turn = NSLock()

    /// Load a compiled model.
    init(_ name: String, at compiled: URL, computeUnits: MLComputeUnits) throws {
        let configuration = MLModelConfiguration()
        configuration.computeUnits = computeUnits
        self.name = name
        do {
            self.model = try MLModel(contentsOf: compiled, configuration: configuration)
        } catch {
            throw EdgeSegError.weights(
                "Core ML cannot load the \(name): \(error.localizedDescription); export it again")
        }
    }

    /// Return which of these inputs the model has, in the order given.
    func inputs(of names: [String]) -> [String] {
        let known = model.modelDescription.inputDescriptionsByName
        return names.filter { (name: String) -> Bool in known[name] != nil }
    }

    /// Return the sizes of an input array; empty if there is no such input.
    func inputShape(_ name: String) -> [Int] {
        let input = model.modelDescription.inputDescriptionsByName[name]
        guard let shape = input?.multiArrayConstraint?.shape else { return [] }
        return shape.map { (size: NSNumber) -> Int in size.intValue }
    }

    /// Throw unless the model takes exactly these inputs and gives these outputs.
    func check(inputs: [String], outputs: [String]) throws {
        let description = model.modelDescription
        let taken = Set(description.inputDescriptionsByName.keys)
        let given = Set(description.outputDescriptionsByName.keys)
        guard taken == Set(inputs) && given.isSuperset(of: outputs) else {
            throw EdgeSegError.weights(
                "the \(name) must take \(inputs) and give \(outputs), got \(taken.sorted()) and "
                    + "\(given.sorted()); export it with `edgeseg export`")
        }
    }

    /// Compute these outputs, in the order given.
    func run(_ inputs: [String: MLFeatureValue], outputs: [String]) throws -> [MLMultiArray] {
        let provider = try MLDictionaryFeatureProvider(dictionary: inputs)
        turn.lock()
        defer { turn.unlock() }
        let answers = try model.prediction(from: provider)
        var arrays: [MLMultiArray] = []
        for output in outputs {
            guard let array = answers.featureValue(for: output)?.multiArrayValue else {
                throw EdgeSegError.weights("the \(name) gave no array \(output); export it again")
            }
            arrays.append(array)
        }
        return arrays
    }
}
