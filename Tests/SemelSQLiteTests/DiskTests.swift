import ChildProcesses
import FaultyDisk
import Foundation
import Semel
@testable import SemelSQLite
import SemelTesting
import Testing

@Suite("The embedded store on a disk in trouble", .serialized)
struct DiskTests {
    private func onSmallDisk(_ body: (SmallDisk, TemporaryFolder) async throws -> Void) async throws {
        try await SmallDisk.with(megabytes: 24) { disk in try await body(disk, TemporaryFolder(in: disk.folder.path)) }
    }

    @Test("a disk that becomes full in a commit gives up the reserve, and the outcome is recorded (H17)")
    func fullAtCommit() async throws {
        try await onSmallDisk { disk, folder in
            // The first commit is the claim's, the second fails, the third is the second's again.
            let third = Locked(0)
            var environment = Environment.live
            environment.failpoints = Failpoints([.beforeCommit: (3, .call { _ in third.withLock { $0 += 1 } })])
            let store = try await SQLiteStore(path: folder.database, configuration: .init(reserve: 8 << 20), environment: environment)
            let running = try await store.granted(request(key("running")))
            // Enough to go on, and too little for what comes: only the commit can find out.
            try disk.fill(leaving: 3 << 20)

            let large = Outcome(body: .kept(Array(repeating: 7, count: 5 << 20)))
            #expect(try await store.apply(.complete(large), to: key("running"), token: running.token) == .applied)
            #expect(third.withLock { $0 } == 1, "the fault did not come at the commit")
            #expect(!folder.names.contains("store.db-reserve"))
            #expect(try await store.record(of: key("running"))?.outcome == large)
            await #expect { try await store.claim(request(key("new"))) } throws: { ($0 as? StoreError)?.code == .full }
            await store.close()
            let again = try await SQLiteStore(path: folder.database, configuration: .init(reserve: 0))
            #expect(try await again.record(of: key("running"))?.outcome == large)
            await again.close()
        }
    }

    @Test("after a commit that met a full disk, the epochs set apart are written with the next one; and without a reserve claims go on when there is space")
    func epochsAfterFull() async throws {
        try await onSmallDisk { disk, folder in
            let store = try await SQLiteStore(
                path: folder.database, configuration: .init(reserve: 0, migrations: ["CREATE TABLE blob (value BLOB)"]),
                clock: ManualStoreClock())
            try disk.fill(leaving: 1 << 20)
            await #expect { try await store.perform(request(key("large"))) { transaction, _ in
                try transaction.execute("INSERT INTO blob VALUES (zeroblob(4000000))")
                return .commit(outcome(""))
            } } throws: { ($0 as? StoreError)?.code == .full }
            try disk.free()

