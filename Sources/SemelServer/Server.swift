internal import Foundation
package import Logging
internal import Metrics
package import Semel
internal import SemelMySQL
internal import SemelPostgres
internal import SemelRedis
internal import SemelSQLite
package import ServiceLifecycle
internal import UnixSignals

/// The running program: configuration, store, and the services that use them.
package struct Server: Sendable {
    /// What to do with an SQLite file that is not the one this place last had: a person's decision, for one start.
    package enum Recovery: String, Sendable, CaseIterable {
        case refuse, acceptRestored, startNew
    }

    package let source: ConfigurationSource
    /// Counts what it is asked.
    package let store: any OperationStore
    /// ``store`` with the second one behind it, where one is configured.
    package let pair: Fallback?
    package let metrics: SemelMetrics
    package let registry: PrometheusRegistry
    /// `nil` unless the environment names a collector.
    package let telemetry: TelemetryExporter?
    package let environment: Semel.Environment
    package let logger: Logger
    private let close: @Sendable () async -> Void

    package var configuration: ServerConfiguration { source.current }

    /// Reads the configuration, sets up log and metrics, and opens the store. Nothing listens yet.
    /// - Throws: ``StartupError``.
    package static func open(
        file: String, variables: [String: String], recovery: Recovery = .refuse, environment: Semel.Environment = .live
    ) async throws(StartupError) -> Server {
        let reading = ConfigurationReader.read(file: file, environment: variables)
        guard let configuration = reading.configuration else { throw StartupError(reading.mistakes) }

        let telemetryConfiguration = try TelemetryConfiguration(environment: variables)

        let writer = LineWriter(configuration.log.destination)
        let registry = PrometheusRegistry(help: SemelMetrics.descriptions)
        Bootstrap.once(log: configuration.log, writer: writer, registry: registry)
        let logger = Logger(label: "semel")
        for warning in reading.warnings {
            logger.warning("The configuration has a weak spot.", metadata: [
                "place": .string(warning.place.description), "setting": .string(warning.path), "reason": .string(warning.problem), "remedy": .string(warning.remedy),
            ])
        }

        if let limit = OpenFiles.raiseLimit(), limit < configuration.openFilesNeeded {
            logger.warning("The system allows fewer open files than the configured connections can need; clients will wait to be accepted.", metadata: [
                "reason": .string("\(limit) of \(configuration.openFilesNeeded)"), "remedy": "raise the limit (ulimit -Hn, LimitNOFILE), or lower `connections` of the upstreams",
            ])
        }

        let metrics = SemelMetrics(factory: registry)
        let telemetry = telemetryConfiguration.map {
            TelemetryExporter($0, registry: registry, metrics: metrics, environment: environment, logger: Logger(label: "semel.telemetry"))
        }
        let (opened, closeStore): (any OperationStore, @Sendable () async -> Void)
        do throws(StartupError) {
            (opened, closeStore) = try await openStore(configuration.store, recovery, metrics, environment)
        } catch {
            // A process that just began knows no key that went to the store before: every repeat of one would run again.
            guard configuration.fallback != nil, error.exitCode == .unreachable else { throw error }
            throw StartupError(
                .unreachable, "\(error.problem) The fallback takes over from a store that goes away, not from one that was not there at the start.",
                remedy: error.remedy ?? "bring the store back, or start with another one")
        }
        let store = MeteredStore(opened, metrics: metrics, uptime: environment.uptime)
        let (pair, closeSecond): (Fallback?, @Sendable () async -> Void)
        do throws(StartupError) {
            (pair, closeSecond) = try await openPair(store, configuration.fallback, recovery, metrics, environment, logger)
        } catch {
            await closeStore()
            throw error
        }
        return Server(
            source: ConfigurationSource(file: file, environment: variables, initial: configuration, logger: logger, clock: environment.clock),
            store: store, pair: pair, metrics: metrics, registry: registry, telemetry: telemetry,
            environment: environment,
            logger: logger,
            close: {
                await closeSecond()
                await closeStore()
                writer.flush()
            })
    }

    /// Runs the services until SIGTERM or SIGINT, then lets them finish what is in flight, and closes the store last.
    /// - Parameter services: started in their order and stopped in the opposite one.
    package func run(_ services: [any Service]) async throws {
        var group = ServiceGroupConfiguration(
            services: ([source] + services).map { .init(service: $0, successTerminationBehavior: .gracefullyShutdownGroup, failureTerminationBehavior: .gracefullyShutdownGroup) },
            gracefulShutdownSignals: [.sigterm, .sigint], logger: logger)
        // The services keep to the drain time themselves; this is for one that does not.
        group.maximumGracefulShutdownDuration = configuration.drain + .seconds(5)
        let result: Result<Void, any Error>
        do {
            try await ServiceGroup(configuration: group).run()
            result = .success(())
        } catch {
            result = .failure(error)
        }
        await close()
        try result.get()
    }

    /// The second store, and what an earlier run left in it to be merged.
    private static func openPair(
        _ primary: MeteredStore, _ location: StoreLocation?, _ recovery: Recovery, _ metrics: SemelMetrics, _ environment: Semel.Environment,
        _ logger: Logger
    ) async throws(StartupError) -> (Fallback?, close: @Sendable () async -> Void) {
        guard let location else { return (nil, {}) }
        let (opened, close) = try await openStore(location, recovery, metrics, environment, named: "fallback")
        do throws(StoreError) {
            let pair = try await Fallback(
                primary: primary, second: MeteredStore(opened, metrics: metrics, uptime: environment.uptime),
                configuration: .init(probe: FallbackWatch.interval, component: "fallback", onChange: { FallbackWatch.log($0, logger) }),
                metrics: metrics, environment: environment)
            if pair.phase != .primary { FallbackWatch.log(pair.phase, logger) }
            return (pair, close)
        } catch {
            await close()
            throw StartupError(opening: location, named: "fallback", error)
        }
    }

    /// - Parameter name: what the configuration calls it.
    private static func openStore(
        _ location: StoreLocation, _ recovery: Recovery, _ metrics: SemelMetrics, _ environment: Semel.Environment, named name: String = "store"
    ) async throws(StartupError) -> (any OperationStore, close: @Sendable () async -> Void) {
        switch location {
        case .memory: return (MemoryStore(), {})
        case .mysql(let url, _): return try await openMySQL(url, location, metrics, environment)
        case .redis(let url, _):
            do {
                let store = try await RedisStore(url: url, environment: environment)
                return (store, { store.close() })
            } catch {
                throw StartupError(opening: location, error)
            }
        case .postgres(let url, _): return try await openPostgres(url, location, metrics, environment)
        case .sqlite(let path):
            var configuration = SQLiteStore.Configuration(metrics: metrics.store("sqlite"))
            configuration.recovery =
                switch recovery {
                case .refuse: .refuse
                case .acceptRestored: .acceptRestored
                case .startNew: .startNew
                }
            do {
                let store = try await SQLiteStore(path: path, configuration: configuration, environment: environment)
                return (store, { await store.close() })
            } catch {
                throw StartupError(opening: location, named: name, error)
            }
        }
    }
}

