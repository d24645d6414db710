import Foundation
import Logging
import SemelCore
import Testing

@testable import SemelServer

@Suite("JSON logs")
struct JSONLogHandlerTests {
    @Test("an entry is one line: time, level, message, the fixed fields in their order and types, then the others")
    func fields() {
        let log = LogCapture()
        log.logger.warning(
            "It happened.",
            metadata: [
                "zebra": "z", "reason": "why", "duration_ms": "1.5", "epoch": "1700000000000000", "attempt": "2", "status": "201", "step": "complete",
                "operation": "op_1", "scene": "s", "span_id": "b", "trace_id": "a", "degraded": .stringConvertible(true), "apple": ["a", ["b": "c"]],
            ])
        #expect(
            log.lines == [
                #"{"timestamp":"2023-11-14T22:13:20.123Z","level":"warning","message":"It happened.","trace_id":"a","span_id":"b","scene":"s","operation":"op_1","step":"complete","status":201,"attempt":2,"epoch":1700000000000000,"duration_ms":1.5,"degraded":true,"reason":"why","apple":["a",{"b":"c"}],"zebra":"z"}"#
            ])
    }

    @Test("credentials and bodies are never written, and keys only when the configuration says so", arguments: LogConfiguration.Keys.allCases)
    func secrets(_ keys: LogConfiguration.Keys) {
        let log = LogCapture(LogConfiguration(level: .trace, keys: keys))
        log.logger.info(
            "x",
            metadata: [
                "Authorization": "S3CRET", "Set-Cookie": "S3CRET", "request.body": "S3CRET", "token": "S3CRET", "password": "S3CRET",
                "headers": ["Cookie": "S3CRET", "accept": "all"], "key": "k-1", "Idempotency-Key": "k-2",
            ])
        let line = log.lines[0]
        #expect(!line.contains("S3CRET"))
        #expect(line.contains(#""headers":{"accept":"all"}"#))
        #expect(line.contains("k-1") == (keys == .plain))
        #expect(line.contains("k-2") == (keys == .plain))
    }

    @Test("whatever a text holds, the line is valid JSON and stays one line")
    func escaping() throws {
        let log = LogCapture()
        let text = "a\"b\\c\nd\re\tf\u{0}g\u{7F}\u{1B}[31mü€😀\u{2028}"
        log.logger.info("\(text)", metadata: ["na\"me": .string(text), "status": "0x10", "attempt": "+1", "epoch": "nan", "message": "not this one"])
        let line = try #require(log.lines.first)
        #expect(log.lines.count == 1)
        let value = try JSONValue(parsing: Array(line.utf8))
        #expect(value["message"]?.string == text)
        #expect(value["na\"me"]?.string == text)
        #expect(value["status"]?.string == "0x10")
        #expect(value["attempt"]?.string == "+1")
        #expect(value["epoch"]?.string == "nan")
    }

    @Test("a value that is too long is cut")
    func long() {
        let log = LogCapture()
        log.logger.info("\(String(repeating: "ü", count: 100_000))")
        #expect(log.lines[0].utf8.count < 8000)
        #expect(log.lines[0].hasSuffix("…\"}"))
    }

    @Test("fields come from the logger, the provider and the call, the later over the earlier; levels below the set one are silent")
    func sources() {
        let log = LogCapture(LogConfiguration(level: .info), provider: Logger.MetadataProvider { ["b": "provider", "c": "provider"] })
        var logger = log.logger
        logger[metadataKey: "a"] = "logger"
        logger[metadataKey: "b"] = "logger"
        logger.debug("silent")
        logger.info("said", metadata: ["c": "call"])
        #expect(log.lines.count == 1)
        #expect(log.lines[0].hasSuffix(#""a":"logger","b":"provider","c":"call"}"#))
    }

    @Test("lines of many tasks never mix")
    func atomic() async throws {
        let log = LogCapture()
        await withTaskGroup(of: Void.self) { group in
            for task in 0..<8 {
                group.addTask { for number in 0..<200 { log.logger.info("\(task)", metadata: ["n": "\(number)"]) } }
            }
        }
        let lines = log.lines
        #expect(lines.count == 1600)
        for line in lines { _ = try JSONValue(parsing: Array(line.utf8)) }
    }

    @Test("a reader that does not read stops nobody: lines beyond the limit are dropped, and counted")
    func slowReader() async throws {
        let pipe = Pipe()
        let writer = LineWriter(descriptor: pipe.fileHandleForWriting.fileDescriptor)
        let line = Array(repeating: UInt8(ascii: "x"), count: 64 << 10) + [0x0A]
        for _ in 0..<400 { writer.write(line) }
        let reading = Task.detached {
            var text = ""
            while !text.contains("were dropped") {
                let part = pipe.fileHandleForReading.availableData
                if part.isEmpty { break }
                text += String(decoding: part, as: UTF8.self).filter { $0 != "x" && $0 != "\n" }
            }
            return text
        }
        #expect(await reading.value.contains("log lines were dropped"))
    }

    @Test("times are RFC 3339 in UTC with milliseconds", arguments: [(0, "1970-01-01T00:00:00.000Z"), (951_782_400_007, "2000-02-29T00:00:00.007Z"), (-1, "1969-12-31T23:59:59.999Z"), (4_102_444_799_999, "2099-12-31T23:59:59.999Z")] as [(Int64, String)])
    func timestamps(milliseconds: Int64, text: String) {
        #expect(JSONLogHandler.timestamp(milliseconds) == text)
    }
}
