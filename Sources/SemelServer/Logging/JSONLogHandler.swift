internal import Foundation
package import Logging

/// Writes each log entry as one JSON object on one line.
///
/// First `timestamp`, `level` and `message`, then the fields with a fixed meaning (`trace_id` … `reason`), then whatever
/// else was attached, sorted. Numbers and Booleans of the fixed fields are written as such. Values that may hold a secret
/// are left out: request and response bodies, credentials, and the client's key unless `log.keys: plain`.
package struct JSONLogHandler: LogHandler {
    package var logLevel: Logger.Level
    package var metadata: Logger.Metadata = [:]
    package var metadataProvider: Logger.MetadataProvider?
    private let configuration: LogConfiguration
    private let writer: LineWriter
    private let now: @Sendable () -> Int64

    /// - Parameter now: milliseconds since 1970-01-01T00:00:00Z.
    package init(
        _ configuration: LogConfiguration, writer: LineWriter, metadataProvider: Logger.MetadataProvider? = nil,
        now: @escaping @Sendable () -> Int64 = { Int64(Date().timeIntervalSince1970 * 1000) }
    ) {
        logLevel = configuration.level
        self.configuration = configuration
        self.writer = writer
        self.metadataProvider = metadataProvider
        self.now = now
    }

    package subscript(metadataKey key: String) -> Logger.Metadata.Value? {
        get { metadata[key] }
        set { metadata[key] = newValue }
    }

    private static let fixedFields = [
        "trace_id", "span_id", "scene", "operation", "step", "status", "attempt", "epoch", "duration_ms", "degraded", "reason",
    ]
    private static let numberFields: Set<String> = ["status", "attempt", "epoch", "duration_ms"]
    /// Compared in small letters, without `-`, `_` and `.`.
    private static let secretFields: Set<String> = [
        "authorization", "proxyauthorization", "cookie", "setcookie", "body", "requestbody", "responsebody", "outcome", "token", "secret", "password",
        "owner", "apikey", "credentials",
    ]
    private static let keyFields: Set<String> = ["key", "idempotencykey", "operationkey", "clientkey"]
    private static let reserved: Set<String> = ["timestamp", "level", "message", "error"]

    package func log(event: LogEvent) {
        var fields = metadata
        if let provided = metadataProvider?.get() { fields.merge(provided) { $1 } }
        if let attached = event.metadata { fields.merge(attached) { $1 } }

        var line = JSONLine()
        line.add("timestamp", text: Self.timestamp(now()))
        line.add("level", text: event.level.rawValue)
        line.add("message", text: event.message.description)
        for name in Self.fixedFields {
            guard let value = fields.removeValue(forKey: name) else { continue }
            add(name, value, to: &line)
        }
        if let error = event.error { line.add("error", text: "\(error)") }
        for (name, value) in fields.sorted(by: { $0.key < $1.key }) where !Self.reserved.contains(name) && !isSecret(name) {
            line.add(name, value, where: { !isSecret($0) })
        }
        writer.write(line.finished())
    }

    private func add(_ name: String, _ value: Logger.Metadata.Value, to line: inout JSONLine) {
        let text = "\(value)"
        if Self.numberFields.contains(name), JSONLine.isNumber(text) || text == "true" || text == "false" {
            line.add(name, raw: text)
        } else if name == "degraded", text == "true" || text == "false" {
            line.add(name, raw: text)
        } else {
            line.add(name, value, where: { !isSecret($0) })
        }
    }

    private func isSecret(_ name: String) -> Bool {
        let plain = name.lowercased().filter { $0 != "-" && $0 != "_" && $0 != "." }
        return Self.secretFields.contains(plain) || (configuration.keys == .reference && Self.keyFields.contains(plain))
    }

    /// RFC 3339 in UTC, with milliseconds.
    static func timestamp(_ milliseconds: Int64) -> String {
        var seconds = time_t(milliseconds >= 0 ? milliseconds / 1000 : (milliseconds - 999) / 1000)
        var parts = tm()
        gmtime_r(&seconds, &parts)
        func digits(_ number: some BinaryInteger, _ width: Int) -> String {
            let text = String(number)
            return String(repeating: "0", count: max(0, width - text.utf8.count)) + text
        }
        return "\(digits(Int(parts.tm_year) + 1900, 4))-\(digits(parts.tm_mon + 1, 2))-\(digits(parts.tm_mday, 2))T\(digits(parts.tm_hour, 2)):\(digits(parts.tm_min, 2)):\(digits(parts.tm_sec, 2)).\(digits(milliseconds - Int64(seconds) * 1000, 3))Z"
    }
}
