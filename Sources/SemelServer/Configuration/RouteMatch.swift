package import HTTPTypes

/// Which requests a scene covers.
package struct RouteMatch: Hashable, Sendable {
    package var methods: Set<HTTPRequest.Method>
    package var path: PathPattern

    package init(methods: Set<HTTPRequest.Method> = [.post, .patch], path: PathPattern) {
        self.methods = methods
        self.path = path
    }

    package func matches(_ method: HTTPRequest.Method, _ path: RequestPath) -> Bool {
        methods.contains(method) && self.path.matches(path)
    }

    /// Whether every request that `other` matches is matched here too.
    package func covers(_ other: RouteMatch) -> Bool {
        methods.isSuperset(of: other.methods) && path.covers(other.path)
    }
}

/// A pattern of path segments: `/v1/*/capture` (one segment, any), `/v1/payments/**` (any number of further segments,
/// none included).
package struct PathPattern: Hashable, Sendable, CustomStringConvertible {
    package enum Segment: Hashable, Sendable {
        /// Its bytes.
        case literal([UInt8])
        case any
    }

    package let segments: [Segment]
    /// Whether the pattern ends in `**`.
    package let isOpen: Bool
    package let description: String

    /// - Throws: what is wrong with the pattern, as a sentence.
    package init(_ text: String) throws(PathPatternError) {
        guard text.hasPrefix("/") else { throw PathPatternError("does not begin with /") }
        var parts = text.split(separator: "/", omittingEmptySubsequences: true).map(String.init)
        isOpen = parts.last == "**"
        if isOpen { parts.removeLast() }
        var segments: [Segment] = []
        for part in parts {
            switch part {
            case "*": segments.append(.any)
            case "**": throw PathPatternError("has ** before its end")
            case ".", "..": throw PathPatternError("has a dot segment, which is refused in requests")
            default:
                guard !part.contains("*") else { throw PathPatternError("has * inside a segment; it stands for a whole one") }
                guard !part.contains(where: { "?#\\".contains($0) }) else { throw PathPatternError("has a character that ends or splits a path") }
                segments.append(.literal(Array(part.utf8)))
            }
        }
        self.segments = segments
        description = text
    }

    package func matches(_ path: RequestPath) -> Bool {
        guard isOpen ? path.segments.count >= segments.count : path.segments.count == segments.count else { return false }
        return zip(segments, path.segments).allSatisfy { segment, text in
            switch segment {
            case .any: true
            // Some servers drop a segment's `;parameters` (RFC 3986 3.3) before they route: those must not evade a scene.
            case .literal(let literal): text == literal || text.prefix { $0 != UInt8(ascii: ";") } == literal[...]
            }
        }
    }

    /// Whether every path that `other` matches is matched here too.
    package func covers(_ other: PathPattern) -> Bool {
        guard isOpen ? other.segments.count >= segments.count : other.segments.count == segments.count && !other.isOpen else { return false }
        return zip(segments, other.segments).allSatisfy { $0 == .any || $0 == $1 }
    }

    package static func == (left: PathPattern, right: PathPattern) -> Bool { left.segments == right.segments && left.isOpen == right.isOpen }

    package func hash(into hasher: inout Hasher) {
        hasher.combine(segments)
        hasher.combine(isOpen)
    }
}

package struct PathPatternError: Error, Hashable, CustomStringConvertible {
    package let description: String
    init(_ description: String) { self.description = description }
}
