#if MySQL
import CMariaDB

/// A statement that the server has prepared; its values travel apart from its text.
final class Statement {
    private let handle: UnsafeMutablePointer<MYSQL_STMT>
    let parameterCount: Int
    private var bindings: [MYSQL_BIND]
    private var output: Output?
    private let hasOpenTypes: Bool

    /// - Parameter hasOpenTypes: columns may be of the types of what is bound (`SELECT ?`), which only an execution tells.
    init(_ sql: String, on connection: UnsafeMutablePointer<MYSQL>, hasOpenTypes: Bool = false) throws(MySQLError) {
        self.hasOpenTypes = hasOpenTypes
        guard let handle = mysql_stmt_init(connection) else {
            throw MySQLError(code: 2008, message: "the client library has no memory for a statement")
        }
        self.handle = handle
        let failure = sql.utf8.withContiguousStorageIfAvailable { text in
            text.withMemoryRebound(to: CChar.self) { mysql_stmt_prepare(handle, $0.baseAddress, UInt($0.count)) }
        }
        parameterCount = failure == 0 ? Int(mysql_stmt_param_count(handle)) : 0
        // One to spare, so that it always has an address.
        bindings = Array(repeating: MYSQL_BIND(), count: parameterCount + 1)
        let metadata = failure == 0 ? mysql_stmt_result_metadata(handle) : nil
        output = metadata.map { Output($0) }
        if let metadata { mysql_free_result(metadata) }
        // From here on the deinitializer closes it, also when this throws.
        guard failure == 0 else { throw Self.error(handle) }
    }

    deinit { mysql_stmt_close(handle) }

    private static func error(_ handle: UnsafeMutablePointer<MYSQL_STMT>) -> MySQLError {
        MySQLError(
            code: Int(mysql_stmt_errno(handle)), sqlState: String(cString: mysql_stmt_sqlstate(handle)),
            message: String(cString: mysql_stmt_error(handle)))
    }

    /// Runs it. What the number counts for rows that were matched but not changed is decided when connecting.
    /// - Returns: how many rows were inserted, deleted or changed.
    @discardableResult
    func execute(_ parameters: Parameters = Parameters()) throws(MySQLError) -> Int {
        var rows: [MySQLRow] = []
        return try run(parameters) { rows.append($0) }
    }

    func query(_ parameters: Parameters = Parameters()) throws(MySQLError) -> [MySQLRow] {
        var rows: [MySQLRow] = []
        try run(parameters) { rows.append($0) }
        return rows
    }

    @discardableResult
    func run(_ parameters: Parameters, _ each: (MySQLRow) -> Void) throws(MySQLError) -> Int {
        precondition(parameters.count == parameterCount, "the statement has \(parameterCount) parameters, not \(parameters.count)")
        var parameters = parameters
        let failure = parameters.withBindings(&bindings) { bindings -> Bool in
            if parameterCount > 0, mysql_stmt_bind_param(handle, bindings) != 0 { return true }
            return mysql_stmt_execute(handle) != 0
        }
        guard !failure else { throw Self.error(handle) }
        if hasOpenTypes, output != nil, let metadata = mysql_stmt_result_metadata(handle) {
            output = Output(metadata)
            mysql_free_result(metadata)
        }
        guard let output else { return Int(truncatingIfNeeded: mysql_stmt_affected_rows(handle)) }
        defer { mysql_stmt_free_result(handle) }
        guard output.bind(to: handle), mysql_stmt_store_result(handle) == 0 else { throw Self.error(handle) }
        while true {
            switch mysql_stmt_fetch(handle) {
            case 0, MYSQL_DATA_TRUNCATED: each(try output.row(of: handle) { Self.error(handle) })
            case MYSQL_NO_DATA: return Int(truncatingIfNeeded: mysql_stmt_affected_rows(handle))
            default: throw Self.error(handle)
            }
        }
    }

    /// Where a row's columns are put. A value that is longer than its place is fetched again, into one of its size.
    private final class Output {
        private enum Kind {
            case integer(isUnsigned: Bool)
            case real
            case text, blob
        }

        private static let place = 512
        private let names: [String]
        private let kinds: [Kind]
        private var bindings: [MYSQL_BIND]
        private let memory: UnsafeMutableRawPointer
        private let lengths: UnsafeMutablePointer<UInt>
        private let nulls: UnsafeMutablePointer<my_bool>
        private let errors: UnsafeMutablePointer<my_bool>

