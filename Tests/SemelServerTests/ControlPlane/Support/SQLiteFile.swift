import SemelSQLite

enum SQLiteFile {
    static func open(_ folder: String) async throws -> SQLiteStore {
        var configuration = SQLiteStore.Configuration()
        configuration.reserve = 1 << 16
        return try await SQLiteStore(path: "\(folder)/semel.db", configuration: configuration)
    }
}
