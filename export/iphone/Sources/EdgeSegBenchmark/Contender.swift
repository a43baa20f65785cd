import CoreGraphics
import CoreML
import EdgeSeg
import Foundation
import ImageIO

/// A loaded model, limited to some compute units.
struct Contender {
    let card: ContenderCard
    let coldStart: ColdStart
    /// One call of each part that the model has.
    let calls: [String: () throws -> Void]

    /// Load a model and run it twice; the prompt is a click in the middle of the photograph.
    init(folder: URL, units: MLComputeUnits, photo: URL) throws {
        let baseMb = residentMemory().nowMb
        let started = DispatchTime.now()
        let segmenter = try Segmenter(folder: folder, computeUnits: units)
        let loadMs = milliseconds(since: started)
        let photoToMask = { () throws -> Void in
            let image = try readPhoto(photo)
            let middle = CGPoint(x: Double(image.width) / 2, y: Double(image.height) / 2)
            let encoded = try segmenter.encode(image)
            _ = try segmenter.segment(encoded, Prompt(points: [middle])).mask()
        }
        let firstMs = try elapsedMs(photoToMask)
        let secondMs = try elapsedMs(photoToMask)
        let label = "\(segmenter.manifest.model) \(name(of: units))"
        self.card = ContenderCard(
            label: label, manifest: segmenter.manifest, runsOn: name(of: units))
        self.coldStart = ColdStart(
            label: label, importMs: 0, loadMs: loadMs, firstCallMs: firstMs, secondCallMs: secondMs,
            peakMemoryMb: residentMemory().peakMb, baseMemoryMb: baseMb)

        let input = try segmenter.prepare(readPhoto(photo))
        let encoded = try segmenter.encode(input)
        let click = Prompt(points: [CGPoint(x: 1, y: 1)])
        var calls: [String: () throws -> Void] = ["end_to_end": photoToMask]
        calls["encoder"] = { _ = try segmenter.encode(input) }
        calls["decoder"] = { _ = try segmenter.segment(encoded, click) }
        if segmenter.hasProposals {
            calls["proposals"] = { _ = try segmenter.propose(encoded) }
        }
        self.calls = calls
    }
}

extension ContenderCard {
    init(label: String, manifest: ExportManifest, runsOn: String) {
        var sizeBytes: [String: Int] = [:]
        for file in manifest.files { sizeBytes[file.role] = file.sizeBytes }
        self.init(
            label: label, model: manifest.model, driver: "coreml:swift", runsOn: runsOn,
            precision: manifest.precision, imageSize: manifest.imageSize,
            weightsSha256: manifest.weightsSha256, sizeBytes: sizeBytes)
    }
}

/// Return the name that `edgeseg/runtime/coreml_backend.py` has for compute units.
func name(of units: MLComputeUnits) -> String {
    switch units {
    case .all: return "all"
    case .cpuOnly: return "cpu_only"
    case .cpuAndGPU: return "cpu_and_gpu"
    case .cpuAndNeuralEngine: return "cpu_and_ne"
    @unknown default: return "unknown"
    }
}

/// Decode an image file as it is stored.
func readPhoto(_ file: URL) throws -> CGImage {
    guard let source = CGImageSourceCreateWithURL(file as CFURL, nil),
        let image = CGImageSourceCreateImageAtIndex(source, 0, nil)
    else { throw EdgeSegError.image("cannot read \(file.path); put a JPEG photograph there") }
    return image
}

/// Run something and return how long it took, in milliseconds.
func elapsedMs(_ work: () throws -> Void) throws -> Double {
    return try autoreleasepool { () throws -> Double in  // Core ML leaves its arrays to the pool
        let started = DispatchTime.now()
        try work()
        return milliseconds(since: started)
    }
}

private func milliseconds(since start: DispatchTime) -> Double {
    return Double(DispatchTime.now().uptimeNanoseconds - start.uptimeNanoseconds) / 1e6
}
