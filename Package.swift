// swift-tools-version:6.2
import PackageDescription

// A leaked dependency shows: imports are internal unless a file says otherwise.
let settings: [SwiftSetting] = [
    .swiftLanguageMode(.v6),
    .enableUpcomingFeature("ExistentialAny"),
    .enableUpcomingFeature("MemberImportVisibility"),
    .enableUpcomingFeature("InternalImportsByDefault"),
]

// Where every request passes: an asynchronous function stays where its caller runs, which saves a look for another place at
// each call and each return.
let staying: [SwiftSetting] = [.enableUpcomingFeature("NonisolatedNonsendingByDefault")]

func library(_ name: String, _ dependencies: [Target.Dependency], _ more: [SwiftSetting] = []) -> Target {
    .target(name: name, dependencies: dependencies, swiftSettings: settings + more)
}

func tests(_ name: String, _ dependencies: [Target.Dependency]) -> Target {
    .testTarget(name: name, dependencies: dependencies, swiftSettings: settings)
}

func executable(_ name: String, _ dependencies: [Target.Dependency], path: String? = nil) -> Target {
    .executableTarget(name: name, dependencies: dependencies, path: path, swiftSettings: settings)
}

let argumentParser: Target.Dependency = .product(name: "ArgumentParser", package: "swift-argument-parser")
let asyncHTTPClient: Target.Dependency = .product(name: "AsyncHTTPClient", package: "async-http-client")
let crypto: Target.Dependency = .product(name: "Crypto", package: "swift-crypto")
let httpTypes: Target.Dependency = .product(name: "HTTPTypes", package: "swift-http-types")
let hummingbird: Target.Dependency = .product(name: "Hummingbird", package: "hummingbird")
let lifecycle: Target.Dependency = .product(name: "ServiceLifecycle", package: "swift-service-lifecycle")
let logging: Target.Dependency = .product(name: "Logging", package: "swift-log")
let metrics: Target.Dependency = .product(name: "Metrics", package: "swift-metrics")
let unixSignals: Target.Dependency = .product(name: "UnixSignals", package: "swift-service-lifecycle")
let nioCore: Target.Dependency = .product(name: "NIOCore", package: "swift-nio")
let nioPosix: Target.Dependency = .product(name: "NIOPosix", package: "swift-nio")
let nioSSL: Target.Dependency = .product(name: "NIOSSL", package: "swift-nio-ssl")
let nioHTTP1: Target.Dependency = .product(name: "NIOHTTP1", package: "swift-nio")

