import SemelCore
import Testing

@Suite("Length-prefixed parts and their digests")
struct DigestTests {
    @Test("SHA-256 gives the published digests (FIPS 180-4)", arguments: [
        ("", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"),
        ("abc", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"),
    ])
    func published(text: String, hexadecimal: String) {
        #expect(Digest256(hashing: Array(text.utf8)).description == hexadecimal)
    }

    @Test("bytes and hexadecimal digits give the same digest back")
    func roundTrip() throws {
        var random = SeededRandom.fresh()
        for _ in 0..<100 {
            let bytes = random.bytes(count: 32)
            let fingerprint = try #require(Fingerprint(bytes: bytes))
            #expect(fingerprint.bytes == bytes)
            #expect(Fingerprint(hexadecimal: fingerprint.description) == fingerprint)
            #expect(Fingerprint(hexadecimal: fingerprint.description.uppercased()) == fingerprint)
        }
    }

    @Test("a digest of any length but 32 bytes, or with other digits, is refused", arguments: [0, 1, 16, 31, 33, 64])
    func wrongLength(count: Int) {
        #expect(Fingerprint(bytes: [UInt8](repeating: 1, count: count)) == nil)
        #expect(Fingerprint(hexadecimal: String(repeating: "a", count: 2 * count)) == nil)
        #expect(Fingerprint(hexadecimal: String(repeating: "a", count: 63) + "g") == nil)
        #expect(Fingerprint(hexadecimal: String(repeating: "a", count: 62) + "é") == nil)
    }

    @Test("two digests that differ in any one bit are different")
    func everyBitCounts() throws {
        let bytes = Digest256(hashing: [1]).bytes
        let original = try #require(Digest256(bytes: bytes))
        for bit in 0..<256 {
            var other = bytes
            other[bit / 8] ^= 1 << (bit % 8)
            #expect(try #require(Digest256(bytes: other)) != original, "bit \(bit)")
        }
    }

    @Test("identities that agree in a prefix of their digest stay apart (H29, R15)")
    func noTruncation() throws {
        // The naive identity is the first 24 bits of a digest; a few thousand identities are enough for two to agree.
        var seen: [ArraySlice<UInt8>: Int] = [:]
        var collision: (Int, Int)?
        for number in 0..<200_000 {
            let prefix = Fingerprint(of: Array("order-\(number)".utf8)).bytes.prefix(3)
            if let other = seen.updateValue(number, forKey: prefix) {
                collision = (other, number)
                break
            }
        }
        let (first, second) = try #require(collision)
        let left = Fingerprint(of: Array("order-\(first)".utf8))
        let right = Fingerprint(of: Array("order-\(second)".utf8))
        #expect(left.bytes.prefix(3) == right.bytes.prefix(3))
        #expect(left != right)
        #expect(Set([left, right]).count == 2)
    }

    private func digest(_ parts: [String?]) -> Digest256 {
        var list = LengthPrefixed(purpose: "test")
        for part in parts { list.append(part) }
        return Digest256(hashing: list)
    }

    @Test("however the same characters are cut into parts, the digests differ (H30)")
    func boundaries() {
        let lists: [[String?]] = [
            ["ab", "c"], ["a", "bc"], ["abc"], ["abc", ""], ["", "abc"], ["a:b", "c"], ["a", "b:c"], ["abc", nil], [nil, "abc"],
            [], [""], [nil], ["", ""], [nil, nil], ["\u{1}\u{1}a"], ["\0"], ["\0\0"],
        ]
        #expect(Set(lists.map(digest)).count == lists.count)
    }

    @Test("random lists have equal encodings only if they are equal (H30)")
    func injective() {
        var random = SeededRandom.fresh()
        var seen: [LengthPrefixed: [String?]] = [:]
        for _ in 0..<5_000 {
            let parts: [String?] = (0..<Int.random(in: 0...4, using: &random)).map { _ in
                Int.random(in: 0..<5, using: &random) == 0
                    ? nil
                    : String((0..<Int.random(in: 0...3, using: &random)).map { _ in "a:\0\u{1}".randomElement(using: &random)! })
            }
            var list = LengthPrefixed(purpose: "test")
            for part in parts { list.append(part) }
            if let other = seen.updateValue(parts, forKey: list) {
                #expect(other == parts, "seed \(random.seed)")
            }
        }
    }

    @Test("Unicode and case variants are different identities (H27)")
    func byteExact() {
        let composed = "caf\u{E9}", decomposed = "cafe\u{301}"
        // Swift's own text comparison takes these two for equal; an identity must not.
        #expect(composed == decomposed)
        #expect(digest([composed]) != digest([decomposed]))
        #expect(Set(["key", "KEY", "Key", "ｋｅｙ", "key ", "ke\u{200B}y"].map { digest([$0]) }).count == 6)
    }

    @Test("lists made for different purposes never meet")
    func purposes() {
        var left = LengthPrefixed(purpose: "one"), right = LengthPrefixed(purpose: "two")
        left.append("same")
        right.append("same")
        #expect(Digest256(hashing: left) != Digest256(hashing: right))
    }
}
