import AsyncHTTPClient
import NIOCore
import HTTPTypes
import NIOHTTP1
import NIOSSL
import Semel
import Testing

@testable import SemelServer

@Suite struct AccessTests {
    static let roles = [
        RoleToken(name: "grafana", digest: TokenDigest(of: "viewer-secret"), role: .viewer),
        RoleToken(name: "oncall", digest: TokenDigest(of: "operator-secret"), role: .operator),
    ]
    static let loopback = ListenAddress(host: "127.0.0.1", port: 0)

    @Test("every route asks for what it needs: nothing, a viewer, an operator")
    func matrix() async throws {
        let plane = try ControlPlane.quiet(
            admin: AdminConfiguration(listen: Self.loopback, tokens: Self.roles),
            claims: ClaimsConfiguration(tokens: [ScopeToken(name: "w", digest: TokenDigest(of: "claims-secret"), scopes: .all)]),
            store: MemoryStore())
        try await PlaneUnderTest.run(plane) { plane in
            let operation = "/v1/operations/op_" + String(repeating: "0", count: 32)
            let act: JSONValue = ["resolution": "not-applied", "reason": "r"]
            // Without a token, unknown, of the claims API, viewer, operator.
            let expected: [(HTTPMethod, String, [Int])] = [
                (.GET, "/healthz", [200, 200, 200, 200, 200]), (.GET, "/readyz", [200, 200, 200, 200, 200]),
                (.GET, "/openapi.json", [200, 200, 200, 200, 200]), (.GET, "/", [401, 401, 401, 200, 200]),
                (.GET, "/metrics", [401, 401, 401, 200, 200]), (.GET, "/v1/operations", [401, 401, 401, 200, 200]),
                (.GET, operation, [401, 401, 401, 404, 404]), (.GET, operation + "?include=outcome", [401, 401, 401, 403, 404]),
                (.GET, "/v1/scenes", [401, 401, 401, 200, 200]), (.GET, "/v1/audit", [401, 401, 401, 200, 200]),
                (.GET, "/v1/audit/verify", [401, 401, 401, 200, 200]), (.POST, operation + "/resolve", [401, 401, 401, 403, 404]),
                (.POST, operation + "/forget", [401, 401, 401, 403, 404]), (.POST, "/v1/wait", [401, 401, 200, 401, 401]),
            ]
            for (method, path, statuses) in expected {
                let body: JSONValue = path == "/v1/wait" ? ["scope": "s", "key": "k", "timeout": "0ms"] : path.hasSuffix("forget") ? ["reason": "r"] : act
                for (token, status) in zip([nil, "unknown", "claims-secret", "viewer-secret", "operator-secret"], statuses) {
                    let answer = try await plane.send(method, path, body: method == .POST ? body.serialized() : nil, token: token)
                    #expect(answer.status == status, "\(method) \(path) with \(token ?? "none")")
                }
            }
            // Every route is in the matrix, or is a claims route like `wait`.
            let claims: Set<String> = ["/v1/claim", "/v1/complete", "/v1/suspend", "/v1/renew", "/v1/release"]
            for (_, path, _) in plane.description!.operations where !claims.contains(path) {
                #expect(expected.contains { $0.1.replacing(operation, with: "/v1/operations/{operation}") == path }, "\(path)")
            }
            // What is wrong with a part is not told to strangers.
            #expect(try await plane.get("/readyz")["components"]?[0]?["detail"] == nil)
            #expect(try await plane.get("/readyz", token: "viewer-secret")["components"]?[0]?["detail"] != nil)
        }
    }

    @Test("the audit log names the token's holder, whatever the body says")
    func actor() async throws {
        let plane = try ControlPlane.quiet(admin: AdminConfiguration(listen: Self.loopback, tokens: Self.roles), store: MemoryStore())
        try await PlaneUnderTest.run(plane) { plane in
            for (index, actor) in [nil, "oncall", "root"].enumerated() {
                let token = try await plane.granted("k\(index)")
                #expect(try await plane.complete("k\(index)", token))
                var body = JSONObject()
                body["reason"] = "r"
                body["actor"] = actor.map(JSONValue.string)
                let path = "/v1/operations/\(plane.reference("k\(index)"))/forget"
                #expect(try await plane.post(path, .object(body), token: "viewer-secret").status == 403)
                #expect(try await plane.post(path, .object(body), token: "operator-secret").status == 200)
            }
            let entries = try await plane.get("/v1/audit", token: "viewer-secret")["entries"]?.array
            #expect(entries?.compactMap { $0["actor"]?.string } == ["oncall", "oncall", "oncall (root)"])
        }
    }

