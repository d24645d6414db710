import Foundation
import Semel
import SemelSQLite

// store-worker: opens an embedded store and works on it until it is killed, telling on standard output what was
// acknowledged, one line each, at once. For tests that kill it.
//
// usage: store-worker <database> hold            opens, says "open", and stays
//        store-worker <database> work <callers>  claims and completes fresh keys, saying "claimed N EPOCH", "completed N"

func say(_ line: String) {
    let bytes = Array((line + "\n").utf8)
    _ = bytes.withUnsafeBytes { write(STDOUT_FILENO, $0.baseAddress, $0.count) }
}

let arguments = CommandLine.arguments
guard arguments.count >= 3 else {
    say("usage: store-worker <database> hold | work <callers>")
    exit(2)
}
do {
    let store = try await SQLiteStore(path: arguments[1], configuration: .init(reserve: 1 << 20))
    say("open")
    switch arguments[2] {
    case "work":
        let policy = PinnedPolicy(scene: "work", text: "work")
        let callers = arguments.count > 3 ? Int(arguments[3]) ?? 1 : 1
        try await withThrowingTaskGroup(of: Void.self) { group in
            for caller in 0..<callers {
                group.addTask {
                    var generator = SystemRandomNumberGenerator()
                    for number in stride(from: caller, to: .max, by: callers) {
                        let id = OperationID(scope: Scope("worker"), key: try OperationKey("key-\(number)"))
                        let request = ClaimRequest(
                            id: id, fingerprint: Fingerprint(of: Array("same".utf8)), owner: Owner(using: &generator),
                            lease: .seconds(30), onLapse: .uncertain, policy: policy)
                        guard case .granted(let grant) = try await store.claim(request) else { fatalError("key-\(number) was not granted") }
                        say("claimed \(number) \(grant.token.epoch)")
                        let outcome = Outcome(body: .kept(Array("outcome \(number)".utf8)))
                        guard try await store.apply(.complete(outcome), to: id, token: grant.token) == .applied else {
                            fatalError("key-\(number) was not completed")
                        }
                        say("completed \(number)")
                    }
                }
            }
            try await group.waitForAll()
        }
    default:
        while true { try await Task.sleep(for: .seconds(3600)) }
    }
} catch {
    say("refused \(error)")
    exit(1)
}
