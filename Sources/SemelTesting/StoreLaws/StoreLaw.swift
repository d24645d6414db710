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
        try await check(StoreTrial(subject, law: name))
    }

    /// Holds fresh subjects to the law by a clock that nobody commands.
    ///
    /// Where the machine stood still for a good part of a moment, a broken law says nothing about the store: a lease had
    /// lapsed before the law came to look at it. Then, and only then, it is checked again, with moments three times as long.
    /// A law that is broken in good time is broken at once.
    ///
    /// - Parameters:
    ///   - moment: that of the first subject, see ``StoreSubject/moment``.
    ///   - times: how often it is checked at most; what the last check finds counts, however slow it was.
    ///   - subject: makes a fresh subject with the moment given, for which time really passes.
    /// - Throws: ``LawViolation`` with the whole history; an error of the store counts as one.
    @discardableResult
    public func check(
        moment: Duration, times: Int = 4, _ subject: (_ moment: Duration) async throws -> StoreSubject
    ) async throws -> Verdict {
        var moment = moment
        for _ in 1..<max(1, times) {
            let trial = StoreTrial(try await subject(moment), law: name)
            do {
                return try await check(trial)
            } catch let violation as LawViolation {
                guard trial.delay > moment / 4 else { throw violation }
                moment *= 3
            }
        }
        return try await check(try await subject(moment))
    }

    private func check(_ trial: StoreTrial) async throws -> Verdict {
        let missing = requires.subtracting(trial.subject.capabilities)
        guard missing.isEmpty else { return .notApplicable(missing: missing) }
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
    /// Those about time that are worth their waiting on a server's own clock, where the others let it pass at once.
    public static let realTime: [StoreLaw] = [
        leasesAreExact, lapsedClaimIsReclaimed, lapsedClaimBecomesUncertain, renewalKeepsAClaim, outcomeIsKept, keyIsKept,
    ]

    /// Every law of the suite, in the order of an operation's life.
    public static let all: [StoreLaw] =
        claiming + fencing + lapsing + finishing + epochs + retaining + batching + outcomes + identities + waiting
        + operating + listing + reopening + random
}
