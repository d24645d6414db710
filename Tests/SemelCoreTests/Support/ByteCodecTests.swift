import SemelCore
import Testing

@Suite("Stored bytes")
struct ByteCodecTests {
    @Test("CRC-32C gives the published check values (RFC 3720 appendix B.4)", arguments: [
        (Array("123456789".utf8), 0xE306_9283),
        ([UInt8](repeating: 0, count: 32), 0x8A91_36AA),
        ([UInt8](repeating: 0xFF, count: 32), 0x62A8_AB43),
        (Array(0..<32), 0x46DD_794E),
        (Array((0..<32).reversed()), 0x113F_DB5C),
        ([], 0),
    ] as [([UInt8], UInt32)])
    func publishedChecksums(bytes: [UInt8], expected: UInt32) {
        #expect(CRC32C.checksum(of: bytes) == expected)
    }

    @Test("CRC-32C in pieces equals CRC-32C at once, whatever the cut")
    func checksumInPieces() {
        var random = SeededRandom.fresh()
        let bytes = random.bytes(count: 75)
        let whole = CRC32C.checksum(of: bytes)
        for cut in 0...bytes.count {
            var checksum = CRC32C()
            bytes.withUnsafeBytes { all in
                checksum.update(UnsafeRawBufferPointer(rebasing: all[..<cut]))
                checksum.update(UnsafeRawBufferPointer(rebasing: all[cut...]))
            }
            #expect(checksum.value == whole, "seed \(random.seed), cut at \(cut)")
        }
    }

    @Test("what the writer wrote, the reader reads back")
    func roundTrip() throws {
        let varints: [UInt64] = [0, 1, 127, 128, 16_383, 16_384, 1 << 32, (1 << 63) - 1, 1 << 63, .max]
        var writer = ByteWriter()
        writer.write(UInt8(200))
        writer.write(Int16(-2))
        writer.write(UInt32(0xDEAD_BEEF))
        writer.write(Int64.min)
        writer.write(true)
        writer.write(false)
        for value in varints { writer.writeVarint(value) }
        writer.writeLengthPrefixed("")
        writer.writeLengthPrefixed("naïve 😀\0")
        writer.writeLengthPrefixed([UInt8](repeating: 7, count: 300))
        writer.writeOptional(nil as String?) { $0.writeLengthPrefixed($1) }
        writer.writeOptional("") { $0.writeLengthPrefixed($1) }
        writer.writeRaw([1, 2, 3])

        var reader = ByteReader(writer.bytes)
        #expect(try reader.read(UInt8.self) == 200)
        #expect(try reader.read(Int16.self) == -2)
        #expect(try reader.read(UInt32.self) == 0xDEAD_BEEF)
        #expect(try reader.read(Int64.self) == .min)
        #expect(try reader.readFlag() == true)
        #expect(try reader.readFlag() == false)
        for value in varints { #expect(try reader.readVarint() == value) }
        #expect(try reader.readLengthPrefixedText() == "")
        #expect(try reader.readLengthPrefixedText() == "naïve 😀\0")
        #expect(try reader.readLengthPrefixed().count == 300)
        #expect(try reader.readOptional { r throws(ByteReaderError) in try r.readLengthPrefixedText() } == nil)
        #expect(try reader.readOptional { r throws(ByteReaderError) in try r.readLengthPrefixedText() } == "")
        #expect(throws: ByteReaderError.self) { try reader.finish() }
        #expect(try reader.readRaw(count: 3) == [1, 2, 3])
        try reader.finish()
    }

    @Test("integers are little-endian, so a file moves between machines")
    func byteOrder() {
        var writer = ByteWriter()
        writer.write(UInt32(0x0403_0201))
        #expect(writer.bytes == [1, 2, 3, 4])
    }

    @Test("a varint has one encoding only: longer ones and those beyond 64 bits are refused", arguments: [
        ([0x80, 0x00], .varintNotShortest),
        ([0xFF, 0x80, 0x00], .varintNotShortest),
        ([0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0x02], .varintTooLarge),
        ([0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x01], .varintTooLarge),
        ([0x80], .truncated(needed: 1, available: 0)),
        ([], .truncated(needed: 1, available: 0)),
    ] as [([UInt8], ByteReaderError.Reason)])
    func strictVarints(bytes: [UInt8], reason: ByteReaderError.Reason) {
        var reader = ByteReader(bytes)
        let error = #expect(throws: ByteReaderError.self) { _ = try reader.readVarint() }
        #expect(error?.reason == reason)
    }

    @Test("a length that the input only claims is refused without reserving memory for it")
    func claimedLength() {
        var writer = ByteWriter()
        writer.writeVarint(.max)
        writer.writeRaw([1])
        var reader = ByteReader(writer.bytes)
        let error = #expect(throws: ByteReaderError.self) { _ = try reader.readLengthPrefixed() }
        #expect(error?.reason == .truncated(needed: .max, available: 1))
    }

    @Test("a text that is not UTF-8 and a flag that is neither 0 nor 1 are refused, not repaired")
    func noRepair() {
        var text = ByteReader([2, 0xC3, 0x28])
        #expect(throws: ByteReaderError.self) { _ = try text.readLengthPrefixedText() }
        var flag = ByteReader([2])
        let error = #expect(throws: ByteReaderError.self) { _ = try flag.readFlag() }
        #expect(error?.reason == .invalidFlag(2))
    }

    @Test("random bytes never trap the reader")
    func randomBytes() {
        var random = SeededRandom.fresh()
        for _ in 0..<5_000 {
            var reader = ByteReader(random.bytes(count: .random(in: 0...24, using: &random))[...])
            while reader.remaining > 0 {
                let before = reader.remaining
                switch Int.random(in: 0..<5, using: &random) {
                case 0: _ = try? reader.readVarint()
                case 1: _ = try? reader.readLengthPrefixed()
                case 2: _ = try? reader.readLengthPrefixedText()
                case 3: _ = try? reader.read(Int64.self)
                default: _ = try? reader.readFlag()
                }
                if reader.remaining == before { break }
            }
        }
    }
}

@Suite("The envelope of a stored record")
struct ChecksummedFrameTests {
    static let payloads: [[UInt8]] = [[], [0], Array("an outcome".utf8), [UInt8](repeating: 0, count: 200), Array(0..<180)]

