// All there is to write in an app of your own; see README.md.
import EdgeSegBenchmark
import SwiftUI

@main
struct BenchmarkApp: App {
    var body: some Scene {
        WindowGroup {
            BenchmarkView(folder: exportedFolder(in: Bundle.main))
        }
    }
}