    @Test("beyond loopback it does not exist without tokens and TLS", arguments: ["0.0.0.0", "::", "192.0.2.1", "example.com", "127.0.0.1.example.com"])
    func unprotected(host: String) async throws {
        let address = ListenAddress(host: host, port: 0)
        try await withTemporaryFolder { folder in
            let tls = try TestCertificate.write(to: folder)
            for (tokens, tls, missing) in [([], nil, "tokens and TLS"), (Self.roles, nil, "TLS"), ([], tls, "tokens")] as [([RoleToken], TLSFiles?, String)] {
                let error = #expect(throws: ControlPlaneError.self) {
                    try ControlPlane.quiet(admin: AdminConfiguration(listen: address, tokens: tokens, tls: tls), store: MemoryStore())
                }
                #expect(error?.code == .unprotected)
                #expect(error?.problem.contains("without \(missing).") == true)
                #expect(error?.remedy.isEmpty == false)
            }
            _ = try ControlPlane.quiet(admin: AdminConfiguration(listen: address, tokens: Self.roles, tls: tls), store: MemoryStore())
        }
    }

    @Test("without tokens of their own the claims are closed beyond loopback")
    func claimsBeyondLoopback() {
        let control = AccessControl(isLoopback: false, tokens: Self.roles, claimsTokens: [])
        let problem = #expect(throws: APIProblem.self) { try control.authenticate(.claims, [.authorization: "Bearer operator-secret"]) }
        #expect(problem?.code == .forbidden)
    }

    @Test("it is served over TLS with the configured certificate")
    func tls() async throws {
        try await withTemporaryFolder { folder in
            let plane = try ControlPlane.quiet(
                admin: AdminConfiguration(listen: Self.loopback, tokens: Self.roles, tls: try TestCertificate.write(to: folder)), store: MemoryStore())
            var client = TLSConfiguration.makeClientConfiguration()
            client.trustRoots = .certificates([try NIOSSLCertificate(bytes: Array(TestCertificate.certificate.utf8), format: .pem)])
            let https = HTTPClient(eventLoopGroupProvider: .singleton, configuration: .init(tlsConfiguration: client))
            let running = Task { try await plane.run() }
            do {
                let port = try await plane.port()
                var request = HTTPClientRequest(url: "https://localhost:\(port)/v1/scenes")
                request.headers.add(name: "Authorization", value: "Bearer viewer-secret")
                let response = try await https.execute(request, timeout: .seconds(180))
                #expect(response.status == .ok)
                // In the clear there is nothing.
                await #expect(throws: (any Error).self) {
                    _ = try await PlaneUnderTest.client.execute(HTTPClientRequest(url: "http://localhost:\(port)/healthz"), timeout: .seconds(180))
                }
            } catch {
                Issue.record(error)
            }
            running.cancel()
            try await https.shutdown()
            _ = await running.result
        }
    }

    @Test("a certificate that cannot be used is told at once")
    func badCertificate() async throws {
        try await withTemporaryFolder { folder in
            let good = try TestCertificate.write(to: folder)
            for files in [
                TLSFiles(certificate: "\(folder)/none.pem", key: good.key), TLSFiles(certificate: good.certificate, key: good.certificate),
            ] {
                let error = #expect(throws: ControlPlaneError.self) {
                    try ControlPlane.quiet(admin: AdminConfiguration(listen: Self.loopback, tokens: Self.roles, tls: files), store: MemoryStore())
                }
                #expect(error?.code == .certificate)
            }
        }
    }

    @Test("an address in use is a clear error, to whoever runs it and to whoever waits for the port")
    func portInUse() async throws {
        try await withPlane { first in
            let second = try ControlPlane.quiet(
                admin: AdminConfiguration(listen: ListenAddress(host: "127.0.0.1", port: first.port)), store: MemoryStore())
            let error = await #expect(throws: ControlPlaneError.self) { try await second.run() }
            #expect(error?.code == .cannotListen)
            #expect(error?.description.contains("127.0.0.1:\(first.port)") == true)
            await #expect(throws: ControlPlaneError.self) { try await second.port() }
        }
    }

    @Test("tokens are changed without a restart; a change that would open it is refused and changes nothing")
    func reload() async throws {
        let plane = try ControlPlane.quiet(admin: AdminConfiguration(listen: Self.loopback, tokens: Self.roles), store: MemoryStore())
        try await PlaneUnderTest.run(plane) { test in
            #expect(try await test.get("/v1/scenes", token: "viewer-secret").status == 200)
            let new = [RoleToken(name: "new", digest: TokenDigest(of: "new-secret"), role: .viewer)]
            let worker = ScopeToken(name: "w", digest: TokenDigest(of: "w-secret"), scopes: .named(["orders"]))
            try plane.reload(admin: AdminConfiguration(listen: Self.loopback, tokens: new), claims: ClaimsConfiguration(tokens: [worker]))
            #expect(try await test.get("/v1/scenes", token: "viewer-secret").status == 401)
            #expect(try await test.get("/v1/scenes", token: "new-secret").status == 200)
            #expect(try await test.claim("k").status == 401)
            #expect(try await test.claim("k", token: "w-secret")["result"] == "claimed")
            let error = #expect(throws: ControlPlaneError.self) {
                try plane.reload(admin: AdminConfiguration(listen: ListenAddress(host: "0.0.0.0", port: 0)), claims: ClaimsConfiguration())
            }
            #expect(error?.code == .needsRestart)
            #expect(try await test.get("/v1/scenes", token: "new-secret").status == 200)
        }
    }
}
