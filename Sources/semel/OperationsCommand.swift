import ArgumentParser
import Foundation
import SemelCore

struct OperationsCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "ops", abstract: "Operations: look, and decide about those that are uncertain.", subcommands: [List.self, Show.self, Resolve.self, Forget.self])

    struct List: AsyncParsableCommand {
        static let configuration = CommandConfiguration(abstract: "Operations, oldest change first.")

        @Option(help: "Only these states, with commas between: claimed, verifying, streaming, uncertain, completed.")
        var state: String?
        @Option(help: "Only this scene.")
        var scene: String?
        @Option(help: "Only this scope; give it once for each of its parts.")
        var scope: [String] = []
        @Option(help: "Only this key.")
        var key: String?
        @Option(help: "Only those that have been in their state at least this long, such as 10m.")
        var olderThan: String?
        @Option(help: "The most to list.")
        var limit = 100
        @Option(help: "Where the page before ended.")
        var cursor: String?
        @OptionGroup var controlPlane: ControlPlaneOptions
        @OptionGroup var output: OutputOptions

        func validate() throws {
            guard (1...1000).contains(limit) else { throw ValidationError("--limit \(limit) is not between 1 and 1000.") }
            if let olderThan {
                do throws(UnitTextError) { _ = try DurationText.parse(olderThan) } catch { throw ValidationError("--older-than \(error)") }
            }
        }

        func run() async throws {
            var query: [(String, String?)] = [
                ("state", state), ("scene", scene), ("key", key), ("older_than", olderThan), ("limit", String(limit)), ("cursor", cursor),
            ]
            query += scope.map { ("scope", $0) }
            let page = try await controlPlane.withClient { try await $0.get("/v1/operations", query) }
            let terminal = Terminal.standardOutput
            guard output.format == .text else { return terminal.write("\(page)\n") }
            var table = Table("OPERATION", "SCENE", "STATE", "AGE", "ATTEMPT", "SCOPE", "KEY", "REASON")
            let operations = page["operations"]?.array ?? []
            guard !operations.isEmpty else { return terminal.write("No operation matches.\n") }
            for operation in operations {
                let state = operation.text("state")
                table.add(
                    .init(operation.text("operation")), .init(operation.text("scene")), .init(state, state == "uncertain" ? .yellow : nil),
                    .init(operation["age_ms"]?.integer.map { $0 < 1000 ? "<1s" : DurationText.format(.seconds($0 / 1000)) } ?? "-"), .init(operation.text("attempt")),
                    .init((operation["scope"]?.array ?? []).compactMap(\.string).joined(separator: "/")), .init(operation.text("key")), .init(operation.text("reason")))
            }
            terminal.write(table.text(terminal))
            if let cursor = page["cursor"]?.string { terminal.write("There are more: --cursor \(Terminal.printable(cursor))\n") }
        }
    }

    struct Show: AsyncParsableCommand {
        static let configuration = CommandConfiguration(abstract: "Everything about one operation but its result.")

        @Argument(help: "The operation's reference: op_ and 32 hexadecimal digits.")
        var operation: String
        @Flag(help: "Its recorded result too; needs the role operator.")
        var outcome = false
        @OptionGroup var controlPlane: ControlPlaneOptions
        @OptionGroup var output: OutputOptions

        func validate() throws { try checkReference(operation) }

        func run() async throws {
            let document = try await controlPlane.withClient { try await $0.get("/v1/operations/\(operation)", outcome ? [("include", "outcome")] : []) }
            Terminal.standardOutput.write(output.format == .json ? "\(document)\n" : document.lines)
        }
    }

    struct Resolve: AsyncParsableCommand {
        enum Resolution: String, ExpressibleByArgument, CaseIterable {
            case applied
            case notApplied = "not-applied"
        }

        static let configuration = CommandConfiguration(
            abstract: "Decide about an operation whose outcome is unknown.",
            discussion: "`applied` records it as done, with the result where you give one; `not-applied` lets its key run once more. Who and why are written to the audit log.")

        @Argument(help: "The operation's reference.")
        var operation: String
        @Option(name: .customLong("as"), help: "What you found out: applied or not-applied.")
        var resolution: Resolution
        @Option(help: "The result's status, for applied.")
        var status: Int?
        @Option(help: "A field of the result, as `Name: value`; may be repeated.")
        var header: [String] = []
        @Option(help: "The file with the result's body.")
        var body: String?
        @Option(help: "Decide only if the operation is still at this epoch, as `show` gave it.")
        var epoch: UInt64?
        @OptionGroup var act: ActOptions
        @OptionGroup var controlPlane: ControlPlaneOptions
        @OptionGroup var output: OutputOptions

        func validate() throws {
            try checkReference(operation)
            if status == nil, !header.isEmpty || body != nil { throw ValidationError("--header and --body need --status.") }
            if resolution == .notApplied, status != nil { throw ValidationError("What was not applied has no result: leave --status out.") }
            if let status, !(200...599).contains(status) { throw ValidationError("--status \(status) is not between 200 and 599.") }
        }

        func run() async throws {
            var request = try act.members
            request["resolution"] = .string(resolution.rawValue)
            if let epoch { request["epoch"] = JSONValue(epoch) }
            if let status { request["outcome"] = try outcome(status) }
            let document = try await controlPlane.withClient { try await $0.post("/v1/operations/\(operation)/resolve", .object(request)) }
            Terminal.standardOutput.write(output.format == .json ? "\(document)\n" : "\(operation) is resolved as \(resolution.rawValue).\n")
        }

        private func outcome(_ status: Int) throws -> JSONValue {
            var contents: [UInt8] = []
            if let body {
                do {
                    contents = Array(try Data(contentsOf: URL(fileURLWithPath: body)))
                } catch {
                    throw CommandFailure(.usage, "Cannot read \(body): \(error.localizedDescription).")
                }
            }
            let fields = try header.map { line -> JSONValue in
                let parts = line.split(separator: ":", maxSplits: 1)
                guard parts.count == 2 else { throw CommandFailure(.usage, "--header \(line) is not `Name: value`.") }
                return [.string(String(parts[0])), .string(parts[1].trimmingCharacters(in: .whitespaces))]
            }
            return ["status": JSONValue(status), "headers": .array(fields), "body": .string(Data(contents).base64EncodedString())]
        }
    }

    struct Forget: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Let a finished key run again.", discussion: "A repeat of its request will take effect a second time. Who and why are written to the audit log.")

        @Argument(help: "The operation's reference.")
        var operation: String
        @Option(help: "Only if the operation is still at this epoch, as `show` gave it.")
        var epoch: UInt64?
        @OptionGroup var act: ActOptions
        @OptionGroup var controlPlane: ControlPlaneOptions
        @OptionGroup var output: OutputOptions

        func validate() throws { try checkReference(operation) }

        func run() async throws {
            var request = try act.members
            if let epoch { request["epoch"] = JSONValue(epoch) }
            let document = try await controlPlane.withClient { try await $0.post("/v1/operations/\(operation)/forget", .object(request)) }
            Terminal.standardOutput.write(output.format == .json ? "\(document)\n" : "\(operation) is forgotten.\n")
        }
    }
}

