import Foundation
import Semel
import SemelSQLite

/// A folder of its own for one test, removed with the value.
final class TemporaryFolder: Sendable {
    let path: String

    init(in place: String = FileManager.default.temporaryDirectory.path) {
        path = place + "/semel-sqlite-" + UUID().uuidString
        // A test without its folder cannot say anything.
        try! FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: true)
    }

    deinit { try? FileManager.default.removeItem(atPath: path) }

    var database: String { path + "/store.db" }

    var names: [String] { (try? FileManager.default.contentsOfDirectory(atPath: path)) ?? [] }
}

let pinned = PinnedPolicy(scene: "payments", text: "effect: unknown")

func key(_ text: String, scope: String = "tenant") -> OperationID {
    OperationID(scope: Scope(scope), key: try! OperationKey(text))
}

func request(
    _ id: OperationID, _ owner: UInt64 = 1, fingerprint: String = "a", lease: Duration = .seconds(30), onLapse: LapseRule = .uncertain,
    retention: Retention = .standard, limit: Int? = nil, policy: PinnedPolicy = pinned
) -> ClaimRequest {
    ClaimRequest(
        id: id, fingerprint: Fingerprint(of: Array(fingerprint.utf8)), owner: Owner(high: owner, low: owner), lease: lease,
        onLapse: onLapse, policy: policy, retention: retention, liveLimit: limit)
}

func outcome(_ text: String) -> Outcome { Outcome(status: 201, fields: [.init("location", "/1")], body: .kept(Array(text.utf8))) }

struct NotGranted: Error { let result: ClaimResult }

extension SQLiteStore {
    func granted(_ request: ClaimRequest) async throws -> Grant {
        let result = try await claim(request)
        guard case .granted(let grant) = result else { throw NotGranted(result: result) }
        return grant
    }

    /// Claims and completes.
    func finish(_ id: OperationID, with text: String = "done", retention: Retention = .standard) async throws {
        let grant = try await granted(request(id, retention: retention))
        let result = try await apply(.complete(outcome(text)), to: id, token: grant.token)
        guard result == .applied else { throw NotGranted(result: .mismatch) }
    }
}
