package import Logging
internal import Semel
internal import SemelCore
internal import SemelHTTP
internal import ServiceLifecycle
internal import UnixSignals

/// The configuration in force, read again on SIGHUP and when its file changes.
///
/// A valid one is handed to the subscribers, in their order; an invalid one changes nothing: each of its mistakes is
/// logged, and the one before stays. What cannot be changed while running (addresses, the store, the log's destination)
/// keeps its value, and the log says that a restart is needed.
package final class ConfigurationSource: Service {
    package typealias Subscriber = @Sendable (ServerConfiguration) async -> Void
    /// Says why a configuration must not follow another one now; `nil` when it may.
    package typealias Objection = @Sendable (_ old: ServerConfiguration, _ new: ServerConfiguration) -> String?

    private struct State {
        var configuration: ServerConfiguration
        var subscribers: [Subscriber] = []
        var objections: [Objection] = []
        /// What the file held when it was read last. Its time would not tell two changes within one tick apart.
        var contents: [UInt8]?
        /// What it held at the last look, when that was something else.
        var changing: [UInt8]?
    }

    private let file: String
    private let environment: [String: String]
    private let interval: Duration
    private let clock: any Clock<Duration>
    private let logger: Logger
    private let state: Locked<State>

    /// - Parameters:
    ///   - initial: what was read from the file before.
    ///   - interval: how often the file is looked at.
    package init(
        file: String, environment: [String: String], initial: ServerConfiguration, logger: Logger, interval: Duration = .seconds(1),
        clock: any Clock<Duration> = ContinuousClock()
    ) {
        self.file = file
        self.environment = environment
        self.interval = interval
        self.clock = clock
        self.logger = logger
        state = Locked(State(configuration: initial, contents: try? FileContents.read(file)))
    }

    /// The last valid configuration.
    package var current: ServerConfiguration { state.withLock { $0.configuration } }

    /// Calls `subscriber` with each further configuration; the next is not read before it returns.
    package func subscribe(_ subscriber: @escaping Subscriber) {
        state.withLock { $0.subscribers.append(subscriber) }
    }

    /// Asks `objection` before each further configuration is used.
    package func refuse(where objection: @escaping Objection) {
        state.withLock { $0.objections.append(objection) }
    }

    /// Watches until a graceful shutdown or cancellation.
    package func run() async throws {
        await cancelWhenGracefulShutdown {
            let (triggers, continuation) = AsyncStream<Bool>.makeStream()
            // From here on the signal no longer ends the process.
            let hangups = await UnixSignalsSequence(trapping: .sighup)
            await withTaskGroup(of: Void.self) { group in
                group.addTask {
                    while (try? await self.clock.sleep(for: self.interval)) != nil { continuation.yield(false) }
                    continuation.finish()
                }
                group.addTask {
                    for await _ in hangups { continuation.yield(true) }
                }
                for await isForced in triggers {
                    if isForced { await self.reload() } else { await self.reloadIfChanged() }
                }
                group.cancelAll()
            }
        }
    }

    /// Reads the file again if it does not hold what it held, and held the same at the look before: whoever is still writing
    /// it has not said what is meant.
    package func reloadIfChanged() async {
        guard let contents = try? FileContents.read(file) else { return }
        let isSettled = state.withLock { state in
            guard contents != state.contents else {
                state.changing = nil
                return false
            }
            defer { state.changing = contents }
            return state.changing == contents
        }
        if isSettled { await reload(isAsked: false) }
    }

    /// Reads the file again, and the files it names.
    /// - Parameter isAsked: somebody says that the file is as it should be (SIGHUP). Otherwise a configuration that takes the
    ///   protection of a scene away is not used: a part of a file can be a valid one.
    package func reload(isAsked: Bool = true) async {
        // Taken before the reading: what changes in between is noticed next time.
        let contents = try? FileContents.read(file)
        let reading = ConfigurationReader.read(file: file, environment: environment)
        state.withLock { $0.contents = contents }
        for warning in reading.warnings { logger.warning("The configuration has a weak spot.", metadata: Self.metadata(warning)) }
        guard let new = reading.configuration else {
            for mistake in reading.mistakes { logger.error("The new configuration is not used: it has a mistake.", metadata: Self.metadata(mistake)) }
            return
        }
        let old = current
        guard new.store.capabilities == old.store.capabilities else {
            logger.error(
                "The new configuration is not used: its levels rest on another store than the one that is open.",
                metadata: ["step": "reload", "reason": .string("store: \(new.store)"), "remedy": "restart to use it"])
            return
        }
        guard new.fallbackScenes.isEmpty || new.pairCapabilities == old.pairCapabilities else {
            logger.error(
                "The new configuration is not used: its levels rest on another store than the one that is open.",
                metadata: ["step": "reload", "reason": .string("fallback: \(new.fallback.map(\.description) ?? "none")"), "remedy": "restart to use it"])
            return
        }
        if let reason = state.withLock({ $0.objections }).lazy.compactMap({ $0(old, new) }).first {
            logger.error("The new configuration is not used.", metadata: ["step": "reload", "reason": .string(reason), "remedy": "send SIGHUP when /readyz shows the fallback as ready"])
            return
        }
        let (merged, kept) = new.keepingFixedParts(of: old)
        if !kept.isEmpty {
            logger.warning("A part of the new configuration is used after a restart only.", metadata: ["reason": .string(kept.joined(separator: ", "))])
        }
        guard merged != old else {
            return logger.notice("The configuration was read again, and nothing changed.", metadata: ["step": "reload"])
        }
        let unprotected = Set(old.enforcedScenes).subtracting(merged.enforcedScenes).sorted().joined(separator: ", ")
        guard unprotected.isEmpty || isAsked else {
            return logger.error(
                "The new configuration is not used: it takes the protection of scenes away.",
                metadata: ["step": "reload", "reason": .string("no longer enforced: \(unprotected)"), "remedy": "if that is meant, send SIGHUP"])
        }
        if !unprotected.isEmpty {
            logger.warning("Scenes are no longer protected.", metadata: ["step": "reload", "reason": .string("no longer enforced: \(unprotected)")])
        }
        let subscribers = state.withLock { state in
            state.configuration = merged
            return state.subscribers
        }
        for subscriber in subscribers { await subscriber(merged) }
        logger.notice("The configuration was read again.", metadata: ["step": "reload"])
    }

    private static func metadata(_ diagnostic: ConfigurationDiagnostic) -> Logger.Metadata {
        [
            "step": "reload", "place": .string(diagnostic.place.description), "setting": .string(diagnostic.path), "reason": .string(diagnostic.problem),
            "remedy": .string(diagnostic.remedy),
        ]
    }
}

extension ServerConfiguration {
    /// The names of the scenes whose rules are in force.
    fileprivate var enforcedScenes: [String] { scenes.filter { $0.http.policy.mode == .enforce }.map(\.http.policy.scene) }

    /// This configuration with those parts of `old` that a running process cannot change, and the names of the parts that
    /// differ.
    func keepingFixedParts(of old: ServerConfiguration) -> (ServerConfiguration, kept: [String]) {
        var merged = self
        var kept: [String] = []
        func keep<Value: Equatable>(_ part: WritableKeyPath<ServerConfiguration, Value>, _ name: String) {
            guard merged[keyPath: part] != old[keyPath: part] else { return }
            merged[keyPath: part] = old[keyPath: part]
            kept.append(name)
        }
        keep(\.listen, "listen")
        keep(\.store, "store")
        keep(\.fallback, "fallback")
        keep(\.admin.listen, "admin")
        keep(\.admin.tls, "admin.tls")
        keep(\.log, "log")
        return (merged, kept)
    }
}
