import Foundation

/// The files of this repository, for tests that hold its documents to what they say.
public enum Repository {
    /// The text of a file.
    /// - Parameter path: from the repository's root.
    public static func text(of path: String) throws -> String {
        var folder = URL(fileURLWithPath: #filePath)
        for _ in 0..<4 { folder.deleteLastPathComponent() }
        return try String(contentsOf: folder.appendingPathComponent(path), encoding: .utf8)
    }
}
