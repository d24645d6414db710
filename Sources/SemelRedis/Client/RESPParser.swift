/// Reads values of Redis' protocol from bytes that arrive in any pieces.
///
/// A pure value. Whatever the input, it returns values, asks for more, or throws; it never traps, and memory is taken only
/// for bytes that are really there: a length that is only claimed reserves nothing, and is refused beyond the limits.
package struct RESPParser: Sendable {
    package struct Limits: Sendable {
        /// How deep values may be nested.
        package var depth = 16
        /// The longest string.
        package var bulk = 256 << 20
        /// The longest line: a simple string, an error, a number.
        package var line = 64 << 10
        /// The most values within one.
        package var elements = 4 << 20

        package init() {}
    }

    private enum Container { case array, push, map, set, attribute }

    private struct Frame {
        var container: Container
        var missing: Int
        var elements: [RESPValue] = []
    }

    private enum Text { case string, error, verbatim }

    private let limits: Limits
    private var buffer: [UInt8] = []
    private var position = 0
    /// Up to here the line that begins at `position` is known to have no end.
    private var searched = 0
    private var frames: [Frame] = []
    private var elements = 0
    /// The string whose length was read and whose bytes were not.
    private var awaited: (text: Text, count: Int)?

    package init(limits: Limits = Limits()) {
        self.limits = limits
    }

    /// How many bytes wait for the rest of their value.
    package var pending: Int { buffer.count - position }

    package mutating func append(_ bytes: UnsafeRawBufferPointer) {
        if position == buffer.count {
            buffer.removeAll(keepingCapacity: buffer.capacity <= 1 << 20)
            position = 0
        } else if position > 1 << 16, position > buffer.count / 2 {
            buffer.removeSubrange(..<position)
            position = 0
        }
        searched = max(searched, position)
        if searched > buffer.count { searched = position }
        buffer.append(contentsOf: bytes)
    }

    package mutating func append(_ bytes: some Collection<UInt8>) {
        Array(bytes).withUnsafeBytes { append($0) }
    }

    /// The next whole value, or `nil` until more bytes are there.
    package mutating func next() throws(RESPError) -> RESPValue? {
        while true {
            if let (text, count) = awaited {
                guard buffer.count - position >= count + 2 else { return nil }
                let start = position
                guard buffer[start + count] == 0x0D, buffer[start + count + 1] == 0x0A else {
                    throw RESPError("a string of \(count) bytes has no end where it should")
                }
                position += count + 2
                awaited = nil
                if let value = complete(try Self.value(text, buffer[start..<start + count])) { return value }
                continue
            }
            guard let line = try nextLine() else { return nil }
            if let value = try read(line).flatMap({ complete($0) }) { return value }
        }
    }

    /// The range of the next line, its type byte included and its end excluded.
    private mutating func nextLine() throws(RESPError) -> Range<Int>? {
        var index = max(searched, position)
        let end = buffer.count
        let found: Int? = buffer.withUnsafeBufferPointer { bytes in
            while index + 1 < end {
                if bytes[index] == 0x0D, bytes[index + 1] == 0x0A { return index }
                index += 1
            }
            return nil
        }
        guard let found, found - position <= limits.line else {
            if index - position > limits.line { throw RESPError("a line is longer than \(limits.line) bytes") }
            searched = index
            return nil
        }
        guard found > position else { throw RESPError("a value has no type") }
        let line = position..<found
        position = found + 2
        searched = position
        return line
    }

    /// Takes a line; returns the value that it is, or `nil` when more belongs to it.
    private mutating func read(_ line: Range<Int>) throws(RESPError) -> RESPValue? {
        let rest = line.dropFirst()
        switch buffer[line.lowerBound] {
        case UInt8(ascii: "+"): return .simple(String(decoding: buffer[rest], as: UTF8.self))
        case UInt8(ascii: "-"): return .error(String(decoding: buffer[rest], as: UTF8.self))
        case UInt8(ascii: ":"): return .integer(try integer(rest))
        case UInt8(ascii: "_"): return .null
        case UInt8(ascii: "#"):
            switch buffer[rest] {
            case [UInt8(ascii: "t")]: return .boolean(true)
            case [UInt8(ascii: "f")]: return .boolean(false)
            default: throw RESPError("a Boolean is neither t nor f")
            }
        case UInt8(ascii: ","):
            let text = String(decoding: buffer[rest], as: UTF8.self)
            guard let value = Double(text) else { throw RESPError("\"\(text.prefix(40))\" is not a number") }
            return .double(value)
        case UInt8(ascii: "("): return .bigNumber(String(decoding: buffer[rest], as: UTF8.self))
        case UInt8(ascii: "$"): return try expect(.string, rest)
        case UInt8(ascii: "!"): return try expect(.error, rest)
        case UInt8(ascii: "="): return try expect(.verbatim, rest)
        case UInt8(ascii: "*"): return try open(.array, rest)
        case UInt8(ascii: ">"): return try open(.push, rest)
        case UInt8(ascii: "%"): return try open(.map, rest)
        case UInt8(ascii: "~"): return try open(.set, rest)
        case UInt8(ascii: "|"): return try open(.attribute, rest)
        case let byte: throw RESPError("a value of the unknown type \(byte)")
        }
    }

    private mutating func expect(_ text: Text, _ digits: Range<Int>) throws(RESPError) -> RESPValue? {
        let count = try integer(digits)
        if count == -1 { return .null }
        guard count >= 0, count <= limits.bulk else { throw RESPError("a string of \(count) bytes; at most \(limits.bulk) are taken") }
        awaited = (text, Int(count))
        return nil
    }

    private mutating func open(_ container: Container, _ digits: Range<Int>) throws(RESPError) -> RESPValue? {
        let count = try integer(digits)
        if count == -1, container == .array { return .null }
        guard count >= 0, count <= limits.elements else { throw RESPError("a collection of \(count) values") }
        let missing = Int(count) * (container == .map || container == .attribute ? 2 : 1)
        elements += missing
        guard elements <= limits.elements else { throw RESPError("a value of more than \(limits.elements) values") }
        guard frames.count < limits.depth else { throw RESPError("values are nested deeper than \(limits.depth)") }
        if missing == 0 { return container == .attribute ? nil : Self.value(container, []) }
        frames.append(Frame(container: container, missing: missing))
        return nil
    }

    /// Puts a value where it belongs; returns the outermost one when it is whole.
    private mutating func complete(_ value: RESPValue) -> RESPValue? {
        var value = value
        while let last = frames.indices.last {
            frames[last].elements.append(value)
            frames[last].missing -= 1
            guard frames[last].missing == 0 else { return nil }
            let frame = frames.removeLast()
            // What an attribute says about the value after it is nothing that is asked for here.
            if frame.container == .attribute {
                if frames.isEmpty { elements = 0 }
                return nil
            }
            value = Self.value(frame.container, frame.elements)
        }
        elements = 0
        return value
    }

    private func integer(_ digits: Range<Int>) throws(RESPError) -> Int64 {
        var value: Int64 = 0
        var index = digits.lowerBound
        let isNegative = index < digits.upperBound && buffer[index] == UInt8(ascii: "-")
        if isNegative || index < digits.upperBound && buffer[index] == UInt8(ascii: "+") { index += 1 }
        guard index < digits.upperBound else { throw RESPError("a number without digits") }
        while index < digits.upperBound {
            let digit = buffer[index]
            guard digit >= 0x30, digit <= 0x39 else { throw RESPError("a number with the byte \(digit)") }
            let (tens, overflow) = value.multipliedReportingOverflow(by: 10)
            let (sum, carry) = tens.subtractingReportingOverflow(Int64(digit - 0x30))
            guard !overflow, !carry else { throw RESPError("a number beyond 64 bits") }
            value = sum
            index += 1
        }
        // Summed up below zero, where there is one number more than above.
        if isNegative { return value }
        guard value != .min else { throw RESPError("a number beyond 64 bits") }
        return -value
    }

    private static func value(_ text: Text, _ bytes: ArraySlice<UInt8>) throws(RESPError) -> RESPValue {
        switch text {
        case .string: return .bulk(Array(bytes))
        case .error: return .error(String(decoding: bytes, as: UTF8.self))
        case .verbatim:
            // Three letters and a colon say what kind of text it is.
            guard bytes.count >= 4 else { throw RESPError("a verbatim string without its kind") }
            return .bulk(Array(bytes.dropFirst(4)))
        }
    }

    private static func value(_ container: Container, _ elements: [RESPValue]) -> RESPValue {
        switch container {
        case .array, .attribute: .array(elements)
        case .push: .push(elements)
        case .map: .map(elements)
        case .set: .set(elements)
        }
    }
}

/// The peer does not speak the protocol.
package struct RESPError: Error, Hashable, Sendable, CustomStringConvertible {
    package let description: String

    package init(_ description: String) { self.description = description }
}
