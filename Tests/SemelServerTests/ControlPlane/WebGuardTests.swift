import NIOHTTP1
import Semel
import Testing

@testable import SemelServer

@Suite struct WebGuardTests {
    @Test("another host's name is refused on loopback, so no web page gets in by its own (DNS rebinding)")
    func hosts() async throws {
        try await withPlane { plane in
            for host in ["localhost", "LOCALHOST", "localhost:\(plane.port)", "127.0.0.1", "127.0.0.1:1", "127.8.9.10", "[::1]:\(plane.port)", "[::1]"] {
                #expect(try await plane.send(.GET, "/healthz", fields: [("Host", host)]).status == 200, "\(host)")
            }
            for host in [
                "evil.example", "evil.example:\(plane.port)", "localhost.evil.example", "127.0.0.1.evil.example", "192.168.0.1", "0.0.0.0",
                "[::2]", "localhost@evil.example", "127.1", "::1:8081x",
            ] {
                for path in ["/healthz", "/v1/operations", "/nowhere"] {
                    let answer = try await plane.send(.GET, path, fields: [("Host", host)])
                    #expect(answer.status == 421 && answer.code == "host-refused", "\(host) \(path)")
                }
            }
            let without = try await rawExchange(port: plane.port, "GET /healthz HTTP/1.0\r\nConnection: close\r\n\r\n")
            #expect(without.hasPrefix("HTTP/1.1 400") || without.hasPrefix("HTTP/1.0 400"))
        }
    }

    @Test("what a web form can send changes nothing: only JSON is taken, and no origin is ever allowed (CSRF)")
    func forms() async throws {
        try await withPlane { plane in
            let body = JSONValue.claim("k").serialized()
            for type in ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "text/json", "application/jsonx", ""] {
                let answer = try await plane.send(.POST, "/v1/claim", body: body, fields: [("Content-Type", type)])
                #expect(answer.status == 415 && answer.code == "content-type-unsupported", "\(type)")
            }
            #expect(try await plane.wait("k", "0ms")["result"] == "absent")
            let preflight = try await plane.send(
                .OPTIONS, "/v1/claim", fields: [("Origin", "https://evil.example"), ("Access-Control-Request-Method", "POST")])
            #expect(preflight.status == 405)
            let answer = try await plane.send(.GET, "/v1/operations", fields: [("Origin", "https://evil.example")])
            for fields in [preflight.fields, answer.fields] {
                #expect(!fields.contains { $0.name.lowercased().hasPrefix("access-control-") })
            }
            #expect(answer.fields.first(name: "Cache-Control") == "no-store")
            #expect(answer.fields.first(name: "X-Content-Type-Options") == "nosniff")
            for type in ["application/json; charset=utf-8", "Application/JSON"] {
                #expect(try await plane.send(.POST, "/v1/claim", body: body, fields: [("Content-Type", type)]).status == 200)
            }
        }
    }

    @Test("an unknown path is a 404, a wrong method a 405 that says which; HEAD is GET without a body")
    func routes() async throws {
        try await withPlane { plane in
            for path in ["/nowhere", "/v1", "/v1/", "/v1/operations/", "/healthz/", "//healthz", "/v1/dead", "/v1/operations/a/b/c", "/%68ealthz"] {
                let answer = try await plane.get(path)
                #expect(answer.status == 404 && answer.code == "not-found", "\(path)")
            }
            for (method, path, allowed) in [
                (.GET, "/v1/claim", "POST"), (.PUT, "/v1/wait", "POST"), (.POST, "/healthz", "GET, HEAD"), (.DELETE, "/v1/operations", "GET, HEAD"),
                (.PATCH, "/v1/operations/x", "GET, HEAD"), (.GET, "/v1/operations/x/resolve", "POST"), (.OPTIONS, "/", "GET, HEAD"),
            ] as [(HTTPMethod, String, String)] {
                let answer = try await plane.send(method, path, body: method == .POST ? [] : nil)
                #expect(answer.status == 405 && answer.code == "method-not-allowed", "\(method) \(path)")
                #expect(answer.fields.first(name: "Allow") == allowed)
            }
            let full = try await plane.get("/v1/scenes")
            let head = try await plane.send(.HEAD, "/v1/scenes")
            #expect(head.status == 200 && head.body.isEmpty)
            #expect(head.fields.first(name: "Content-Length") == String(full.body.count))
            for path in ["/healthz?x=1", "/?x", "/metrics?a=b", "/v1/scenes?x=1", "/openapi.json?x=1", "/readyz?x=1"] {
                #expect(try await plane.get(path).status == 400, "\(path)")
            }
        }
    }

    @Test("the page shows who waits, as text: no key of a stranger becomes markup")
    func page() async throws {
        try await withPlane { plane in
            #expect(try await plane.get("/").text.contains("<p>None.</p>"))
            let key = "<script>alert('x')</script>&\"quoted\""
            let token = try await plane.granted(key)
            #expect(try await plane.apply("suspend", key, token, ["reason": "<img src=x onerror=alert(1)>"]))
            let page = try await plane.get("/")
            #expect(page.status == 200)
            #expect(page.fields.first(name: "Content-Type") == "text/html; charset=utf-8")
            #expect(page.fields.first(name: "Content-Security-Policy")?.hasPrefix("default-src 'none'") == true)
            #expect(!page.text.contains("<script") && !page.text.contains("<img"))
            #expect(page.text.contains("&lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt;&amp;&quot;quoted&quot;"))
            #expect(page.text.contains(plane.reference(key)))
        }
    }
}
