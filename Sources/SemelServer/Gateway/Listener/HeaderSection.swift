/// One header (or trailer) section while its bytes come in: every line is judged when it is complete.
struct HeaderSection: Sendable {
    enum Framing: Equatable {
        case none
        case length(Int)
        case chunked
    }

    private let isTrailer: Bool
    /// Where the scan goes on; a section that comes in slices is read once.
    private var scanned = 0
    private var lineStart = 0
    private var fieldsStart: Int?
    private var isHTTP10 = false
    private var contentLength: Int?
    private var isChunked = false
    private var hosts = 0

    init(trailers: Bool = false) {
        isTrailer = trailers
        fieldsStart = trailers ? 0 : nil
    }

    /// Reads on. Returns where the section ends (after its empty line), or `nil` while that has not come.
    mutating func scan(_ bytes: UnsafeRawBufferPointer) throws(RequestRefusal) -> Int? {
        while scanned < bytes.count {
            let byte = bytes[scanned]
            if byte.isFieldValueByte {
                scanned += 1
                continue
            }
            switch byte {
            case .carriageReturn:
                guard scanned + 1 < bytes.count else {
                    try checkLimits(scanned)
                    return nil
                }
                guard bytes[scanned + 1] == .lineFeed else { throw .malformed("The header section has a bare carriage return.") }
                let line = UnsafeRawBufferPointer(rebasing: bytes[lineStart..<scanned])
                try checkLimits(scanned)
                scanned += 2
                lineStart = scanned
                if try take(line) { return scanned }
            case .lineFeed:
                throw .malformed("The header section has a bare line feed.")
            default:
                throw .malformed("The header section has a control character.")
            }
        }
        try checkLimits(scanned)
        return nil
    }

    private func checkLimits(_ end: Int) throws(RequestRefusal) {
        if let fieldsStart {
            guard end - fieldsStart <= RequestFraming.headerSectionLimit else { throw .headerTooLarge }
        } else {
            guard end <= RequestFraming.requestLineLimit else { throw .requestLineTooLong }
        }
    }

    /// Judges one line. Returns whether it ended the section.
    private mutating func take(_ line: UnsafeRawBufferPointer) throws(RequestRefusal) -> Bool {
        if fieldsStart == nil {
            // Empty lines before a request line are ignored (RFC 9112, 2.2).
            if !line.isEmpty {
                try readRequestLine(line)
                fieldsStart = scanned
            }
            return false
        }
        if line.isEmpty { return true }
        try readField(line)
        return false
    }

    private mutating func readRequestLine(_ line: UnsafeRawBufferPointer) throws(RequestRefusal) {
        guard let first = line.firstIndex(of: .space), let last = line.lastIndex(of: .space), first > 0, first + 1 < last else {
            throw .malformed("The request line is not a method, a target and a version, with one space between them.")
        }
        let method = UnsafeRawBufferPointer(rebasing: line[..<first])
        let target = UnsafeRawBufferPointer(rebasing: line[(first + 1)..<last])
        let version = UnsafeRawBufferPointer(rebasing: line[(last + 1)...])
        guard method.allSatisfy(\.isTokenByte) else { throw .malformed("The method is not a token.") }
        if version.equals("HTTP/1.0") {
            isHTTP10 = true
        } else if !version.equals("HTTP/1.1") {
            throw version.starts(with: "HTTP/".utf8)
                ? .versionUnsupported : .malformed("The request line does not end in an HTTP version.")
        }
        guard !method.equals("CONNECT") else { throw .tunnelUnsupported }
        guard target.allSatisfy({ $0 > 0x20 && $0 < 0x7F && $0 != UInt8(ascii: "#") }) else {
            throw .malformed("The request target has a character that must be percent-encoded.")
        }
        guard target[0] == UInt8(ascii: "/") || (target.equals("*") && method.equals("OPTIONS")) else {
            throw .malformed("The request target must begin with a slash.")
        }
    }

    private mutating func readField(_ line: UnsafeRawBufferPointer) throws(RequestRefusal) {
        guard line[0] != .space, line[0] != .tab else { throw .malformed("A header field is folded over several lines.") }
        guard let colon = line.firstIndex(of: UInt8(ascii: ":")), colon > 0 else {
            throw .malformed("A header field has no name, or no colon.")
        }
        let name = UnsafeRawBufferPointer(rebasing: line[..<colon])
        guard name.allSatisfy(\.isTokenByte) else { throw .malformed("A header field's name is not a token, or has a space before its colon.") }
        guard !isTrailer else { return }
        switch name.count {
        case 4 where name.equals("host", ignoringCase: true):
            hosts += 1
        case 7 where name.equals("upgrade", ignoringCase: true):
            // A client that could also speak HTTP/2 is simply not upgraded (RFC 9110, 7.8); any other protocol it would wait for.
            guard Self.value(line, after: colon).equals("h2c", ignoringCase: true) else { throw .tunnelUnsupported }
        case 14 where name.equals("content-length", ignoringCase: true):
            guard contentLength == nil else { throw .malformed("Content-Length is there more than once.") }
            guard let length = Self.value(line, after: colon).decimalValue else { throw .malformed("Content-Length is not a number.") }
            contentLength = length
        case 17 where name.equals("transfer-encoding", ignoringCase: true):
            guard !isChunked, Self.value(line, after: colon).equals("chunked", ignoringCase: true) else {
                throw .malformed("The only transfer coding is chunked, once.")
            }
            isChunked = true
        default: break
        }
    }

    private static func value(_ line: UnsafeRawBufferPointer, after colon: Int) -> UnsafeRawBufferPointer {
        var (start, end) = (colon + 1, line.count)
        while start < end, line[start] == .space || line[start] == .tab { start += 1 }
        while end > start, line[end - 1] == .space || line[end - 1] == .tab { end -= 1 }
        return UnsafeRawBufferPointer(rebasing: line[start..<end])
    }

    /// The rules that take the whole section.
    func finish() throws(RequestRefusal) -> Framing {
        guard !(isChunked && contentLength != nil) else {
            throw .malformed("Content-Length and Transfer-Encoding are both there: the body's end is ambiguous.")
        }
        guard !(isChunked && isHTTP10) else { throw .malformed("HTTP/1.0 has no transfer codings.") }
        guard hosts == 1 || (isHTTP10 && hosts == 0) else { throw .malformed("There must be exactly one Host field.") }
        if isChunked { return .chunked }
        return contentLength.map(Framing.length) ?? .none
    }
}

extension UnsafeRawBufferPointer {
    fileprivate func equals(_ text: StaticString, ignoringCase: Bool = false) -> Bool {
        guard count == text.utf8CodeUnitCount else { return false }
        for index in 0..<count {
            var byte = self[index]
            if ignoringCase, byte >= 0x41, byte <= 0x5A { byte |= 0x20 }
            if byte != text.utf8Start[index] { return false }
        }
        return true
    }

    /// A number of at most 18 digits.
    fileprivate var decimalValue: Int? {
        guard !isEmpty, count <= 18 else { return nil }
        var value = 0
        for byte in self {
            guard byte >= 0x30, byte <= 0x39 else { return nil }
            value = value * 10 + Int(byte - 0x30)
        }
        return value
    }
}
