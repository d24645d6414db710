// swift-tools-version:6.2
import PackageDescription

// Ratios against the limit of each engine, measured in one run (`make bench`). A package of its own, so that users of
// the library never resolve it.
let package = Package(
    name: "semel-benchmarks",
    platforms: [.macOS(.v15)],
    dependencies: [
        .package(name: "semel", path: "..", traits: ["MySQL", "Postgres"]),
        .package(url: "https://github.com/hummingbird-project/hummingbird", from: "2.28.1"),
        .package(url: "https://github.com/apple/swift-http-types", from: "1.8.0"),
        .package(url: "https://github.com/apple/swift-nio", from: "2.101.2"),
    ],
    targets: [
        .systemLibrary(name: "CSQLiteForBaseline", pkgConfig: "sqlite3", providers: [.apt(["libsqlite3-dev"])]),
        .target(name: "CBaseline", dependencies: ["CSQLiteForBaseline"]),
        .systemLibrary(name: "CMariaDBForBaseline", pkgConfig: "libmariadb", providers: [.apt(["libmariadb-dev"])]),
        .target(name: "CMySQLBaseline", dependencies: ["CMariaDBForBaseline"]),
        .executableTarget(
            name: "semel-bench",
            dependencies: [
                "CBaseline",
                "CMySQLBaseline",
                .product(name: "SemelSQLite", package: "semel"),
                .product(name: "SemelMySQL", package: "semel"),
                .product(name: "SemelPostgres", package: "semel"),
                .product(name: "SemelRedis", package: "semel"),
                .product(name: "SemelHummingbird", package: "semel"),
                .product(name: "Hummingbird", package: "hummingbird"),
                .product(name: "HTTPTypes", package: "swift-http-types"),
                .product(name: "NIOCore", package: "swift-nio"),
                .product(name: "NIOHTTP1", package: "swift-nio"),
                .product(name: "NIOPosix", package: "swift-nio"),
                // The program that the gateway's suite starts.
                .product(name: "semel", package: "semel"),
            ]),
    ]
)
