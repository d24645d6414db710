#if canImport(Glibc)
internal import Glibc
#elseif canImport(Darwin)
internal import Darwin
#endif

/// The bytes of an IPv4 or IPv6 address. An IPv4 address mapped into IPv6 is the IPv4 address.
package struct IPAddress: Hashable, Sendable {
    package let bytes: [UInt8]

    package init?(_ text: String) {
        var four = in_addr()
        if inet_pton(AF_INET, text, &four) == 1 {
            bytes = withUnsafeBytes(of: &four) { Array($0) }
            return
        }
        var six = in6_addr()
        guard inet_pton(AF_INET6, text, &six) == 1 else { return nil }
        let all = withUnsafeBytes(of: &six) { Array($0) }
        let mappedPrefix: [UInt8] = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xFF, 0xFF]
        bytes = all.starts(with: mappedPrefix) ? Array(all.suffix(4)) : all
    }
}

/// A range of addresses in CIDR notation (RFC 4632, RFC 4291): `10.0.0.0/8`, `fd00::/8`, or one address.
package struct AddressRange: Hashable, Sendable {
    package let address: IPAddress
    package let prefixLength: Int

    package init?(_ text: String) {
        let parts = text.split(separator: "/", maxSplits: 1, omittingEmptySubsequences: false)
        guard let address = IPAddress(String(parts[0])) else { return nil }
        let width = address.bytes.count * 8
        guard let length = parts.count == 1 ? width : Int(parts[1]), (0...width).contains(length) else { return nil }
        self.address = address
        prefixLength = length
    }

    package static let loopback = [AddressRange("127.0.0.0/8")!, AddressRange("::1")!]

    /// Whether the address, given as text, is in the range; text that is no address never is.
    package func contains(_ text: String) -> Bool {
        guard let other = IPAddress(text), other.bytes.count == address.bytes.count else { return false }
        for (index, (mine, theirs)) in zip(address.bytes, other.bytes).enumerated() {
            let bits = min(8, max(0, prefixLength - index * 8))
            let mask = UInt8(truncatingIfNeeded: 0xFF00 >> bits)
            guard mine & mask == theirs & mask else { return false }
        }
        return true
    }
}
