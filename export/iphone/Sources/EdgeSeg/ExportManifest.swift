import CoreML
import Foundation

/// What is read of the `export.json` of an exported folder.
public struct ExportManifest: Decodable, Sendable {
    /// One exported graph.
    public struct File: Decodable, Sendable {
        /// Of the package, relative to the folder.
        public let path: String
        /// "encoder", "decoder", "proposals" or "fused".
        public let role: String
        /// Of the package, over the names and hashes of its files.
        public let sha256: String
        /// Of all files of the package.
        public let sizeBytes: Int
    }

    /// Of the manifest; 1 is known here.
    public let formatVersion: Int
    /// Registry name of the network.
    public let model: String
    /// Of the files; this package runs "coreml".
    public let format: String
    /// Weights and arithmetic, such as "float16".
    public let precision: String
    /// Side S of the model input, in pixels.
    public let imageSize: Int
    /// Whether the encoder takes bytes and normalises them itself.
    public let normalises: Bool
    /// The graphs.
    public let files: [File]
    /// Of the weights that were exported.
    public let weightsSha256: String

    /// Read the manifest of what `edgeseg export --target coreml_fp16` wrote.
    public static func read(folder: URL) throws -> ExportManifest {
        let path = folder.appendingPathComponent("export.json")
        let manifest: ExportManifest
        do {
            let decoder = JSONDecoder()
            decoder.keyDecodingStrategy = .convertFromSnakeCase
            manifest = try decoder.decode(ExportManifest.self, from: Data(contentsOf: path))
        } catch {
            throw EdgeSegError.weights(
                "cannot read \(path.path): \(error.localizedDescription); give a folder that "
                    + "`edgeseg export` wrote")
        }
        guard manifest.formatVersion == 1, manifest.format == "coreml", manifest.normalises else {
            throw EdgeSegError.weights(
                "\(path.path) describes \(manifest.format) files that this package cannot run; "
                    + "export with --target coreml_fp16")
        }
        return manifest
    }

    /// Return the file with a role, or nil.
    public func file(role: String) -> File? {
        return files.first { (file: File) -> Bool in file.role == role }
    }

    /// Return a compiled model: the one that Xcode put into the app, or one compiled here once.
    func compiled(role: String, in folder: URL) throws -> URL {
        guard let found = file(role: role) else {
            throw EdgeSegError.weights("\(folder.path) has no \(role); export again")
        }
        let package = folder.appendingPathComponent(found.path)
        let built = package.deletingPathExtension().appendingPathExtension("mlmodelc")
        let disk = FileManager.default
        if disk.fileExists(atPath: built.path) { return built }
        guard disk.fileExists(atPath: package.path) else {
            throw EdgeSegError.weights(
                "\(folder.path) has neither \(built.lastPathComponent) nor "
                    + "\(package.lastPathComponent); copy the whole exported folder")
        }
        do {
            let caches = try disk.url(
                for: .cachesDirectory, in: .userDomainMask, appropriateFor: nil, create: true)
            let own = caches.appendingPathComponent("EdgeSeg", isDirectory: true)
            let cached = own.appendingPathComponent(found.sha256 + ".mlmodelc", isDirectory: true)
            if disk.fileExists(atPath: cached.path) { return cached }
            let fresh = try MLModel.compileModel(at: package)
            try disk.createDirectory(at: own, withIntermediateDirectories: true)
            if disk.fileExists(atPath: cached.path) { return cached }  // another thread was faster
            try disk.moveItem(at: fresh, to: cached)
            return cached
        } catch {
            throw EdgeSegError.weights(
                "Core ML cannot compile \(package.path): \(error.localizedDescription); export "
                    + "it again")
        }
    }
}
