extension Scene {
    /// Performs `body` once for this key inside a transaction of the store, together with the record (level `atomic`).
    ///
    /// What `body` writes through the transaction and the record that it did become durable together or not at all. So a
    /// crash at any moment leaves both or neither, nothing is ever uncertain, and there is no lease to lose.
    ///
    /// - Errors: ``PermanentFailure`` undoes the writes, is recorded, and is thrown again to every later caller; any other
    ///   error undoes the writes and leaves the key free.
    /// - Not guaranteed: anything `body` does elsewhere. It may be run again after it was rolled back.
    ///
    /// - Parameters:
    ///   - store: the scene's own store.
    ///   - body: runs on the store's thread and holds up its other work: write and return.
    public func perform<Store: TransactionalStore, Value: Codable & Sendable>(
        _ key: String, in scope: Scope = Scope(), payload: some Encodable, inTransactionOf store: Store,
        _ body: @escaping @Sendable (Store.Transaction) throws -> Value
    ) async throws -> Performance<Value> {
        let id = OperationID(scope: scope, key: try OperationKey(key))
        try checkMode(id)
        guard (self.store.unwrapped as AnyObject) === (store.unwrapped as AnyObject) else {
            throw OperationError(
                code: .misused, operation: OperationReference(id),
                message: "The scene \(policy.scene) keeps its records in another store than the one whose transaction was given. Give the scene's own store.")
        }
        let fingerprint = try Fingerprint(ofPayload: payload).of(policy.scene)
        let request = claimRequest(for: OperationCall(id: id, fingerprint: fingerprint))
        let value = Locked<Value?>(nil)
        let failure = Locked<PermanentFailure?>(nil)
        let result = try await store.perform(request) { transaction, _ in
            // A batch whose commit failed is run anew.
            value.withLock { $0 = nil }
            failure.withLock { $0 = nil }
            do {
                let result = try body(transaction)
                value.withLock { $0 = result }
                return .commit(try .value(result))
            } catch let error as PermanentFailure {
                failure.withLock { $0 = error }
                return .fail(try .failure(error))
            }
        }
        switch result {
        case .performed(_, let grant):
            if let failure = failure.withLock({ $0 }) { throw failure }
            let receipt = Receipt(operation: OperationReference(id), epoch: grant.token.epoch, guarantee: guarantee)
            return .performed(value.withLock { $0! }, receipt)
        case .notRun(.completed(let record)): return try replay(record, of: id)
        case .notRun(let result): throw OperationError(Refusal(result) ?? .uncertain(reason: "not-of-this-database"), of: id)
        }
    }
}
