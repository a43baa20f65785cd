import Foundation

/// A run of the benchmark: the document of `edgeseg/bench/results.py`, which explains each field.
public struct BenchResult: Encodable {
    let format: Int
    let suite: String
    let createdUtc: String
    let machine: DeviceCard
    let threads: Int
    let contenders: [ContenderCard]
    let measurements: [Measurement]
    let coldStarts: [ColdStart]
    let missing: [Missing]

    /// Return the document that `edgeseg bench` reads; `samplesMs` is written `samples_ms`.
    public func json() throws -> Data {
        let encoder = JSONEncoder()
        encoder.keyEncodingStrategy = .convertToSnakeCase
        encoder.outputFormatting = [.prettyPrinted, .sortedKeys]
        return try encoder.encode(self)
    }

    /// Return one line a measurement, its median in milliseconds, and what is missing.
    public func table() -> String {
        var lines: [String] = []
        for measurement in measurements where !measurement.samplesMs.isEmpty {
            let sorted = measurement.samplesMs.sorted()
            let median = (sorted[(sorted.count - 1) / 2] + sorted[sorted.count / 2]) / 2
            let figure = String(format: "%.2f ms", median)
            lines.append("\(measurement.label) \(measurement.part): \(figure)")
        }
        for gap in missing { lines.append("\(gap.label) \(gap.part): \(gap.reason)") }
        return lines.joined(separator: "\n")
    }
}

struct ContenderCard: Encodable {
    let label: String
    let model: String
    let driver: String
    let runsOn: String
    let precision: String
    let imageSize: Int
    let weightsSha256: String
    let sizeBytes: [String: Int]
}

struct Measurement: Encodable {
    let label: String
    let part: String
    let samplesMs: [Double]
    let inTurns: Bool
    let numWarmup: Int
    let clock: String
}

struct ColdStart: Encodable {
    let label: String
    let importMs: Double
    let loadMs: Double
    let firstCallMs: Double
    let secondCallMs: Double
    let peakMemoryMb: Double
    let baseMemoryMb: Double
}

struct Missing: Encodable {
    let label: String
    let part: String
    let reason: String
}
