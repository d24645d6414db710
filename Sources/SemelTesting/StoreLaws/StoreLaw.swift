/// One rule that makes something a store: a named value that checks itself on any backend.
///
/// A backend is held to all of them by naming it:
///
/// ```swift
/// @Test(arguments: StoreLaw.all)
/// func upholds(_ law: StoreLaw) async throws {
///     let clock = ManualStoreClock()
///     try await law.check(StoreSubject(MyStore(clock: clock), clock: clock))
/// }
/// ```
///
/// Each check takes a fresh subject, so all of them may run at once. The laws use no test library: a broken law is
/// a thrown ``LawViolation``.
public struct StoreLaw: Sendable, CustomStringConvertible {
    /// What came of a check that found nothing broken.
    public enum Verdict: Hashable, Sendable {
        case upheld
        /// The backend lacks what the law needs, so nothing is known. Report it.
        case notApplicable(missing: Set<StoreSubject.Capability>)
    }

    /// The rule, as a sentence. It identifies the law.
    public let name: String
    /// The hazards (`H15`) and published mistakes (`R7`) it guards against.
    public let hazards: [String]
    /// What a backend must offer for the law to be checked.
    public let requires: Set<StoreSubject.Capability>
    private let body: @Sendable (StoreTrial) async throws -> Void

    public init(
        _ name: String, hazards: [String] = [], requires: Set<StoreSubject.Capability> = [],
        check body: @escaping @Sendable (StoreTrial) async throws -> Void
    ) {
        self.name = name
        self.hazards = hazards
        self.requires = requires
        self.body = body
    }

    /// Holds a fresh subject to the law.
    ///
    /// - Throws: ``LawViolation`` with the whole history; an error of the store counts as one.
    @discardableResult
    public func check(_ subject: StoreSubject) async throws -> Verdict {
        let missing = requires.subtracting(subject.capabilities)
        guard missing.isEmpty else { return .notApplicable(missing: missing) }
        let trial = StoreTrial(subject, law: name)
        do {
            try await body(trial)
        } catch let violation as LawViolation {
            throw violation
        } catch let cancellation as CancellationError {
            throw cancellation
        } catch {
            throw trial.violation("every call is answered", actual: "an error: \(error)")
        }
        return .upheld
    }

    /// The laws that cannot be checked on a subject, for want of what they require.
    public static func notApplicable(to subject: StoreSubject) -> [StoreLaw] {
        all.filter { !$0.requires.isSubset(of: subject.capabilities) }
    }

    /// The name, with the hazards.
    public var description: String { hazards.isEmpty ? name : "\(name) (\(hazards.joined(separator: ", ")))" }
}

extension StoreLaw {
    /// Every law of the suite, in the order of an operation's life.
    public static let all: [StoreLaw] =
        claiming + fencing + lapsing + finishing + epochs + retaining + batching + outcomes + identities + waiting
        + operating + listing + reopening + random
}