/// Who does it, and why.
struct ActOptions: ParsableArguments {
    @Option(help: "Who decides (SEMEL_ACTOR).")
    var actor: String?
    @Option(help: "Why.")
    var reason: String

    func validate() throws {
        if reason.allSatisfy(\.isWhitespace) { throw ValidationError("--reason is empty; say why.") }
        if (actor ?? ProcessInfo.processInfo.environment["SEMEL_ACTOR"] ?? "").isEmpty { throw ValidationError("Missing expected argument '--actor <actor>': say who decides, or set SEMEL_ACTOR.") }
    }

    var members: JSONObject {
        get throws {
            var members = JSONObject()
            members["actor"] = .string(actor ?? ProcessInfo.processInfo.environment["SEMEL_ACTOR"] ?? "")
            members["reason"] = .string(reason)
            return members
        }
    }
}

private func checkReference(_ text: String) throws {
    guard OperationReference(text) != nil else { throw ValidationError("\(text) is not an operation's reference, which is op_ and 32 hexadecimal digits.") }
}

extension JSONValue {
    /// A member as people read it; `-` when it is not there.
    func text(_ name: String) -> String {
        switch self[name] {
        case nil, .some(.null): "-"
        case .some(.string(let text)): text
        case .some(let value): "\(value)"
        }
    }

    /// An object as one line for each member.
    var lines: String {
        let members = object?.members ?? []
        let width = members.map(\.name.count).max() ?? 0
        return members.map { "\($0.name)\(String(repeating: " ", count: width - $0.name.count))  \(Terminal.printable(text($0.name)))\n" }.joined()
    }
}