extension Server {
    fileprivate static func openPostgres(
        _ url: String, _ location: StoreLocation, _ metrics: SemelMetrics, _ environment: Semel.Environment
    ) async throws(StartupError) -> (any OperationStore, close: @Sendable () async -> Void) {
        #if Postgres
        do throws(StoreError) {
            let configuration = PostgresStore.Configuration(metrics: metrics.store("postgres"))
            let store = try await PostgresStore.open(url, configuration: configuration, environment: environment)
            if let problem = weakness(of: store.capabilities) {
                await store.close()
                throw problem
            }
            return (store, { await store.close() })
        } catch {
            throw StartupError(opening: location, error)
        }
        #else
        throw StartupError(.configuration, "This build of semel has no store on PostgreSQL.", remedy: "build it with the trait Postgres")
        #endif
    }

    fileprivate static func openMySQL(
        _ url: String, _ location: StoreLocation, _ metrics: SemelMetrics, _ environment: Semel.Environment
    ) async throws(StartupError) -> (any OperationStore, close: @Sendable () async -> Void) {
        #if MySQL
        do throws(StoreError) {
            let configuration = MySQLStore.Configuration(migratesByItself: false, metrics: metrics.store("mysql"))
            let store = try await MySQLStore(url: url, configuration: configuration, environment: environment)
            if let problem = weakness(of: store.capabilities) {
                await store.close()
                throw problem
            }
            return (store, { await store.close() })
        } catch {
            throw StartupError(opening: location, error)
        }
        #else
        throw StartupError(.configuration, "This build of semel has no store in MySQL or MariaDB.", remedy: "build it with the trait MySQL")
        #endif
    }

    /// The levels were computed for a store that keeps what it acknowledged: never a silent downgrade.
    private static func weakness(of store: StoreCapabilities) -> StoreError? {
        guard case .forgetful(let how) = store.durability else { return nil }
        return StoreError(.misconfigured, "the server may lose what it acknowledged (\(how)): set it right there")
    }
}

/// Log and metrics are the process's own, and set up once.
private enum Bootstrap {
    private static let isDone = Locked(false)

    static func once(log: LogConfiguration, writer: LineWriter, registry: PrometheusRegistry) {
        let isFirst = isDone.withLock { isDone in
            defer { isDone = true }
            return !isDone
        }
        guard isFirst else { return }
        LoggingSystem.bootstrap({ JSONLogHandler(log, writer: writer, metadataProvider: $1) }, metadataProvider: .trace)
        MetricsSystem.bootstrap(registry)
    }
}
