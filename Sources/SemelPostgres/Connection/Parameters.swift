#if Postgres
import Semel

/// The bound parameters of one statement, in PostgreSQL's binary form, in one piece of memory.
struct Parameters {
    /// The types that arrays of parameters are made of, by their fixed numbers in `pg_type`.
    enum Element: UInt32 {
        case boolean = 16
        case bytes = 17
        case integer = 20
        case smallInteger = 21
        case shortInteger = 23
        case uuid = 2950
    }

    private(set) var bytes: [UInt8] = []
    /// Where each one lies; a count of -1 is NULL.
    private(set) var fields: [(offset: Int, count: Int)] = []

    mutating func add(_ value: Int64) { field { $0.append(bigEndian: value) } }
    mutating func add(_ value: Int32) { field { $0.append(bigEndian: value) } }
    mutating func add(_ value: [UInt8]) { field { $0.append(contentsOf: value) } }
    mutating func add(_ value: OperationReference) { field { $0.append(value) } }

    /// Text is the same in binary form.
    mutating func add(_ text: String) { field { $0.append(contentsOf: text.utf8) } }
    mutating func addNull() { fields.append((bytes.count, -1)) }

    mutating func add(_ value: [UInt8]?) {
        if let value { add(value) } else { addNull() }
    }

    /// An array of integers, uuids or byte strings, one for each of `values`.
    mutating func addArray<Value>(_ element: Element, _ values: [Value], _ write: (inout ArrayWriter, Value) -> Void) {
        field { bytes in
            for number in [values.isEmpty ? 0 : 1, 1] { bytes.append(bigEndian: Int32(number)) }
            bytes.append(bigEndian: element.rawValue)
            guard !values.isEmpty else { return }
            bytes.append(bigEndian: Int32(values.count))
            bytes.append(bigEndian: Int32(1))
            var writer = ArrayWriter(bytes: bytes)
            bytes = []
            for value in values { write(&writer, value) }
            bytes = writer.bytes
        }
    }

    private mutating func field(_ write: (inout [UInt8]) -> Void) {
        let offset = bytes.count
        write(&bytes)
        fields.append((offset, bytes.count - offset))
    }

    struct ArrayWriter {
        fileprivate(set) var bytes: [UInt8]

        mutating func write(_ value: some FixedWidthInteger) {
            bytes.append(bigEndian: Int32(value.bitWidth / 8))
            bytes.append(bigEndian: value)
        }

        mutating func write(_ value: Bool) { write(UInt8(value ? 1 : 0)) }

        mutating func write(_ value: OperationReference) {
            bytes.append(bigEndian: Int32(16))
            bytes.append(value)
        }

        mutating func write(_ value: Owner) {
            write(OperationReference(high: value.high, low: value.low))
        }

        mutating func write(_ value: [UInt8]) {
            bytes.append(bigEndian: Int32(value.count))
            bytes.append(contentsOf: value)
        }

        mutating func write(_ value: [UInt8]?) {
            if let value { write(value) } else { writeNull() }
        }

        mutating func writeNull() { bytes.append(bigEndian: Int32(-1)) }
    }
}

extension [UInt8] {
    fileprivate mutating func append(bigEndian value: some FixedWidthInteger) {
        Swift.withUnsafeBytes(of: value.bigEndian) { append(contentsOf: $0) }
    }

    fileprivate mutating func append(_ value: OperationReference) {
        append(bigEndian: value.high)
        append(bigEndian: value.low)
    }
}
#endif
