internal import HTTPTypes

/// Which names belong to values that a retry does not repeat (H31, R4). A key minted anew at each attempt is no key.
///
/// It judges names, so it can only warn: a device's own nonce or an event's own time, sent again as it was, is a fine key.
enum KeyStability {
    private static let unstableWords: Set<String> = [
        "timestamp", "ts", "now", "time", "datetime", "date", "sentat", "requestedat", "createdat", "updatedat", "senttime", "requesttime", "nonce", "random",
        "rand", "salt", "uuid", "guid", "requestid", "requestuuid", "messageid", "correlationid", "traceid", "spanid", "traceparent", "attempt", "attempts",
        "attemptid", "retry", "retries", "retrycount", "attemptnumber",
    ]

    private static let unstableFields: Set<String> = [
        "date", "x-request-id", "request-id", "x-correlation-id", "correlation-id", "x-trace-id", "traceparent", "tracestate", "x-amzn-trace-id", "x-b3-traceid",
        "x-b3-spanid", "x-cloud-trace-context", "x-timestamp", "x-nonce", "x-attempt", "authorization", "cookie", "age", "x-amz-date", "x-retry-count",
    ]

    /// The last name in a selector such as `$.payment.request_id`.
    static func isUnstable(selector: String) -> Bool {
        guard let last = selector.split(whereSeparator: { ".[]'\"$".contains($0) }).last else { return false }
        return unstableWords.contains(last.lowercased().filter { $0.isLetter || $0.isNumber })
    }

    static func isUnstable(field: HTTPField.Name) -> Bool { unstableFields.contains(field.canonicalName) }
}
