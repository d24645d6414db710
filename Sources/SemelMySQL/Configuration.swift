#if MySQL
public import Semel

extension MySQLStore {
    /// How the store works with its database.
    public struct Configuration: Sendable {
        /// How many connections, each with a thread of its own, take claims and transitions; and as many more, once they are
        /// needed, take the caller's transactions. A key always goes to the same one.
        public var connections: Int
        /// How long to wait for an answer of the server before its connection is given up; whole seconds.
        public var timeout: Duration
        /// How long to try again, when the server cannot be reached or transactions collide, before the caller is told.
        public var patience: Duration
        /// Whether the store's tables are made, or brought to this program's version, when the store is opened.
        public var migratesByItself: Bool
        /// The caller's own tables: each a list of statements that runs once, in order, under a lock. Those that ran must
        /// stay as they are. MySQL commits each `CREATE` by itself, so a script must bear being run again after it stopped
        /// half-way (`CREATE TABLE IF NOT EXISTS`).
        public var migrations: [[String]]
        /// Whether what has outlived its retention is removed without ``MySQLStore/purge(limit:)``, once a minute.
        public var purgesByItself: Bool
        /// Where the sizes of batches are counted; `nil` for nowhere.
        public var metrics: StoreMetrics?

        public init(
            connections: Int = 4, timeout: Duration = .seconds(10), patience: Duration = .seconds(5), migratesByItself: Bool = true,
            migrations: [[String]] = [], purgesByItself: Bool = true, metrics: StoreMetrics? = nil
        ) {
            self.connections = max(1, connections)
            self.timeout = timeout
            self.patience = patience
            self.migratesByItself = migratesByItself
            self.migrations = migrations
            self.purgesByItself = purgesByItself
            self.metrics = metrics
        }
    }
}
#endif
