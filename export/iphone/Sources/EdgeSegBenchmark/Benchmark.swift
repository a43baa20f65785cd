import CoreML
import EdgeSeg
import Foundation

private let parts = ["encoder", "decoder", "proposals", "end_to_end"]

/// Time the models of an exported folder on this device.
///
/// The contenders take turns, so that a device that grows warm hits all of them alike.
///
/// - Parameters:
///   - folder: What `edgeseg export --target coreml_fp16` wrote, and a photograph `photo.jpg`.
///   - computeUnits: What Core ML may use, a contender each. The first starts cold if the process
///     has loaded no model before.
///   - rounds: Calls of each part that count.
///   - warmup: Calls before them that do not.
///   - progress: Told in words what is being done, in the calling thread.
public func measure(
    folder: URL,
    computeUnits: [MLComputeUnits] = [.cpuAndNeuralEngine, .cpuAndGPU, .cpuOnly],
    rounds: Int = 50,
    warmup: Int = 5,
    progress: (String) -> Void
) throws -> BenchResult {
    let photo = folder.appendingPathComponent("photo.jpg")
    let image = try readPhoto(photo)
    let thermalStateBefore = thermalState()
    var contenders: [Contender] = []
    var missing: [Missing] = []
    for units in computeUnits {
        progress("loading for \(name(of: units))")
        do {
            contenders.append(try Contender(folder: folder, units: units, photo: photo))
        } catch {
            let reason = error.localizedDescription
            missing.append(Missing(label: name(of: units), part: "", reason: reason))
        }
    }
    var measurements: [Measurement] = []
    for part in parts {
        progress("timing \(part), \(warmup) + \(rounds) rounds")
        measurements += try measureInTurns(part, of: contenders, rounds: rounds, warmup: warmup)
        for contender in contenders where contender.calls[part] == nil {
            let reason = "the model was exported without it"
            missing.append(Missing(label: contender.card.label, part: part, reason: reason))
        }
    }
    return BenchResult(
        format: 1,
        suite: "iphone",
        createdUtc: ISO8601DateFormatter().string(from: Date()),
        machine: DeviceCard(
            thermalStateBefore: thermalStateBefore, photoHw: [image.height, image.width]),
        threads: ProcessInfo.processInfo.activeProcessorCount,  // at most: Core ML decides
        contenders: contenders.map { (contender: Contender) -> ContenderCard in contender.card },
        measurements: measurements,
        coldStarts: contenders.prefix(1).map { (first: Contender) -> ColdStart in first.coldStart },
        missing: missing)
}

/// Run one part of every contender that has it once a round.
private func measureInTurns(
    _ part: String, of contenders: [Contender], rounds: Int, warmup: Int
) throws -> [Measurement] {
    var samplesMs: [String: [Double]] = [:]
    for round in 0..<(warmup + rounds) {
        for contender in contenders {
            guard let call = contender.calls[part] else { continue }
            let sampleMs = try elapsedMs(call)
            if round >= warmup { samplesMs[contender.card.label, default: []].append(sampleMs) }
        }
    }
    return contenders.compactMap { (contender: Contender) -> Measurement? in
        guard let samples = samplesMs[contender.card.label] else { return nil }
        return Measurement(
            label: contender.card.label, part: part, samplesMs: samples, inTurns: true,
            numWarmup: warmup, clock: "wall clock")
    }
}
