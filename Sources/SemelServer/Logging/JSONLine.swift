internal import Logging

/// One JSON object that is written member by member.
struct JSONLine {
    /// Longer values are cut, so that one entry never takes the log over.
    static let valueLimit = 8 << 10

    private var bytes: [UInt8] = [UInt8(ascii: "{")]

    init() { bytes.reserveCapacity(256) }

    mutating func finished() -> [UInt8] { bytes + [UInt8(ascii: "}"), UInt8(ascii: "\n")] }

    mutating func add(_ name: String, text: String) {
        begin(name)
        append(text)
    }

    /// A number or a Boolean.
    mutating func add(_ name: String, raw: String) {
        begin(name)
        bytes += raw.utf8
    }

    mutating func add(_ name: String, _ value: Logger.Metadata.Value, where isPublic: (String) -> Bool) {
        begin(name)
        append(value, where: isPublic)
    }

    static func isNumber(_ text: String) -> Bool {
        guard text.utf8.count <= 24, let number = Double(text), number.isFinite else { return false }
        // What Swift reads as a number and JSON does not: `+1`, `.5`, `5.`, `0x1p3`, `01`.
        return text.wholeMatch(of: /-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+\-]?[0-9]+)?/) != nil
    }

    private mutating func begin(_ name: String) {
        if bytes.count > 1 { bytes.append(UInt8(ascii: ",")) }
        append(name)
        bytes.append(UInt8(ascii: ":"))
    }

    private mutating func append(_ value: Logger.Metadata.Value, where isPublic: (String) -> Bool) {
        switch value {
        case .string(let text): append(text)
        case .stringConvertible(let value): append(value.description)
        case .array(let values):
            bytes.append(UInt8(ascii: "["))
            for (index, value) in values.enumerated() {
                if index > 0 { bytes.append(UInt8(ascii: ",")) }
                append(value, where: isPublic)
            }
            bytes.append(UInt8(ascii: "]"))
        case .dictionary(let members):
            bytes.append(UInt8(ascii: "{"))
            for (index, member) in members.filter({ isPublic($0.key) }).sorted(by: { $0.key < $1.key }).enumerated() {
                if index > 0 { bytes.append(UInt8(ascii: ",")) }
                append(member.key)
                bytes.append(UInt8(ascii: ":"))
                append(member.value, where: isPublic)
            }
            bytes.append(UInt8(ascii: "}"))
        }
    }

    private mutating func append(_ text: String) {
        bytes.append(UInt8(ascii: "\""))
        var text = text[...]
        let isCut = text.utf8.count > Self.valueLimit
        if isCut { text = text.prefix(Self.valueLimit / 4) }
        for byte in text.utf8 {
            switch byte {
            case UInt8(ascii: "\""), UInt8(ascii: "\\"): bytes += [UInt8(ascii: "\\"), byte]
            case 0x0A: bytes += Array("\\n".utf8)
            case 0x00..<0x20, 0x7F: bytes += Array((byte < 0x10 ? "\\u000" : "\\u00").utf8) + Array(String(byte, radix: 16).utf8)
            default: bytes.append(byte)
            }
        }
        if isCut { bytes += Array("…".utf8) }
        bytes.append(UInt8(ascii: "\""))
    }
}
