/// A decimal number taken apart into its sign, its significant digits and the place of its point, to be written in the
/// one notation that ECMAScript (Number::toString) gives it and RFC 8785 §3.2.2.3 prescribes.
struct DecimalNotation {
    private var isNegative = false
    /// Significant digits in ASCII, without zeros at either end; none for zero.
    private var digits: [UInt8] = []
    /// The value is 0.d₁d₂d₃… × 10^exponent.
    private var exponent = 0

    /// Takes a valid lexeme apart: one of RFC 8259, or what `Double.description` gives for a finite number.
    init(_ lexeme: some Sequence<UInt8>) {
        var pointSeen = false
        var written: Int?
        var writtenNegative = false
        for byte in lexeme {
            switch byte {
            case UInt8(ascii: "-"):
                if written == nil { isNegative = true } else { writtenNegative = true }
            case UInt8(ascii: "+"): break
            case UInt8(ascii: "."): pointSeen = true
            case UInt8(ascii: "e"), UInt8(ascii: "E"): written = 0
            default:
                let digit = byte - UInt8(ascii: "0")
                if let exponent = written {
                    // Saturates: with such an exponent only a zero is in the range of a double.
                    written = min(exponent * 10 + Int(digit), 1 << 50)
                } else if digit == 0, digits.isEmpty {
                    if pointSeen { exponent -= 1 }
                } else {
                    digits.append(byte)
                    if !pointSeen { exponent += 1 }
                }
            }
        }
        exponent += writtenNegative ? -(written ?? 0) : written ?? 0
        while digits.last == UInt8(ascii: "0") { digits.removeLast() }
        // Minus zero is zero.
        if digits.isEmpty { isNegative = false }
    }

    /// The notation of ECMAScript, whatever the number of digits: plain below 10²¹ and from 10⁻⁶ on, else with an exponent.
    var ecmaScript: [UInt8] {
        guard let first = digits.first else { return [UInt8(ascii: "0")] }
        let zero = UInt8(ascii: "0"), point = UInt8(ascii: ".")
        var text: [UInt8] = isNegative ? [UInt8(ascii: "-")] : []
        if digits.count <= exponent, exponent <= 21 {
            text += digits
            text += repeatElement(zero, count: exponent - digits.count)
        } else if 0 < exponent, exponent <= 21 {
            text += digits[..<exponent]
            text.append(point)
            text += digits[exponent...]
        } else if -6 < exponent, exponent <= 0 {
            text += [zero, point]
            text += repeatElement(zero, count: -exponent)
            text += digits
        } else {
            text.append(first)
            if digits.count > 1 {
                text.append(point)
                text += digits.dropFirst()
            }
            text.append(UInt8(ascii: "e"))
            text.append(exponent > 0 ? UInt8(ascii: "+") : UInt8(ascii: "-"))
            text += String((exponent - 1).magnitude).utf8
        }
        return text
    }
}
