/// One value of Redis' protocol, in its second or third version (RESP2, RESP3).
package enum RESPValue: Hashable, Sendable {
    case simple(String)
    case error(String)
    case integer(Int64)
    case bulk([UInt8])
    case null
    case array([RESPValue])
    /// Sent by the server unasked: a message of a channel.
    case push([RESPValue])
    /// Keys and values in turn.
    case map([RESPValue])
    case set([RESPValue])
    case double(Double)
    case boolean(Bool)
    case bigNumber(String)

    /// The bytes of a string, of either kind.
    package var bytes: [UInt8]? {
        switch self {
        case .bulk(let bytes): bytes
        case .simple(let text): Array(text.utf8)
        default: nil
        }
    }

    package var text: String? { bytes.map { String(decoding: $0, as: UTF8.self) } }

    package var integer: Int64? {
        switch self {
        case .integer(let value): value
        case .bulk, .simple: text.flatMap { Int64($0) }
        default: nil
        }
    }

    /// The elements of anything that has some; a map's keys and values in turn.
    package var elements: [RESPValue]? {
        switch self {
        case .array(let elements), .push(let elements), .map(let elements), .set(let elements): elements
        default: nil
        }
    }
}
