import HTTPTypes
import Testing

@testable import SemelServer

@Suite("Which requests a scene covers")
struct RouteMatchTests {
    @Test(
        "a pattern matches the percent-decoded path, however it is written",
        arguments: [
            ("/v1/payments/**", "/v1/payments/1", true), ("/v1/payments/**", "/v1/payments", true), ("/v1/payments/**", "/v1/payments/1/2/3?x=/", true),
            ("/v1/payments/**", "/v1/%70ayments/1", true), ("/v1/payments/**", "/v1%2Fpayments/1", true), ("/v1/payments/**", "//v1///payments/", true),
            ("/v1/payments/**", "/v1/payments;a=b/1", true), ("/v1/payments/**", "/v1\\payments\\1", true), ("/v1/payments/**", "/v1/paymentsX", false),
            ("/v1/payments/**", "/V1/payments/1", false), ("/v1/*/capture", "/v1/42/capture", true), ("/v1/*/capture", "/v1/42/43/capture", false),
            ("/v1/*/capture", "/v1/capture", false), ("/v1/payments", "/v1/payments/", true), ("/v1/payments", "/v1/payments/1", false), ("/", "/", true),
            ("/**", "/anything/at/all", true),
            // A combining mark does not hide the semicolon, and no other character is one.
            ("/v1/payments/**", "/v1/payments;%CC%81/1", true), ("/v1/payments/**", "/v1/payments%CD%BE/1", false),
            // Two spellings of one character are two paths.
            ("/caf\u{E9}/**", "/caf%C3%A9/1", true), ("/caf\u{E9}/**", "/cafe%CC%81/1", false), ("/K", "/%E2%84%AA", false),
        ])
    func matches(pattern: String, target: String, isMatch: Bool) throws {
        #expect(try PathPattern(pattern).matches(RequestPath(target: target)) == isMatch)
    }

    @Test("dot segments and broken encodings are refused, however they are written", arguments: ["/a/../b", "/a/%2e%2E/b", "/./a", "/a/..;x/b", "/a%2F..%2Fb", "/a/..;%CC%81/b", "/a%zz", "/a%2", "/a%00", "a", "*", ""])
    func refused(target: String) {
        #expect(throws: RequestPathError.self) { try RequestPath(target: target) }
    }

    @Test("methods are compared as they are written")
    func methods() throws {
        let match = RouteMatch(methods: [.post], path: try PathPattern("/a"))
        #expect(match.matches(.post, try RequestPath(target: "/a")))
        #expect(!match.matches(HTTPRequest.Method("post")!, try RequestPath(target: "/a")))
        #expect(!match.matches(.get, try RequestPath(target: "/a")))
    }

    @Test(
        "one pattern covers another only when it matches all that the other does",
        arguments: [
            ("/**", "/a/**", true), ("/a/**", "/a", true), ("/a/*", "/a/b", true), ("/a/b", "/a/*", false), ("/a/*", "/a/**", false), ("/a/**", "/*/b", false),
            ("/*/b", "/a/b", true), ("/a", "/a", true),
        ])
    func covers(wide: String, narrow: String, isCovered: Bool) throws {
        #expect(try PathPattern(wide).covers(PathPattern(narrow)) == isCovered)
    }

    @Test("only loopback addresses are loopback", arguments: [("127.0.0.1:1", true), ("127.8.9.1:1", true), ("[::1]:1", true), ("localhost:1", true), ("0.0.0.0:1", false), ("[::]:1", false), ("10.0.0.1:1", false), ("example.org:1", false)])
    func loopback(address: String, isLoopback: Bool) throws {
        #expect(try #require(ListenAddress(address)).isLoopback == isLoopback)
    }
}
