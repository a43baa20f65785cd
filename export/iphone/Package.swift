// swift-tools-version: 5.9
import PackageDescription

let package = Package(
    name: "EdgeSeg",
    platforms: [.iOS(.v16), .macOS(.v13)],
    products: [
        .library(name: "EdgeSeg", targets: ["EdgeSeg"]),
        .library(name: "EdgeSegBenchmark", targets: ["EdgeSegBenchmark"]),
        .executable(name: "edgeseg-benchmark", targets: ["BenchmarkTool"]),
    ],
    targets: [
        .target(name: "EdgeSeg"),
        .target(name: "EdgeSegBenchmark", dependencies: ["EdgeSeg"]),
        .executableTarget(name: "BenchmarkTool", dependencies: ["EdgeSegBenchmark"]),
    ]
)
