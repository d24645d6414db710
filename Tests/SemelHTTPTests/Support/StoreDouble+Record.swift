import Semel
import SemelTesting

extension StoreDouble {
    /// The record of a key that came by HTTP.
    func record(_ key: String = "key-1", _ scope: String...) async throws -> Record? {
        try await record(of: OperationID(scope: Scope(parts: ["http"] + scope), key: try OperationKey(key)))
    }
}
