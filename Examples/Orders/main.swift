// 1. Orders: a function that takes effect once, together with the service's own tables (level `atomic`).
//
//     swift run orders [FILE]
//     swift run orders --own-driver [FILE]
//
// Run it twice: the second run replays what the first one did. The second form does the same in a transaction of a driver
// of its own (OwnDriver.swift).

import Foundation
import Semel
import SemelSQLite

struct Order: Codable {
    var article: String
    var count: Int
}

let arguments = CommandLine.arguments.dropFirst()
if arguments.first == "--own-driver" {
    try await ordersOnOwnDriver(path: arguments.dropFirst().first ?? "orders-own-driver.db")
    exit(0)
}
let path = arguments.first ?? "orders.db"
let store = try await SQLiteStore(
    path: path,
    configuration: .init(migrations: [
        "CREATE TABLE stock (article TEXT PRIMARY KEY, available INTEGER NOT NULL)",
        "INSERT INTO stock VALUES ('lamp', 10)",
    ]))
let orders = try Operations(store: store).scene(Policy(scene: "order", effect: .localTransaction, minimum: .atomic))

for (key, order) in [
    ("order-1", Order(article: "lamp", count: 3)), ("order-2", Order(article: "lamp", count: 9)),
    ("order-1", Order(article: "lamp", count: 3)),
] {
    do {
        let left = try await orders.perform(key, payload: order, inTransactionOf: store) { transaction in
            let changed = try transaction.execute(
                "UPDATE stock SET available = available - ?1 WHERE article = ?2 AND available >= ?1", .integer(Int64(order.count)),
                .text(order.article))
            guard changed == 1 else { throw PermanentFailure(code: "sold-out", message: "fewer than \(order.count) of \(order.article)") }
            return try transaction.query("SELECT available FROM stock WHERE article = ?1", .text(order.article))[0][0].integer
        }
        switch left {
        case .performed(let left, _): print("\(key): ordered, \(left ?? 0) left")
        case .replayed(let left, _): print("\(key): ordered before, \(left ?? 0) were left")
        }
    } catch let failure as PermanentFailure {
        print("\(key): \(failure)")
    }
}
await store.close()
