#if Postgres
import CPostgres
import Semel

/// Where the server is, who we are there, and in which schema the store's tables lie: a connection URL, read once.
struct Target: Sendable {
    /// For libpq, without what is ours.
    let parameters: [(name: String, value: String)]
    let schema: String
    /// The URL's place without user or password, for messages.
    let place: String

    /// Reads `postgres://user:password@host:port/database?sslmode=…&schema=…`: everything that libpq takes, and `schema`.
    init(url: String, schema defaultSchema: String) throws(StoreError) {
        guard url.hasPrefix("postgres://") || url.hasPrefix("postgresql://") else {
            throw StoreError(.misconfigured, "the store's URL must begin with postgres://, such as postgres://user@host:5432/database?sslmode=verify-full")
        }
        var schema = defaultSchema
        var kept = url
        if let mark = url.firstIndex(of: "?") {
            let items = url[url.index(after: mark)...].split(separator: "&")
            for item in items where item.hasPrefix("schema=") { schema = String(item.dropFirst("schema=".count)) }
            let rest = items.filter { !$0.hasPrefix("schema=") }
            kept = String(url[..<mark]) + (rest.isEmpty ? "" : "?" + rest.joined(separator: "&"))
        }
        guard !schema.isEmpty, schema.utf8.count <= 40, schema.utf8.allSatisfy({ ($0 | 0x20) >= 0x61 && ($0 | 0x20) <= 0x7A || $0 == 0x5F || $0 >= 0x30 && $0 <= 0x39 }) else {
            throw StoreError(.misconfigured, "the schema \"\(schema)\" in the store's URL must be 1 to 40 letters, digits and underscores")
        }
        var problem: UnsafeMutablePointer<CChar>?
        guard let options = PQconninfoParse(kept, &problem) else {
            // libpq's own words repeat parts of the URL, and so perhaps of the password.
            PQfreemem(problem)
            throw StoreError(
                .misconfigured,
                "the store's URL \(kept.withoutCredentials) cannot be understood. Remedy: write %, /, @, : and ? in user and password as %25, %2F, %40, %3A and %3F, and check the parameters")
        }
        defer { PQconninfoFree(options) }
        var parameters: [(String, String)] = []
        var shown: [String: String] = [:]
        var option = options
        while let keyword = option.pointee.keyword {
            if let value = option.pointee.val {
                parameters.append((String(cString: keyword), String(cString: value)))
                shown[String(cString: keyword)] = String(cString: value)
            }
            option += 1
        }
        self.parameters = parameters
        self.schema = schema
        let port = shown["port"].map { ":\($0)" } ?? ""
        place = "postgres://\(shown["host"] ?? shown["hostaddr"] ?? "localhost")\(port)/\(shown["dbname"] ?? "")"
    }

    /// The schema as an identifier in SQL.
    var quotedSchema: String { "\"\(schema)\"" }

    /// A number for the advisory locks of this schema.
    var lockNumber: Int64 { Int64(bitPattern: OperationReference(OperationID(scope: Scope("semel", schema), key: Self.lockKey)).high) }

    /// The advisory lock on the map of the segments: who claims shares it, who changes the map has it alone.
    var mapLock: Int64 { lockNumber &+ 2 }
    /// The advisory lock of the one process that prepares a change of the map.
    var changeLock: Int64 { lockNumber &+ 3 }
    /// The advisory lock of the one process that makes a segment's filter.
    var filterLock: Int64 { lockNumber &+ 4 }

    /// The advisory lock of the one process that purges.
    var purgeLock: Int64 { lockNumber &+ 5 }

    /// The advisory lock under which a scope's live records are counted.
    func lock(of scope: Scope) -> Int64 {
        lockNumber ^ Int64(bitPattern: OperationReference(OperationID(scope: scope, key: Self.lockKey)).high)
    }

    private static let lockKey: OperationKey = {
        guard let key = try? OperationKey("lock") else { fatalError("four bytes are a key") }
        return key
    }()
}

extension String {
    /// Without line ends, for libpq's messages have them.
    var trimmed: String {
        split(whereSeparator: \.isNewline).map { $0.drop(while: { $0 == " " || $0 == "\t" }) }.joined(separator: "; ")
    }
}
#endif
