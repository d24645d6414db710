/// A request's path as scenes see it: percent-decoded, then split.
///
/// Decoding comes first, so an encoded slash separates segments, as it does for many servers; empty segments are left
/// out, as most servers merge slashes. Both only ever make a scene match more: routing cannot be evaded by writing a path
/// differently. What is forwarded is the path as it came. Segments are bytes: no two spellings of a character are one (H27),
/// and what follows a `;` cannot hide it by combining with it.
package struct RequestPath: Hashable, Sendable {
    package let segments: [[UInt8]]

    init(segments: [[UInt8]]) {
        self.segments = segments
    }

    /// Takes the target of a request line; the query is ignored.
    /// - Throws: ``RequestPathError``, which is answered with 400.
    package init(target: String) throws(RequestPathError) {
        guard target.utf8.first == UInt8(ascii: "/") else { throw .notAbsolute }
        var decoded: [UInt8] = []
        decoded.reserveCapacity(target.utf8.count)
        var bytes = target.utf8.makeIterator()
        loop: while let byte = bytes.next() {
            switch byte {
            case UInt8(ascii: "?"), UInt8(ascii: "#"): break loop
            case UInt8(ascii: "%"):
                guard let high = bytes.next().flatMap(Self.hexadecimalValue), let low = bytes.next().flatMap(Self.hexadecimalValue) else {
                    throw .malformedEncoding
                }
                decoded.append(high << 4 | low)
            default: decoded.append(byte)
            }
        }
        guard !decoded.contains(0) else { throw .malformedEncoding }
        // A backslash is a slash to some servers.
        segments = decoded.split(whereSeparator: { $0 == UInt8(ascii: "/") || $0 == UInt8(ascii: "\\") })
            .map(Array.init)
        for segment in segments {
            let name = segment.prefix { $0 != UInt8(ascii: ";") }
            guard !name.elementsEqual(".".utf8), !name.elementsEqual("..".utf8) else { throw .dotSegment }
        }
    }

    private static func hexadecimalValue(_ digit: UInt8) -> UInt8? {
        switch digit {
        case 0x30...0x39: digit - 0x30
        case 0x41...0x46: digit - 0x41 + 10
        case 0x61...0x66: digit - 0x61 + 10
        default: nil
        }
    }
}

package enum RequestPathError: Error, Hashable, CustomStringConvertible {
    case notAbsolute, malformedEncoding, dotSegment

    package var description: String {
        switch self {
        case .notAbsolute: "The request's path does not begin with a slash."
        case .malformedEncoding: "The request's path has a percent sign without two hexadecimal digits, or a zero byte."
        case .dotSegment: "The request's path has a dot segment; send the path it means instead."
        }
    }
}