            let grant = try await store.granted(request(key("new")))
            let stored = try await store.read { try $0.query("SELECT epoch FROM semel_state")[0][0].integer }
            #expect(UInt64(bitPattern: stored ?? 0) >= grant.token.epoch.rawValue)
            await store.close()
        }
    }

    @Test("a sync that fails while the log is emptied to make room stops the store (H16)")
    func failedMakingRoom() async throws {
        _ = faulty_disk_register()
        try await onSmallDisk { disk, folder in
            var configuration = SQLiteStore.Configuration(reserve: 8 << 20)
            configuration.fileSystem = "faulty-disk"
            let store = try await SQLiteStore(path: folder.database, configuration: configuration)
            try await store.finish(key("before"))
            try disk.fill(leaving: 1 << 20)
            faulty_disk_arm(folder.database, CInt(faulty_disk_sync_of_database))
            await #expect { try await store.record(of: key("before")) } throws: { ($0 as? StoreError)?.code == .stopped }
            #expect(faulty_disk_failures() > 0)
            faulty_disk_arm("", 0)
            await store.close()
        }
    }

    @Test("a commit that fails while tidying up stops the store (H16)")
    func failedTidyingUp() async throws {
        let folder = TemporaryFolder()
        _ = faulty_disk_register()
        var configuration = SQLiteStore.Configuration(reserve: 1 << 20)
        configuration.fileSystem = "faulty-disk"
        let opening = Opening(
            place: Place(path: folder.database), configuration: configuration, clock: SystemStoreClock(), environment: .live,
            observations: ObservationRegistry())
        let engine = try opening.open()
        faulty_disk_arm(folder.path, CInt(faulty_disk_sync))
        _ = engine.housekeep {
            try engine.keep(pinned)
        }
        #expect(faulty_disk_failures() > 0)
        faulty_disk_arm("", 0)
        #expect(engine.stopped?.code == .stopped)
        engine.close()
    }

    private static let large = Outcome(body: .kept(Array(repeating: 7, count: 20_000)))

    @Test("a full disk refuses new claims, records what runs from the reserve, and recovers by itself (H17)")
    func full() async throws {
        try await onSmallDisk { disk, folder in
            let store = try await SQLiteStore(path: folder.database, configuration: .init(reserve: 4 << 20))
            try await store.finish(key("before"))
            var running: [(OperationID, Grant)] = []
            for number in 0..<50 {
                let id = key("running-\(number)")
                running.append((id, try await store.granted(request(id))))
            }
            #expect(await store.health().isReady)
            try disk.fill()

            await #expect { try await store.claim(request(key("new"))) } throws: { error in
                (error as? StoreError)?.code == .full && (error as? StoreError)?.message.contains("free some space") == true
            }
            #expect(await store.health().isReady == false)
            // What is known is still answered.
            guard case .completed = try await store.claim(request(key("before"), 2)) else { return _ = Issue.record("not replayed") }
            await #expect { try await store.perform(request(key("atomic"))) { _, _ in .commit(outcome("")) } } throws: { ($0 as? StoreError)?.code == .full }

            // A megabyte of outcomes, a suspension and a release: all recorded, on a disk where nothing fits any more.
            for (id, grant) in running.dropFirst(2) {
                #expect(try await store.apply(.complete(Self.large), to: id, token: grant.token) == .applied)
            }
            #expect(try await store.apply(.suspend(reason: "lost"), to: running[0].0, token: running[0].1.token) == .applied)
            #expect(try await store.apply(.release, to: running[1].0, token: running[1].1.token) == .applied)
            #expect(!folder.names.contains("store.db-reserve"), "the disk was not full enough to need the reserve")

            // A restart changes nothing about it.
            await store.close()
            let second = try await SQLiteStore(path: folder.database, configuration: .init(reserve: 4 << 20))
            await #expect { try await second.claim(request(key("new"))) } throws: { ($0 as? StoreError)?.code == .full }
            for (id, _) in running.dropFirst(2) { #expect(try await second.record(of: id)?.outcome == Self.large) }

            try disk.free()
            _ = try await second.granted(request(key("new")))
            #expect(await second.health().isReady)
            #expect(folder.names.contains("store.db-reserve"))
            await second.close()
        }
    }

    private func faulty(_ folder: TemporaryFolder) async throws -> SQLiteStore {
        _ = faulty_disk_register()
        var configuration = SQLiteStore.Configuration(reserve: 1 << 20)
        configuration.fileSystem = "faulty-disk"
        return try await SQLiteStore(path: folder.database, configuration: configuration)
    }

    @Test("after a failed sync nothing is tried again: the store stands still until it is opened anew (H16)", arguments: [faulty_disk_sync, faulty_disk_write])
    func failedSync(kind: Int) async throws {
        let folder = TemporaryFolder()
        let store = try await faulty(folder)
        try await store.finish(key("before"))
        let running = try await store.granted(request(key("running")))

        faulty_disk_arm(folder.path, CInt(kind))
        await #expect { try await store.apply(.complete(outcome("x")), to: key("running"), token: running.token) } throws: {
            ($0 as? StoreError)?.code == .indeterminate
        }
        #expect(faulty_disk_failures() > 0)
        faulty_disk_arm("", 0)

        // The disk is well again, and the store does not trust it.
        await #expect { try await store.claim(request(key("new"))) } throws: { ($0 as? StoreError)?.code == .stopped }
        await #expect { try await store.record(of: key("before")) } throws: { ($0 as? StoreError)?.code == .stopped }
        let health = await store.health()
        #expect(!health.isReady)
        #expect(health.detail.contains("Check the disk"))
        await store.close()

        let again = try await faulty(folder)
        guard case .completed = try await again.claim(request(key("before"), 2)) else { return _ = Issue.record("an outcome is lost") }
        // Saying the same again finds out, or does it.
        #expect(try await again.apply(.complete(outcome("x")), to: key("running"), token: running.token) == .applied)
        await again.close()
    }

    @Test("a sync that fails while the log is copied into the database stops the store too (H16)")
    func failedCheckpoint() async throws {
        let folder = TemporaryFolder()
        let store = try await faulty(folder)
        let grants = try await store.claim((0..<1000).map { request(key("key-\($0)")) })
        // Only the database file itself is broken, which nothing but a checkpoint syncs.
        let transitions = grants.enumerated().compactMap { number, result -> Transition? in
            guard case .granted(let grant) = result else { return nil }
            return Transition(id: key("key-\(number)"), token: grant.token, change: .complete(Self.large))
        }
        #expect(transitions.count == 1000)
        _ = try await store.record(of: key("key-0"))
        faulty_disk_arm(folder.database, CInt(faulty_disk_sync_of_database))
        #expect(try await store.apply(transitions).allSatisfy { $0 == .applied })
        // The checkpoint comes after the answer and before the next batch.
        await #expect { try await store.claim(request(key("new"))) } throws: { ($0 as? StoreError)?.code == .stopped }
        #expect(faulty_disk_failures() > 0)
        faulty_disk_arm("", 0)
        await store.close()

        let again = try await faulty(folder)
        for number in 0..<1000 { #expect(try await again.record(of: key("key-\(number)"))?.outcome == Self.large) }
        await again.close()
    }

    @Test("a batch that met a full disk is undone in memory as on disk, and outcomes go to the reserve (H17)")
    func fullInCommit() async throws {
        let folder = TemporaryFolder()
        let store = try await faulty(folder)
        let running = try await store.granted(request(key("running")))
        faulty_disk_arm(folder.path, CInt(faulty_disk_full))
        await #expect { try await store.claim(request(key("new"))) } throws: { ($0 as? StoreError)?.code == .full }
        await #expect { try await store.apply(.complete(outcome("x")), to: key("running"), token: running.token) } throws: {
            ($0 as? StoreError)?.code == .full
        }
        #expect(faulty_disk_failures() > 0)
        faulty_disk_arm("", 0)
        #expect(try await store.record(of: key("running"))?.state == .claimed)
        #expect(try await store.record(of: key("new")) == nil)
        #expect(try await store.apply(.complete(outcome("x")), to: key("running"), token: running.token) == .applied)
        _ = try await store.granted(request(key("new"), limit: 1))
        await store.close()
    }
}
