import Foundation

/// What went wrong, what was got, and what to do.
public enum EdgeSegError: LocalizedError {
    /// Points, box or mask of a prompt make no sense.
    case prompt(String)
    /// The picture cannot be used.
    case image(String)
    /// The exported folder is missing, damaged or of another kind.
    case weights(String)

    /// The message of whichever it is.
    public var errorDescription: String? {
        switch self {
        case .prompt(let message), .image(let message), .weights(let message): return message
        }
    }
}
