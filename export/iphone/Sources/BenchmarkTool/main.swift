// `swift run -c release edgeseg-benchmark FOLDER`: the benchmark on a Mac, JSON to stdout.
import EdgeSegBenchmark
import Foundation

guard CommandLine.arguments.count == 2 else {
    FileHandle.standardError.write(Data("usage: edgeseg-benchmark FOLDER\n".utf8))
    exit(2)
}
do {
    let folder = URL(fileURLWithPath: CommandLine.arguments[1], isDirectory: true)
    let result = try measure(folder: folder) { (line: String) -> Void in
        FileHandle.standardError.write(Data((line + "\n").utf8))
    }
    print(String(decoding: try result.json(), as: UTF8.self))
} catch {
    FileHandle.standardError.write(Data("\(error.localizedDescription)\n".utf8))
    exit(1)
}