let package = Package(
    name: "semel",
    platforms: [.macOS(.v15)],
    products: [
        .library(name: "SemelCore", targets: ["SemelCore"]),
        .library(name: "Semel", targets: ["Semel"]),
        .library(name: "SemelSQLite", targets: ["SemelSQLite"]),
        .library(name: "SemelMySQL", targets: ["SemelMySQL"]),
        .library(name: "SemelPostgres", targets: ["SemelPostgres"]),
        .library(name: "SemelRedis", targets: ["SemelRedis"]),
        .library(name: "SemelHTTP", targets: ["SemelHTTP"]),
        .library(name: "SemelHummingbird", targets: ["SemelHummingbird"]),
        .library(name: "SemelTesting", targets: ["SemelTesting"]),
        .executable(name: "semel", targets: ["semel"]),
    ],
    traits: [
        .trait(name: "JWT", description: "Scopes taken from a verified JSON Web Token (needs jwt-kit)."),
        .trait(name: "MySQL", description: "The store in MySQL or MariaDB (needs libmariadb)."),
        .trait(name: "Postgres", description: "The store on PostgreSQL (needs libpq)."),
        .default(enabledTraits: ["JWT", "MySQL", "Postgres"]),
    ],
    dependencies: [
        .package(url: "https://github.com/apple/swift-argument-parser", from: "1.8.2"),
        .package(url: "https://github.com/apple/swift-crypto", from: "4.5.2"),
        .package(url: "https://github.com/apple/swift-http-structured-headers", from: "1.7.0"),
        .package(url: "https://github.com/apple/swift-http-types", from: "1.8.0"),
        .package(url: "https://github.com/apple/swift-log", from: "1.16.2"),
        .package(url: "https://github.com/apple/swift-metrics", from: "2.13.0"),
        .package(url: "https://github.com/apple/swift-nio", from: "2.101.2"),
        .package(url: "https://github.com/apple/swift-nio-extras", from: "1.35.2"),
        .package(url: "https://github.com/apple/swift-nio-ssl", from: "2.37.6"),
        .package(url: "https://github.com/hummingbird-project/hummingbird", from: "2.28.1"),
        .package(url: "https://github.com/jpsim/Yams", from: "6.2.2"),
        .package(url: "https://github.com/swift-server/async-http-client", from: "1.37.0"),
        .package(url: "https://github.com/swift-server/swift-service-lifecycle", from: "2.13.0"),
        .package(url: "https://github.com/vapor/jwt-kit", from: "5.7.1"),
    ],
    targets: [
        // The core: what "once" means, as pure values and state machines. No I/O.
        library("SemelCore", [crypto]),
        // The runtime: the store protocol, the operations around it, and the memory store.
        library("Semel", ["SemelCore", logging, metrics, lifecycle], staying),

        // Stores.
        .systemLibrary(name: "CSQLite", pkgConfig: "sqlite3", providers: [.apt(["libsqlite3-dev"])]),
        library("SemelSQLite", ["Semel", "CSQLite", logging, crypto], staying),
        .systemLibrary(name: "CMariaDB", pkgConfig: "libmariadb", providers: [.apt(["libmariadb-dev"])]),
        library("SemelMySQL", ["Semel", .target(name: "CMariaDB", condition: .when(traits: ["MySQL"])), crypto], staying),
        .systemLibrary(name: "CPostgres", pkgConfig: "libpq", providers: [.apt(["libpq-dev"])]),
        library("SemelPostgres", ["Semel", .target(name: "CPostgres", condition: .when(traits: ["Postgres"]))], staying),

        library("SemelRedis", ["Semel", nioCore, nioPosix, nioSSL, logging, crypto], staying),

        // HTTP: the rules, without a server; and their thin adapters.
        .systemLibrary(name: "CZlib", pkgConfig: "zlib", providers: [.apt(["zlib1g-dev"])]),
        library("SemelHTTP", [
            "Semel", "CZlib", httpTypes, nioCore, nioPosix, crypto,
            .product(name: "RawStructuredFieldValues", package: "swift-http-structured-headers"),
        ], staying),
        library("SemelHummingbird", ["SemelHTTP", hummingbird, httpTypes, nioCore, logging]),

        // The program.
        library("SemelServer", [
            "SemelHTTP", "SemelSQLite", "SemelPostgres", "SemelMySQL", hummingbird, asyncHTTPClient, httpTypes, lifecycle, logging, metrics, crypto,
            nioCore, nioPosix, nioHTTP1,
            .product(name: "HummingbirdCore", package: "hummingbird"),
            .product(name: "HummingbirdTLS", package: "hummingbird"),
            .product(name: "UnixSignals", package: "swift-service-lifecycle"),
            .product(name: "NIOHTTPTypes", package: "swift-nio-extras"),
            .product(name: "NIOSSL", package: "swift-nio-ssl"),
            .product(name: "Yams", package: "Yams"),
            .product(name: "JWTKit", package: "jwt-kit", condition: .when(traits: ["JWT"])),
        ]),
        .systemLibrary(name: "CMalloc"),
        executable("semel", [
            "SemelServer", "SemelPostgres", "SemelMySQL", "CMalloc", argumentParser, asyncHTTPClient, lifecycle, logging, nioCore, nioHTTP1, .product(name: "NIOSSL", package: "swift-nio-ssl"),
        ]),

        // For tests, ours and our users'. Production never imports it.
        library("SemelTesting", ["Semel"]),

        // Examples that are also the demonstration's processes.
        executable("orders", ["Semel", "SemelSQLite"], path: "Examples/Orders"),
        executable("payments", ["CSQLite", hummingbird, argumentParser, logging, lifecycle, nioCore, httpTypes], path: "Examples/Payments"),
        executable("demonstration", [asyncHTTPClient, argumentParser, unixSignals, nioCore, nioPosix, nioHTTP1], path: "Examples/Demonstration"),

        tests("SemelCoreTests", ["SemelCore"]),
        tests("SemelTests", ["Semel", "SemelTesting"]),
        // Real processes to start, signal and wait for.
        .target(name: "ChildProcesses", dependencies: ["Semel"], path: "Tests/Support/ChildProcesses", swiftSettings: settings),
        tests("SemelSQLiteTests", ["SemelSQLite", "SemelTesting", "CSQLite", "FaultyDisk", "ChildProcesses", "store-worker"]),
        // A process to kill, and a disk to break, for the tests of the embedded store.
        executable("store-worker", ["SemelSQLite"], path: "Tests/Support/StoreWorker"),
        .target(name: "FaultyDisk", dependencies: ["CSQLite"], path: "Tests/Support/FaultyDisk"),
        tests("SemelMySQLTests", ["SemelMySQL", "SemelTesting", "TestProxy", "TestServers"]),
        tests("SemelPostgresTests", ["SemelPostgres", "SemelTesting", "TestProxy", "TestServers"]),
        // Real servers, started by scripts/servers.
        .target(name: "TestServers", dependencies: ["Semel", "ChildProcesses"], path: "Tests/Support/TestServers", swiftSettings: settings),
        // A proxy that delays, cuts and stops a connection to a real server.
        .target(name: "TestProxy", dependencies: ["Semel"], path: "Tests/Support/TestProxy", swiftSettings: settings),
        tests("SemelRedisTests", ["SemelRedis", "SemelTesting", "ChildProcesses", "TestProxy", nioCore, nioPosix, nioSSL, crypto]),
        tests("SemelHTTPTests", ["SemelHTTP", "SemelHummingbird", "SemelTesting", "CZlib", hummingbird, asyncHTTPClient, httpTypes, nioCore, nioPosix, nioHTTP1, logging]),
        // Real processes, killed at named places. They need the executables, which `swift build --build-tests` builds.
        tests("SemelCrashTests", ["ChildProcesses", "Semel", "semel", "payments", asyncHTTPClient, nioCore, nioHTTP1]),
        tests("SemelServerTests", [
            "SemelServer", "SemelSQLite", "semel", "SemelTesting", "ChildProcesses", "TestServers", asyncHTTPClient, hummingbird, httpTypes, lifecycle, logging, nioCore, nioHTTP1,
            nioPosix,
            .product(name: "HummingbirdCore", package: "hummingbird"),
            .product(name: "NIOSSL", package: "swift-nio-ssl"),
        ]),
    ]
)
