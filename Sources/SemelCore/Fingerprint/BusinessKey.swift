/// A key made of what an operation is about, such as the order and its version, instead of one that the client invents.
///
/// It is the same for every delivery of the same fact only if every field is: a field that is minted anew at each attempt
/// (a delivery's id, an attempt's number, the time of sending) makes every delivery a new operation, and nothing is ever
/// recognised (R4, H31). See ``JSONSelector/instabilityWarning``.
///
/// The key is a whole SHA-256 digest over the fields with their names, so its length and characters do not depend on theirs
/// (H28), and no two different lists of fields have the same one (H30).
public struct BusinessKey: Hashable, Sendable, CustomStringConvertible {
    public let digest: Digest256

    /// The key in 64 lower-case hexadecimal digits, acceptable wherever a client's key is.
    public var description: String { digest.description }

    /// Takes the key from a payload.
    ///
    /// Values are taken in their canonical form: `1` and `1.0` are the same, `1` and `"1"` are not.
    ///
    /// - Throws: when a field is missing, `null` or empty. Payloads without the field would all have the same key, and
    ///   all but the first would be lost.
    public init(selecting selectors: [JSONSelector], in payload: JSONValue) throws(BusinessKeyError) {
        guard !selectors.isEmpty else { throw .noFields }
        var parts = LengthPrefixed(purpose: "semel.business-key.json.1")
        for selector in selectors {
            let selection = selector.select(in: payload)
            if let gap = selection.gap { throw .unusable(field: selector.description, gap) }
            parts.append(selector.description)
            parts.append(selection.encoded)
        }
        digest = Digest256(hashing: parts)
    }

    /// Makes the key of named texts, such as a device's id, its event's time and its nonce, all as the device sent them.
    ///
    /// - Throws: when there are no fields, or one is empty.
    public init(fields: KeyValuePairs<String, String>) throws(BusinessKeyError) {
        guard !fields.isEmpty else { throw .noFields }
        var parts = LengthPrefixed(purpose: "semel.business-key.fields.1")
        for (name, value) in fields {
            guard !value.isEmpty else { throw .unusable(field: name, .empty) }
            parts.append(name)
            parts.append(value)
        }
        digest = Digest256(hashing: parts)
    }
}

/// Why no key could be made.
public enum BusinessKeyError: Error, Hashable, Sendable, CustomStringConvertible {
    public enum Gap: String, Hashable, Sendable {
        case missing, null, empty
    }

    case noFields
    case unusable(field: String, Gap)

    public var description: String {
        switch self {
        case .noFields: "a business key needs at least one field"
        case .unusable(let field, let gap):
            "the field \(field) of the business key is \(gap.rawValue); every payload must carry it, or all that do not would be taken for one"
        }
    }
}

extension JSONSelection {
    /// What keeps the selection from identifying anything.
    fileprivate var gap: BusinessKeyError.Gap? {
        switch self {
        case .missing: .missing
        case .value(.null): .null
        case .value(.string("")): .empty
        case .value(.array(let elements)) where elements.isEmpty: .empty
        case .value(.object(let object)) where object.members.isEmpty: .empty
        case .value: nil
        case .each(let selections): selections.isEmpty ? .empty : selections.lazy.compactMap(\.gap).first
        }
    }
}

extension JSONSelector {
    /// A warning if the field that is selected, to judge by its name, may be minted anew at each attempt (R4, H31); nil for
    /// others. A name proves nothing, so this is advice for the check of a configuration, never a refusal.
    public var instabilityWarning: String? {
        guard case .name(let name)? = steps.last(where: { if case .name = $0 { true } else { false } }) else { return nil }
        let letters = name.text.utf8.filter { $0 != UInt8(ascii: "_") && $0 != UInt8(ascii: "-") }.map { $0 | 0x20 }
        guard Self.namesOfAttempts.contains(String(decoding: letters, as: UTF8.self)) else { return nil }
        return "\(self) may differ between attempts of one operation, and then no repetition is recognised; select what identifies the operation, such as the order and its version"
    }

    /// In lower case, without '_' and '-'.
    private static let namesOfAttempts: Set<String> = [
        "attempt", "attemptid", "attempts", "attemptnumber", "deliveryattempt", "deliverycount", "deliveryid", "deliverytag",
        "receipthandle", "receivedat", "redelivered", "requestid", "requesttime", "retries", "retry", "retrycount", "sentat",
        "sendtime", "spanid", "traceid", "traceparent",
    ]
}
