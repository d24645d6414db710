#if Postgres
import Semel
@testable import SemelPostgres
import Testing

@Suite("PostgreSQL keeps house")
struct HousekeepingTests {
    @Test("what has outlived its retentions goes by itself, with two stores open")
    func purgesByItself() async throws {
        var configuration = PostgresStore.Configuration.forTests
        configuration.purgesEvery = .milliseconds(50)
        let place = try await Place(configuration)
        let (first, second) = (try await place.open(), try await place.open())
        for number in 0..<50 {
            let grant = try await first.granted(request(key("\(number)")))
            let brief = Retention(response: .milliseconds(1), key: .milliseconds(1))
            let result = try await first.apply(.complete(outcome("\(number)"), retention: brief), to: key("\(number)"), token: grant.token)
            #expect(result == .applied)
        }
        _ = try await first.granted(request(key("held")))
        let end = ContinuousClock.now + .seconds(120)
        while try await place.run("SELECT count(*)::text FROM {schema}.record") != [["1"]], ContinuousClock.now < end {
            try await Task.sleep(for: .milliseconds(20))
        }
        let left = try await place.run("SELECT count(*)::text FROM {schema}.record")
        #expect(left == [["1"]])
        await first.close()
        await second.close()
        try await place.drop()
    }

    @Test("no part of a password is in what is said of a wrong URL", arguments: [
        "postgres://user:gehe%zzim@host/db", "postgres://user:ge/he@im@host/db?wrong=1", "postgres://user:geheim@host/db?nonsense=1",
    ])
    func passwords(_ url: String) throws {
        let error = #expect(throws: StoreError.self) { try PostgresStore.place(of: url) }
        let text = try #require(error).message
        #expect(!text.contains("gehe") && !text.contains("eim") && !text.contains("he@"), "\(text)")
        #expect(text.contains("%25"))
    }
}
#endif
