import HTTPTypes
import NIOHTTP1
import Semel
import SemelTesting
import Testing

@testable import SemelServer

// Beyond these, every answer in every test of the control plane is held to the description (PlaneUnderTest.send).
@Suite struct OpenAPITests {
    @Test("every route that is served is described, and every result it describes is really answered", arguments: TriedStore.allCases)
    func complete(kind: TriedStore) async throws {
        let clock = ManualStoreClock()
        try await withPlane(kind, clock: clock) { plane in
            let description = try #require(plane.description)
            let served = Set(plane.plane.table.routes.map { "\($0.method.rawValue) \($0.path)" })
            #expect(served == Set(description.operations.map { "\($0.method) \($0.path)" }))

            // A tour through every route and every form of result.
            let token = try await plane.granted("k", lease: "10s")
            _ = try await plane.claim("k")
            _ = try await plane.claim("k", fingerprint: "other")
            #expect(try await plane.apply("renew", "k", token, ["lease": "10s"]))
            _ = try await plane.wait("k", "0ms")
            #expect(try await plane.complete("k", token))
            _ = try await plane.claim("k")
            _ = try await plane.wait("k", "0ms")
            clock.advance(by: .seconds(2 * 86_400))
            #expect(try await plane.claim("k")["result"] == "expired")
            let lost = try await plane.granted("lost")
            #expect(try await plane.apply("suspend", "lost", lost, ["reason": "r"]))
            _ = try await plane.claim("lost")
            _ = try await plane.granted("short", lease: "50ms")
            clock.advance(by: .seconds(1))
            let reclaimed = try await plane.granted("short")
            #expect(try await plane.apply("release", "short", reclaimed))
            _ = try await plane.post("/v1/claim", ["items": [.claim("x"), 1]])
            _ = try await plane.post("/v1/wait", ["items": [["scope": "s", "key": "k", "timeout": "0ms"], 1]])
            let path = "/v1/operations/\(plane.reference("lost"))"
            for target in [path, path + "?include=outcome", "/v1/operations", "/v1/operations?state=uncertain"] { _ = try await plane.get(target) }
            _ = try await plane.post(path + "/resolve", ["resolution": "applied", "actor": "a", "reason": "r", "outcome": ["body": "AA=="]])
            _ = try await plane.get(path + "?include=outcome")
            _ = try await plane.post(path + "/forget", ["actor": "a", "reason": "r"])
            for target in ["/", "/healthz", "/readyz", "/metrics", "/v1/scenes", "/v1/audit", "/v1/audit/verify", "/openapi.json"] {
                #expect(try await plane.get(target).status == 200)
            }
            let seen = plane.seen.withLock { $0 }
            for (_, _, operation) in description.operations {
                let name = operation["operationId"]?.string ?? ""
                #expect(seen.contains("\(name) 200"), "\(name) was not answered with 200")
            }
        }
    }

    @Test("the document is well made: names are unique, references lead somewhere, path parameters are declared, problems are listed")
    func wellMade() async throws {
        try await withPlane { plane in
            let description = try #require(plane.description)
            #expect(description.document["openapi"] == "3.1.0")
            let names = description.operations.compactMap { $0.operation["operationId"]?.string }
            #expect(Set(names).count == description.operations.count)
            for (_, path, operation) in description.operations {
                let declared = operation["parameters"]?.array?.filter { $0["in"] == "path" }.compactMap { $0["name"]?.string } ?? []
                let used = path.split(separator: "/").filter { $0.hasPrefix("{") }.map { String($0.dropFirst().dropLast()) }
                #expect(declared == used)
                #expect(operation["responses"]?["200"] != nil && operation["responses"]?["500"] != nil)
            }
            let schemas = description.document["components"]?["schemas"]
            func references(_ value: JSONValue) -> [String] {
                (value.object?.members ?? []).flatMap { $0.name == "$ref" ? [$0.value.string ?? ""] : references($0.value) }
                    + (value.array ?? []).flatMap(references)
            }
            let used = Set(references(description.document))
            for reference in used { #expect(schemas?[String(reference.dropFirst("#/components/schemas/".count))] != nil, "\(reference)") }
            for schema in schemas?.object?.members ?? [] { #expect(used.contains("#/components/schemas/\(schema.name)"), "\(schema.name) is not used") }
            let problems = Set(
                description.operations.flatMap { $0.operation["responses"]?.object?.members ?? [] }
                    .flatMap { ($0.value["description"]?.string ?? "").split(whereSeparator: { !$0.isLetter && $0 != "-" }).map(String.init) })
            // 404 and 405 belong to what is not described.
            for code in APIProblem.Code.allCases where code != .notFound && code != .methodNotAllowed {
                #expect(problems.contains(code.rawValue), "\(code.rawValue) is in no description")
            }
        }
    }

    @Test("requests that are described are taken, and what is refused is not described")
    func requests() async throws {
        try await withPlane { plane in
            let description = try #require(plane.description)
            let token = JSONValue.string(String(repeating: "0", count: 48))
            let good: [(String, JSONValue)] = [
                ("/v1/claim", .claim("k")), ("/v1/claim", .claim("k", onLapse: "uncertain", owner: "o")), ("/v1/claim", ["items": [.claim("k")]]),
                ("/v1/complete", ["scope": "s", "key": "k", "token": token, "outcome": ["status": 200, "headers": [["a", "b"]], "body": "AA=="]]),
                ("/v1/complete", ["scope": "s", "key": "k", "token": token, "outcome": [:], "retention": ["response": "1h", "key": "24h"]]),
                ("/v1/suspend", ["scope": "s", "key": "k", "token": token, "reason": "r"]),
                ("/v1/renew", ["scope": "s", "key": "k", "token": token, "lease": "30s"]),
                ("/v1/release", ["scope": "s", "key": "k", "token": token]), ("/v1/wait", ["scope": "s", "key": "k", "timeout": "0ms"]),
            ]
            for (path, body) in good {
                #expect(description.requestViolations("POST", path, body) == [], "\(body)")
                #expect(try await plane.post(path, body).status == 200, "\(body)")
                guard var broken = body.object, broken["items"] == nil else { continue }
                broken["surplus"] = 1
                #expect(description.requestViolations("POST", path, .object(broken)) != [])
                #expect(try await plane.post(path, .object(broken)).status == 400)
                broken["surplus"] = nil
                broken["key"] = nil
                #expect(description.requestViolations("POST", path, .object(broken)) != [])
                #expect(try await plane.post(path, .object(broken)).status == 400)
            }
        }
    }
}
