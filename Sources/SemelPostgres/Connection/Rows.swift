#if Postgres
import CPostgres
import Semel

/// What a statement answered, in PostgreSQL's binary form. Columns are read by their place, as the types that our
/// statements select.
final class Rows {
    private let result: OpaquePointer

    /// Takes over libpq's result.
    init(_ result: OpaquePointer) { self.result = result }

    deinit { PQclear(result) }

    var count: Int { Int(PQntuples(result)) }
    var columnCount: Int { Int(PQnfields(result)) }

    /// How many rows a statement changed, inserted, deleted or selected.
    var affected: Int { Int(String(cString: PQcmdTuples(result))) ?? 0 }

    func isNull(_ row: Int, _ column: Int) -> Bool { PQgetisnull(result, CInt(row), CInt(column)) == 1 }

    func integer<Value: FixedWidthInteger>(_ row: Int, _ column: Int, as _: Value.Type = Value.self) -> Value {
        let field = raw(row, column)
        precondition(field.count == Value.bitWidth / 8, "column \(column) is not an integer of \(Value.bitWidth) bits")
        return Value(bigEndian: field.loadUnaligned(as: Value.self))
    }

    func flag(_ row: Int, _ column: Int) -> Bool { integer(row, column, as: UInt8.self) != 0 }

    func reference(_ row: Int, _ column: Int) -> OperationReference {
        let field = raw(row, column)
        precondition(field.count == 16, "column \(column) is not a uuid")
        return OperationReference(
            high: UInt64(bigEndian: field.loadUnaligned(as: UInt64.self)),
            low: UInt64(bigEndian: field.loadUnaligned(fromByteOffset: 8, as: UInt64.self)))
    }

    func bytes(_ row: Int, _ column: Int) -> [UInt8] { Array(raw(row, column)) }

    func optionalBytes(_ row: Int, _ column: Int) -> [UInt8]? { isNull(row, column) ? nil : bytes(row, column) }

    func text(_ row: Int, _ column: Int) -> String { String(decoding: raw(row, column), as: UTF8.self) }

    /// A column's number in `pg_type`.
    func type(_ column: Int) -> UInt32 { PQftype(result, CInt(column)) }

    func name(_ column: Int) -> String { PQfname(result, CInt(column)).map { String(cString: $0) } ?? "" }

    private func raw(_ row: Int, _ column: Int) -> UnsafeRawBufferPointer {
        UnsafeRawBufferPointer(
            start: PQgetvalue(result, CInt(row), CInt(column)), count: Int(PQgetlength(result, CInt(row), CInt(column))))
    }
}
#endif