    @Test("a frame opens to what was sealed", arguments: payloads)
    func opens(payload: [UInt8]) throws {
        let frame = try ChecksummedFrame(opening: ChecksummedFrame.seal(version: 3, payload: payload))
        #expect(frame.version == 3)
        #expect(Array(frame.payload) == payload)
    }

    @Test("a frame opens from the middle of a larger buffer")
    func opensSlice() throws {
        let sealed = ChecksummedFrame.seal(version: 1, payload: Array("inside".utf8))
        let buffer = [9, 9, 9] + sealed + [9]
        let frame = try ChecksummedFrame(opening: buffer[3..<3 + sealed.count])
        #expect(Array(frame.payload) == Array("inside".utf8))
    }

    @Test("a frame truncated at any byte is refused (H19)", arguments: payloads)
    func truncation(payload: [UInt8]) {
        let sealed = ChecksummedFrame.seal(version: 1, payload: payload)
        for length in 0..<sealed.count {
            #expect(throws: ChecksummedFrameError.self, "\(length) of \(sealed.count) bytes") {
                _ = try ChecksummedFrame(opening: sealed[..<length])
            }
        }
    }

    @Test("a frame with any one bit flipped is refused (H19)", arguments: payloads)
    func bitFlips(payload: [UInt8]) {
        let sealed = ChecksummedFrame.seal(version: 1, payload: payload)
        for bit in 0..<sealed.count * 8 {
            var damaged = sealed
            damaged[bit / 8] ^= 1 << (bit % 8)
            #expect(throws: ChecksummedFrameError.self, "bit \(bit) of \(sealed.count * 8)") {
                _ = try ChecksummedFrame(opening: damaged)
            }
        }
    }

    @Test("a frame whose tail was never written (zeros) is refused (H19)", arguments: payloads)
    func zeroedTail(payload: [UInt8]) {
        let sealed = ChecksummedFrame.seal(version: 1, payload: payload)
        for kept in 0..<sealed.count {
            let torn = sealed[..<kept] + [UInt8](repeating: 0, count: sealed.count - kept)
            if torn.elementsEqual(sealed) { continue }
            #expect(throws: ChecksummedFrameError.self) { _ = try ChecksummedFrame(opening: Array(torn)) }
        }
    }

    @Test("bytes after a frame, zeroed storage and version 0 are refused")
    func notAFrame() {
        let sealed = ChecksummedFrame.seal(version: 1, payload: [1])
        #expect(throws: ChecksummedFrameError.self) { _ = try ChecksummedFrame(opening: sealed + [0]) }
        for count in 0...40 {
            #expect(throws: ChecksummedFrameError.self) {
                _ = try ChecksummedFrame(opening: [UInt8](repeating: 0, count: count))
            }
        }
        var writer = ByteWriter()
        writer.write(UInt8(0))
        writer.writeLengthPrefixed([1])
        writer.write(CRC32C.checksum(of: writer.bytes))
        #expect(throws: ChecksummedFrameError.unknownVersion(0)) { _ = try ChecksummedFrame(opening: writer.bytes) }
    }
}
