import Foundation
import Semel
@testable import SemelRedis
import Testing

@Suite("The parser of Redis' protocol")
struct RESPParserTests {
    private func parse(_ text: String) throws(RESPError) -> [RESPValue] {
        var parser = RESPParser()
        parser.append(Array(text.utf8))
        var values: [RESPValue] = []
        while let value = try parser.next() { values.append(value) }
        return values
    }

    @Test("reads every kind of value")
    func readsEveryKind() throws {
        let text =
            "+OK\r\n-ERR no\r\n:-42\r\n$3\r\nabc\r\n$-1\r\n*2\r\n:1\r\n*0\r\n*-1\r\n_\r\n#t\r\n,1.5\r\n(123456789012345678901234567890\r\n"
            + "!5\r\nERR x\r\n=7\r\ntxt:abc\r\n%1\r\n+k\r\n:1\r\n~1\r\n:2\r\n>2\r\n+message\r\n+x\r\n|1\r\n+ttl\r\n:9\r\n:7\r\n"
        #expect(
            try parse(text) == [
                .simple("OK"), .error("ERR no"), .integer(-42), .bulk(Array("abc".utf8)), .null, .array([.integer(1), .array([])]),
                .null, .null, .boolean(true), .double(1.5), .bigNumber("123456789012345678901234567890"), .error("ERR x"),
                .bulk(Array("abc".utf8)), .map([.simple("k"), .integer(1)]), .set([.integer(2)]),
                .push([.simple("message"), .simple("x")]),
                .integer(7),
            ])
    }

    @Test("reads the same values however the bytes arrive", arguments: 0..<50)
    func readsInPieces(_ seed: UInt64) throws {
        var random = Seeded(seed)
        let values = (0..<20).map { _ in Self.value(depth: 3, &random) }
        let bytes = values.flatMap(Self.encode)
        var parser = RESPParser()
        var read: [RESPValue] = []
        var rest = bytes[...]
        while !rest.isEmpty {
            let piece = rest.prefix(Int.random(in: 1...40, using: &random))
            rest = rest.dropFirst(piece.count)
            parser.append(piece)
            while let value = try parser.next() { read.append(value) }
        }
        #expect(read == values)
        #expect(parser.pending == 0)
    }

    @Test("never traps, whatever the bytes", arguments: 0..<200)
    func neverTraps(_ seed: UInt64) {
        var random = Seeded(seed)
        for _ in 0..<50 {
            var bytes = (0..<4).map { _ in Self.value(depth: 3, &random) }.flatMap(Self.encode)
            for _ in 0..<Int.random(in: 1...6, using: &random) where !bytes.isEmpty {
                let place = Int.random(in: 0..<bytes.count, using: &random)
                switch Int.random(in: 0..<4, using: &random) {
                case 0: bytes[place] = UInt8.random(in: 0...255, using: &random)
                case 1: bytes.remove(at: place)
                case 2: bytes.insert(Array("$*:-+%~>|0123456789\r\n".utf8).randomElement(using: &random)!, at: place)
                default: bytes.removeSubrange(place...)
                }
            }
            var parser = RESPParser()
            parser.append(bytes)
            do {
                while let value = try parser.next() { withExtendedLifetime(value) {} }
            } catch {
                #expect(!error.description.isEmpty)
            }
        }
    }

    @Test(
        "refuses what is no protocol or too large, without taking memory for what is only claimed",
        arguments: [
            "$999999999999\r\n", "*999999999\r\n", "$-2\r\n", ":12a\r\n", ":\r\n", "\r\n", "?x\r\n", "#x\r\n", ",abc\r\n", "$3\r\nabcd\r\n",
            ":99999999999999999999\r\n", "=2\r\nab\r\n", "*-2\r\n", String(repeating: "*1\r\n", count: 40),
            "+" + String(repeating: "a", count: 70_000),
            "%4000000\r\n",
        ])
    func refuses(_ text: String) {
        #expect(throws: RESPError.self) { try parse(text) }
    }

    @Test("reads the smallest and the largest integer")
    func readsExtremes() throws {
        #expect(try parse(":-9223372036854775808\r\n:9223372036854775807\r\n") == [.integer(.min), .integer(.max)])
    }

    @Test("commands are arrays of strings, of any bytes and lengths")
    func writesCommands() throws {
        var command = RedisCommand(arguments: 3)
        command.add("SET")
        command.add([0, 13, 10, 255])
        command.add(String(repeating: "x", count: 1234))
        var parser = RESPParser()
        parser.append(command.bytes)
        #expect(
            try parser.next()
                == .array([.bulk(Array("SET".utf8)), .bulk([0, 13, 10, 255]), .bulk(Array(String(repeating: "x", count: 1234).utf8))]))
    }

    @Test("slots are those that the cluster's specification names")
    func slots() {
        #expect(HashSlot.crc16(Array("123456789".utf8)) == 0x31C3)
        #expect(HashSlot(of: "foo").number == 12182)
        #expect(HashSlot(of: "{user1000}.following") == HashSlot(of: "{user1000}.followers"))
        #expect(HashSlot(of: "foo{}{bar}") != HashSlot(of: "bar"))
        #expect(HashSlot(of: "foo{{bar}}zap") == HashSlot(of: "{bar"))
        #expect(HashSlot(of: "foo{bar}{zap}") == HashSlot(of: "bar"))
    }

    @Test("each bucket has a part of the slots of its own")
    func buckets() {
        let parts = KeySpace.tags.map { Int(HashSlot(of: $0).number) / 64 }
        #expect(parts == Array(0..<256))
        // Keys are found by them: these must be the same in all versions.
        #expect(Array(KeySpace.tags[..<4]) == ["460", "14", "278", "10"])
        #expect(KeySpace.tags.map(\.count).max()! <= 3)
    }

    // MARK: Values

    private static func value(depth: Int, _ random: inout Seeded) -> RESPValue {
        let scalars: [RESPValue] = [
            .simple("OK"), .error("ERR \(random.next())"), .integer(Int64(bitPattern: random.next())), .null, .boolean(true), .double(0.25),
            .bigNumber("-12345678901234567890"),
            .bulk((0..<Int.random(in: 0...40, using: &random)).map { _ in .random(in: 0...255, using: &random) }),
        ]
        guard depth > 0, Int.random(in: 0..<3, using: &random) == 0 else { return scalars.randomElement(using: &random)! }
        let elements = (0..<Int.random(in: 0...4, using: &random)).map { _ in value(depth: depth - 1, &random) }
        switch Int.random(in: 0..<4, using: &random) {
        case 0: return .array(elements)
        case 1: return .push(elements)
        case 2: return .map(elements + elements)
        default: return .set(elements)
        }
    }

    private static func encode(_ value: RESPValue) -> [UInt8] {
        func all(_ sign: String, _ elements: [RESPValue], _ divisor: Int = 1) -> [UInt8] {
            Array("\(sign)\(elements.count / divisor)\r\n".utf8) + elements.flatMap(encode)
        }
        return switch value {
        case .simple(let text): Array("+\(text)\r\n".utf8)
        case .error(let text): Array("-\(text)\r\n".utf8)
        case .integer(let number): Array(":\(number)\r\n".utf8)
        case .bulk(let bytes): Array("$\(bytes.count)\r\n".utf8) + bytes + Array("\r\n".utf8)
        case .null: Array("_\r\n".utf8)
        case .boolean(let flag): Array("#\(flag ? "t" : "f")\r\n".utf8)
        case .double(let number): Array(",\(number)\r\n".utf8)
        case .bigNumber(let text): Array("(\(text)\r\n".utf8)
        case .array(let elements): all("*", elements)
        case .push(let elements): all(">", elements)
        case .set(let elements): all("~", elements)
        case .map(let elements): all("%", elements, 2)
        }
    }
}

/// SplitMix64 (Steele, Lea, Flood 2014): the same numbers from the same seed.
struct Seeded: RandomNumberGenerator {
    private var state: UInt64

    init(_ seed: UInt64) { state = seed }

    mutating func next() -> UInt64 {
        state &+= 0x9e37_79b9_7f4a_7c15
        var mixed = state
        mixed = (mixed ^ (mixed >> 30)) &* 0xbf58_476d_1ce4_e5b9
        mixed = (mixed ^ (mixed >> 27)) &* 0x94d0_49bb_1331_11eb
        return mixed ^ (mixed >> 31)
    }
}
