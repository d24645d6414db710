#if MySQL
import CMariaDB

/// The values bound to a statement, in one piece of memory.
struct Parameters {
    private struct Place {
        var type: enum_field_types
        var offset: Int
        var count: Int
        var isUnsigned = false
    }

    // Never empty, so that it always has an address.
    private var memory = [UInt8](repeating: 0, count: 8)
    private var places: [Place] = []

    var count: Int { places.count }
    var byteCount: Int { memory.count }

    init(reservingCapacity capacity: Int = 0) { memory.reserveCapacity(capacity + 8) }

    init(_ values: [MySQLValue]) {
        self.init()
        for value in values { append(value) }
    }

    mutating func appendNull() { places.append(Place(type: MYSQL_TYPE_NULL, offset: 0, count: 0)) }

    mutating func append(_ value: Int64) { appendWord(UInt64(bitPattern: value), MYSQL_TYPE_LONGLONG) }
    mutating func append(_ value: Int64?) { if let value { append(value) } else { appendNull() } }
    mutating func append(unsigned value: UInt64) { appendWord(value, MYSQL_TYPE_LONGLONG, isUnsigned: true) }
    mutating func append(_ value: Double) { appendWord(value.bitPattern, MYSQL_TYPE_DOUBLE) }
    mutating func append(_ bytes: [UInt8]) { append(bytes, MYSQL_TYPE_BLOB) }
    mutating func append(_ bytes: [UInt8]?) { if let bytes { append(bytes) } else { appendNull() } }
    mutating func append(_ text: String) { append(Array(text.utf8), MYSQL_TYPE_STRING) }

    mutating func append(_ value: MySQLValue) {
        switch value {
        case .null: appendNull()
        case .integer(let value): append(value)
        case .unsigned(let value): append(unsigned: value)
        case .real(let value): append(value)
        case .text(let value): append(value)
        case .blob(let value): append(value)
        }
    }

    private mutating func append(_ bytes: [UInt8], _ type: enum_field_types) {
        places.append(Place(type: type, offset: memory.count, count: bytes.count))
        memory += bytes
    }

    private mutating func appendWord(_ word: UInt64, _ type: enum_field_types, isUnsigned: Bool = false) {
        // The library reads it as a number, where it stands.
        while memory.count % 8 != 0 { memory.append(0) }
        places.append(Place(type: type, offset: memory.count, count: 8, isUnsigned: isUnsigned))
        withUnsafeBytes(of: word) { memory.append(contentsOf: $0) }
    }

    /// Points the bindings at the values, for as long as `body` runs.
    mutating func withBindings<Result>(_ bindings: inout [MYSQL_BIND], _ body: (UnsafeMutablePointer<MYSQL_BIND>) -> Result) -> Result {
        memory.withUnsafeMutableBytes { memory in
            for (index, place) in places.enumerated() {
                var binding = MYSQL_BIND()
                binding.buffer_type = place.type
                binding.buffer = memory.baseAddress! + place.offset
                binding.buffer_length = UInt(place.count)
                binding.is_unsigned = place.isUnsigned ? 1 : 0
                bindings[index] = binding
            }
            return bindings.withUnsafeMutableBufferPointer { body($0.baseAddress!) }
        }
    }
}
#endif
