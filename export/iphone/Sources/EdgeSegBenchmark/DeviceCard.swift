import Foundation

/// What a benchmark ran on.
struct DeviceCard: Encodable {
    /// Model identifier, such as "iPhone14,7".
    let processor: String
    let numCores: Int
    let system: String
    let memoryMb: Int
    /// "nominal", "fair", "serious" or "critical", before and after; the last two mean throttling.
    let thermalStateBefore: String
    let thermalStateAfter: String
    let lowPowerMode: Bool
    /// Height and width of the photograph, in pixels.
    let photoHw: [Int]

    /// Look at this device, now that the benchmark has ended.
    init(thermalStateBefore: String, photoHw: [Int]) {
        let info = ProcessInfo.processInfo
        #if os(macOS)
            self.processor = systemText("machdep.cpu.brand_string")
            self.system = "macOS " + info.operatingSystemVersionString
        #else
            self.processor = systemText("hw.machine")
            self.system = "iOS " + info.operatingSystemVersionString
        #endif
        self.numCores = info.activeProcessorCount
        self.memoryMb = Int(info.physicalMemory / 1_000_000)
        self.thermalStateBefore = thermalStateBefore
        self.thermalStateAfter = thermalState()
        self.lowPowerMode = info.isLowPowerModeEnabled
        self.photoHw = photoHw
    }
}

/// Return how warm the device is, in Apple's words.
func thermalState() -> String {
    switch ProcessInfo.processInfo.thermalState {
    case .nominal: return "nominal"
    case .fair: return "fair"
    case .serious: return "serious"
    case .critical: return "critical"
    @unknown default: return "unknown"
    }
}

/// Return resident memory of this process, now and at most so far, in MB (1e6 bytes).
func residentMemory() -> (nowMb: Double, peakMb: Double) {
    var info = mach_task_basic_info()
    let words = MemoryLayout<mach_task_basic_info>.size / MemoryLayout<natural_t>.size
    var count = mach_msg_type_number_t(words)
    let status = withUnsafeMutablePointer(to: &info) {
        $0.withMemoryRebound(to: integer_t.self, capacity: words) {
            task_info(mach_task_self_, task_flavor_t(MACH_TASK_BASIC_INFO), $0, &count)
        }
    }
    guard status == KERN_SUCCESS else { return (nowMb: 0, peakMb: 0) }
    let (now, peak) = (Double(info.resident_size), Double(info.resident_size_max))
    return (nowMb: now / 1e6, peakMb: peak / 1e6)
}

private func systemText(_ name: String) -> String {
    var size = 0
    guard sysctlbyname(name, nil, &size, nil, 0) == 0, size > 0 else { return "unknown" }
    var text = [CChar](repeating: 0, count: size)
    guard sysctlbyname(name, &text, &size, nil, 0) == 0 else { return "unknown" }
    return String(cString: text)
}
