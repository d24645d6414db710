public import Foundation

/// The files of this repository, for tests that hold its documents to what they say, and for the servers' scripts.
public enum Repository {
    /// - Parameter path: from the repository's root.
    public static func file(_ path: String) -> URL {
        var folder = URL(fileURLWithPath: #filePath)
        for _ in 0..<4 { folder.deleteLastPathComponent() }
        return folder.appendingPathComponent(path)
    }

    /// The text of a file.
    /// - Parameter path: from the repository's root.
    public static func text(of path: String) throws -> String { try String(contentsOf: file(path), encoding: .utf8) }
}