        init(_ metadata: UnsafeMutablePointer<MYSQL_RES>) {
            let count = Int(mysql_num_fields(metadata))
            let fields = UnsafeBufferPointer(start: mysql_fetch_fields(metadata), count: count)
            names = fields.map { String(decoding: UnsafeRawBufferPointer(start: $0.name, count: Int($0.name_length)), as: UTF8.self) }
            kinds = fields.map { field in
                switch field.type {
                case MYSQL_TYPE_TINY, MYSQL_TYPE_SHORT, MYSQL_TYPE_INT24, MYSQL_TYPE_LONG, MYSQL_TYPE_LONGLONG, MYSQL_TYPE_YEAR:
                    .integer(isUnsigned: field.flags & 32 != 0)
                case MYSQL_TYPE_FLOAT, MYSQL_TYPE_DOUBLE: .real
                // 63 is the character set of bytes; numbers and times have it too, and are read as text.
                case MYSQL_TYPE_STRING, MYSQL_TYPE_VAR_STRING, MYSQL_TYPE_VARCHAR, MYSQL_TYPE_BLOB, MYSQL_TYPE_TINY_BLOB,
                    MYSQL_TYPE_MEDIUM_BLOB, MYSQL_TYPE_LONG_BLOB, MYSQL_TYPE_BIT, MYSQL_TYPE_GEOMETRY:
                    field.charsetnr == 63 ? .blob : .text
                default: .text
                }
            }
            memory = .allocate(byteCount: Self.place * max(count, 1), alignment: 16)
            lengths = .allocate(capacity: max(count, 1))
            nulls = .allocate(capacity: max(count, 1))
            errors = .allocate(capacity: max(count, 1))
            bindings = Array(repeating: MYSQL_BIND(), count: count)
            for index in 0..<count {
                bindings[index].buffer = memory + index * Self.place
                bindings[index].buffer_length = UInt(Self.place)
                bindings[index].length = lengths + index
                bindings[index].is_null = nulls + index
                bindings[index].error = errors + index
                switch kinds[index] {
                case .integer(let isUnsigned):
                    bindings[index].buffer_type = MYSQL_TYPE_LONGLONG
                    bindings[index].is_unsigned = isUnsigned ? 1 : 0
                case .real: bindings[index].buffer_type = MYSQL_TYPE_DOUBLE
                case .text: bindings[index].buffer_type = MYSQL_TYPE_STRING
                case .blob: bindings[index].buffer_type = MYSQL_TYPE_BLOB
                }
            }
        }

        deinit {
            memory.deallocate()
            lengths.deallocate()
            nulls.deallocate()
            errors.deallocate()
        }

        func bind(to handle: UnsafeMutablePointer<MYSQL_STMT>) -> Bool {
            bindings.withUnsafeMutableBufferPointer { mysql_stmt_bind_result(handle, $0.baseAddress) == 0 }
        }

        func row(of handle: UnsafeMutablePointer<MYSQL_STMT>, _ error: () -> MySQLError) throws(MySQLError) -> MySQLRow {
            var values: [MySQLValue] = []
            values.reserveCapacity(kinds.count)
            for (index, kind) in kinds.enumerated() {
                let place = memory + index * Self.place
                switch kind {
                case _ where nulls[index] != 0: values.append(.null)
                case .integer(isUnsigned: true):
                    let value = place.load(as: UInt64.self)
                    values.append(value <= UInt64(Int64.max) ? .integer(Int64(value)) : .unsigned(value))
                case .integer: values.append(.integer(place.load(as: Int64.self)))
                case .real: values.append(.real(place.load(as: Double.self)))
                case .text, .blob:
                    let length = Int(lengths[index])
                    let bytes: [UInt8]
                    if length <= Self.place {
                        bytes = Array(UnsafeRawBufferPointer(start: place, count: length))
                    } else {
                        var isFetched = false
                        bytes = [UInt8](unsafeUninitializedCapacity: length) { buffer, count in
                            var binding = bindings[index]
                            binding.buffer = UnsafeMutableRawPointer(buffer.baseAddress!)
                            binding.buffer_length = UInt(length)
                            isFetched = mysql_stmt_fetch_column(handle, &binding, UInt32(index), 0) == 0
                            count = isFetched ? length : 0
                        }
                        guard isFetched else { throw error() }
                    }
                    if case .text = kind { values.append(.text(String(decoding: bytes, as: UTF8.self))) } else { values.append(.blob(bytes)) }
                }
            }
            return MySQLRow(names: names, values: values)
        }
    }
}
#endif
