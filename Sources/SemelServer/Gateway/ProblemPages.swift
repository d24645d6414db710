internal import SemelHTTP

/// The pages of the problems that have nothing to do with a scene. Those of scenes are `ProblemPage`s.
enum ProblemPages {
    static let prefix = ProblemPage.defaultPrefix

    static func page(_ code: String) -> String? {
        guard let text = pages[code] else { return nil }
        return "# \(code)\n\n`urn:semel:\(code)`\n\n\(text)\n"
    }

    private static let pages = [
        "request-malformed":
            "The bytes are not one HTTP/1.1 request that every server reads in the same way (RFC 9112): two statements of its length, a folded field, a bare carriage return or line feed, a control character, a space before a colon, a malformed chunk, a target that is not a path. Nothing was forwarded, and the connection is closed. Correct the client; a browser or a common library never sends such a request.",
        "request-line-too-long": "The request line is longer than 8 KiB. Nothing was forwarded. Send less in the query, more in the body.",
        "header-too-large": "The header section is larger than 16 KiB. Nothing was forwarded. Send fewer or smaller fields; cookies are the usual cause.",
        "version-unsupported": "The request is of a version of HTTP other than 1.1 and 1.0. Nothing was forwarded.",
        "upgrade-unsupported": "CONNECT and upgrades to other protocols (WebSocket) are not forwarded. Connect to the service itself for these.",
        "path-ambiguous":
            "The path has dot segments, or an encoding that can be read in two ways, so that it is not certain which rules hold for it. Nothing was forwarded. Send the path that is meant, without `.`, `..`, and encoded slashes.",
        "no-route": "No scene matches the request, and no upstream is configured for requests without one (`unmatched`). Nothing was forwarded.",
        "authorization-unavailable":
            "The service that says who may see what (`authorize`) could not be asked, or did not answer with 2xx, 401 or 403. Nothing was run and nothing is shown. Repeat the request later.",
        "unauthenticated":
            "The scene verifies a JSON Web Token (`jwt`), and the request carries none, an expired one, or one of another issuer, audience or key. Nothing was run and nothing is shown. Send a valid token as `Authorization: Bearer`, with the same key.",
        "internal-error": "Semel itself failed to answer. Its log says why.",
    ]
}
