public import Semel

extension SQLiteStore {
    public struct Configuration: Sendable {
        /// What to do when the file is not the one this place last had.
        public enum Recovery: Sendable {
            /// Refuse to open, and say what was found (H18, H21).
            case refuse
            /// The file was restored from a backup, or was not in use for more than 30 days: go on with it, under the next
            /// incarnation. Keys finished since the backup was made are unknown and will run again.
            case acceptRestored
            /// The file is lost: begin with an empty one, under the next incarnation. Every key may run again.
            case startNew
        }

        /// Leave it at `refuse`; the others are decisions of a person, for one start.
        public var recovery: Recovery
        /// Bytes of disk kept back so that outcomes can still be recorded when there is no space for new claims (H17).
        public var reserve: Int
        /// Your own tables, for ``SQLiteStore/perform(_:_:)`` and ``SQLiteStore/read(_:)``: SQL scripts, each run once, in
        /// order. Only ever append to the list. Names beginning with `semel_` are the store's.
        public var migrations: [String]
        /// Whether what has outlived its retention is removed in idle moments without ``SQLiteStore/purge(limit:)``.
        public var purgesByItself: Bool
        /// Where the sizes of batches are counted; `nil` for nowhere.
        public var metrics: StoreMetrics?
        /// How many finished keys are kept in memory before they are sealed.
        package var keysPerSegment = 1 << 18
        /// The name of a registered SQLite file system; for fault tests.
        package var fileSystem: String?

        public init(
            recovery: Recovery = .refuse, reserve: Int = 16 << 20, migrations: [String] = [], purgesByItself: Bool = true,
            metrics: StoreMetrics? = nil
        ) {
            self.recovery = recovery
            self.reserve = reserve
            self.migrations = migrations
            self.purgesByItself = purgesByItself
            self.metrics = metrics
        }
    }
}
