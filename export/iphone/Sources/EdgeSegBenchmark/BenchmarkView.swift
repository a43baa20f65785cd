import Foundation
import SwiftUI

/// Return the exported folder that an app carries: what holds `export.json` in its resources.
public func exportedFolder(in bundle: Bundle) -> URL? {
    guard let resources = bundle.resourceURL else { return nil }
    let inside = try? FileManager.default.contentsOfDirectory(
        at: resources, includingPropertiesForKeys: nil)
    return ([resources] + (inside ?? [])).first { (folder: URL) -> Bool in
        FileManager.default.fileExists(atPath: folder.appendingPathComponent("export.json").path)
    }
}

/// A button that runs the benchmark, the medians, and a button that shares the JSON document.
public struct BenchmarkView: View {
    @StateObject private var run = BenchmarkRun()
    private let folder: URL?

    /// Show the benchmark of an exported folder.
    public init(folder: URL?) {
        self.folder = folder
    }

    /// What is shown.
    public var body: some View {
        VStack(alignment: .leading, spacing: 16) {
            Text("EdgeSeg benchmark").font(.title2)
            Button("Run") { run.start(folder: folder) }.disabled(run.hasStarted)
            ScrollView {
                Text(run.text).font(.system(.footnote, design: .monospaced))
            }
            if let file = run.file { ShareLink(item: file) }
        }
        .padding()
    }
}

/// One run, in a thread of its own; start the app again for another one, which is cold again.
final class BenchmarkRun: ObservableObject {
    @Published private(set) var hasStarted = false
    @Published private(set) var text = "Release build, cool device, low power mode off."
    @Published private(set) var file: URL?

    func start(folder: URL?) {
        guard let folder = folder else {
            text = "This app carries no exported folder; add one that `edgeseg export` wrote."
            return
        }
        hasStarted = true
        DispatchQueue.global(qos: .userInitiated).async {
            do {
                let result = try measure(folder: folder) { (line: String) -> Void in
                    self.show(line, file: nil)
                }
                let data = try result.json()
                let file = FileManager.default.temporaryDirectory
                    .appendingPathComponent("edgeseg_iphone.json")
                try data.write(to: file)
                print(String(decoding: data, as: UTF8.self))  // Xcode's console
                self.show(result.table(), file: file)
            } catch {
                self.show(error.localizedDescription, file: nil)
            }
        }
    }

    private func show(_ text: String, file: URL?) {
        DispatchQueue.main.async {
            self.text = text
            self.file = file
        }
    }
}
