package import NIOCore

/// Follows where requests begin and end in the bytes of one connection, strictly as RFC 9112 says, and refuses whatever
/// two parsers could read in two ways: such a request is how one is smuggled past a gateway.
///
/// A pure value. A header section is held back until all of it was seen, so nothing of a refused one is ever passed on;
/// bodies pass at once. How the bytes are sliced makes no difference.
package struct RequestFraming: Sendable {
    package static let requestLineLimit = 8 << 10
    package static let headerSectionLimit = 16 << 10
    private static let chunkLineLimit = 256

    private enum State {
        case header
        case body(remaining: Int)
        case chunkSize
        case chunkData(remaining: Int)
        case chunkEnd
        case trailers
        case refused
    }

    private var state = State.header
    private var section = HeaderSection()
    /// The beginning of a header section, chunk line or trailer section whose end has not come yet.
    private var held = ByteBuffer()

    package init() {}

    /// What may be passed on now, and why nothing more ever will.
    package struct Verdict {
        package var accepted: ByteBuffer
        package var refusal: RequestRefusal?
    }

    package mutating func receive(_ incoming: ByteBuffer) -> Verdict {
        var buffer = incoming
        if held.readableBytes > 0 {
            held.writeImmutableBuffer(incoming)
            buffer = held
            held = ByteBuffer()
        }
        var accepted = 0
        var refusal: RequestRefusal?
        let (count, all) = buffer.withUnsafeReadableBytes { bytes in
            do throws(RequestRefusal) {
                while accepted < bytes.count, let length = try next(UnsafeRawBufferPointer(rebasing: bytes[accepted...])) {
                    accepted += length
                }
            } catch {
                state = .refused
                refusal = error
            }
            return (accepted, bytes.count)
        }
        if count == all { return Verdict(accepted: buffer, refusal: refusal) }
        let passed = buffer.readSlice(length: count)!
        if refusal == nil { held = buffer }
        return Verdict(accepted: passed, refusal: refusal)
    }

    /// The length of the next piece that may pass; `nil` when more bytes are needed to tell.
    private mutating func next(_ bytes: UnsafeRawBufferPointer) throws(RequestRefusal) -> Int? {
        switch state {
        case .header:
            guard let end = try section.scan(bytes) else { return nil }
            switch try section.finish() {
            case .none: state = .header
            case .length(let length): state = length == 0 ? .header : .body(remaining: length)
            case .chunked: state = .chunkSize
            }
            section = HeaderSection()
            return end
        case .body(let remaining):
            let length = min(remaining, bytes.count)
            state = length == remaining ? .header : .body(remaining: remaining - length)
            return length
        case .chunkSize:
            guard let (size, end) = try Self.chunkSize(bytes) else { return nil }
            if size == 0 {
                state = .trailers
                section = HeaderSection(trailers: true)
            } else {
                state = .chunkData(remaining: size)
            }
            return end
        case .chunkData(let remaining):
            let length = min(remaining, bytes.count)
            state = length == remaining ? .chunkEnd : .chunkData(remaining: remaining - length)
            return length
        case .chunkEnd:
            guard bytes[0] == .carriageReturn else { throw .malformed("A chunk does not end where its size says.") }
            guard bytes.count > 1 else { return nil }
            guard bytes[1] == .lineFeed else { throw .malformed("A chunk does not end where its size says.") }
            state = .chunkSize
            return 2
        case .trailers:
            guard let end = try section.scan(bytes) else { return nil }
            section = HeaderSection()
            state = .header
            return end
        case .refused:
            return nil
        }
    }

    /// `chunk-size [ chunk-ext ] CRLF` (RFC 9112, 7.1). Extensions pass unread, but not their control characters.
    private static func chunkSize(_ bytes: UnsafeRawBufferPointer) throws(RequestRefusal) -> (size: Int, end: Int)? {
        var size = 0
        var digits = 0
        var index = 0
        while index < bytes.count, let digit = bytes[index].hexadecimalValue {
            digits += 1
            guard digits <= 15 else { throw .malformed("A chunk's size is too large.") }
            size = size << 4 | Int(digit)
            index += 1
        }
        guard index < bytes.count else { return nil }
        guard digits > 0, bytes[index] == .carriageReturn || bytes[index] == UInt8(ascii: ";") else {
            throw .malformed("A chunk's size is malformed.")
        }
        while index < bytes.count, bytes[index] != .carriageReturn {
            guard bytes[index].isFieldValueByte else { throw .malformed("A chunk's extension has a control character.") }
            index += 1
            guard index < chunkLineLimit else { throw .malformed("A chunk's extensions are too long.") }
        }
        guard index + 1 < bytes.count else { return nil }
        guard bytes[index + 1] == .lineFeed else { throw .malformed("A chunk's size line has a bare carriage return.") }
        return (size, index + 2)
    }
}

extension UInt8 {
    static let carriageReturn = UInt8(ascii: "\r")
    static let lineFeed = UInt8(ascii: "\n")
    static let space = UInt8(ascii: " ")
    static let tab = UInt8(ascii: "\t")

    /// Visible, space, tab or above ASCII (RFC 9110, 5.5).
    @inline(__always) var isFieldValueByte: Bool { self >= 0x20 ? self != 0x7F : self == .tab }

    /// A character of a token (RFC 9110, 5.6.2).
    @inline(__always) var isTokenByte: Bool {
        switch self {
        case 0x30...0x39, 0x41...0x5A, 0x61...0x7A: true
        case 0x21, 0x23, 0x24, 0x25, 0x26, 0x27, 0x2A, 0x2B, 0x2D, 0x2E, 0x5E, 0x5F, 0x60, 0x7C, 0x7E: true
        default: false
        }
    }

    var hexadecimalValue: UInt8? {
        switch self {
        case 0x30...0x39: self - 0x30
        case 0x41...0x46: self - 0x41 + 10
        case 0x61...0x66: self - 0x61 + 10
        default: nil
        }
    }
}
