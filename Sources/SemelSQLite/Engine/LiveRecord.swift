import Semel

/// A record that retention never removes, as the engine holds it in memory beside its row.
struct LiveRecord {
    var row: Int64
    var reference: OperationReference
    var record: Record
}

/// What is stored for a key.
enum Stored {
    case absent
    case live(LiveRecord)
    case finished(row: Int64, Record)
    /// There is a record, and this program cannot read it (H58).
    case unreadable(String)

    /// What the record machine is given.
    var record: Record? {
        switch self {
        case .live(let live): live.record
        case .finished(_, let record): record
        case .absent, .unreadable: nil
        }
    }
}
