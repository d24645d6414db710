import ArgumentParser
import Foundation
import SemelCore
import SemelHTTP
import SemelServer

struct ConfigurationCommand: ParsableCommand {
    static let configuration = CommandConfiguration(commandName: "config", abstract: "About the configuration.", subcommands: [Check.self])

    struct Check: ParsableCommand {
        static let configuration = CommandConfiguration(
            commandName: "check", abstract: "Every mistake at once, with its line; or the level of every scene.",
            discussion: "Environment variables count, as they do for `serve`. Nothing is opened, bound or asked.")

        @Argument(help: "The configuration file.")
        var file: String

        @OptionGroup var output: OutputOptions

        func run() throws {
            let reading = ConfigurationReader.read(file: file, environment: ProcessInfo.processInfo.environment)
            let report = ConfigurationReport(file: file, reading: reading)
            let terminal = Terminal.standardOutput
            terminal.write(output.format == .json ? "\(report.document)\n" : report.text(terminal))
            if reading.configuration == nil { throw CommandFailure(.usage) }
        }
    }
}

/// What `config check` found.
struct ConfigurationReport {
    var file: String
    var reading: ConfigurationReading

    private var scenes: [SceneConfiguration] { reading.configuration?.scenes ?? [] }

    func text(_ terminal: Terminal) -> String {
        var text = ""
        if !scenes.isEmpty {
            var table = Table("SCENE", "MATCH", "UPSTREAM", "MODE", "LEVEL", "HORIZON")
            for scene in scenes {
                let level = scene.assessment.level
                table.add(
                    .init(scene.name), .init(scene.matchText), .init(scene.upstream.name), .init("\(scene.http.policy.mode)"),
                    .init("\(level.name) (\(scene.basis))", level.isEffectivelyOnce ? .green : .yellow), .init(DurationText.format(scene.assessment.horizon)))
            }
            text += table.text(terminal) + "\n"
            for scene in scenes {
                text += terminal.styled(scene.name, .bold) + (scene.assessment.level.isEffectivelyOnce ? ": effectively once\n" : "\n")
                for reason in scene.assessment.reasons { text += "  \(reason)\n" }
                text += "  On an error of the upstream: \(scene.assessment.onError). When its holder is lost: \(scene.assessment.onLapse).\n"
            }
            text += "\n"
        }
        for diagnostic in reading.diagnostics {
            let isMistake = diagnostic.severity == .mistake
            text += Terminal.printable(diagnostic.description).replacing(
                "\(diagnostic.severity.rawValue):", with: terminal.styled("\(diagnostic.severity.rawValue):", isMistake ? .red : .yellow), maxReplacements: 1) + "\n"
        }
        let counts = [(reading.mistakes.count, "mistake"), (reading.warnings.count, "warning")].filter { $0.0 > 0 }.map { "\($0.0) \($0.1)\($0.0 == 1 ? "" : "s")" }
        let verdict = reading.configuration == nil ? terminal.styled("not usable", .red) : terminal.styled("usable", .green)
        text += "\(file): \(verdict)" + (counts.isEmpty ? "" : ", \(counts.joined(separator: ", "))") + (reading.configuration == nil ? "" : ", \(scenes.count) scene\(scenes.count == 1 ? "" : "s")") + "\n"
        return text
    }

    var document: JSONValue {
        [
            "file": .string(file), "usable": .bool(reading.configuration != nil),
            "diagnostics": .array(reading.diagnostics.map(\.document)), "scenes": .array(scenes.map(\.document)),
        ]
    }
}

extension SceneConfiguration {
    fileprivate var matchText: String { SceneReport(self).match ?? "" }

    /// What the level rests on.
    fileprivate var basis: String { SceneReport(self).isDeclared ? "declared" : "verified" }

    fileprivate var document: JSONValue {
        [
            "name": .string(name), "match": .string(matchText), "upstream": .string(upstream.url), "mode": .string("\(http.policy.mode)"),
            "level": .string(assessment.level.name), "effectively_once": .bool(assessment.level.isEffectivelyOnce), "basis": .string(basis),
            "minimum": http.policy.minimum.map { .string($0.name) } ?? .null, "horizon": .string(DurationText.format(assessment.horizon)),
            "on_error": .string("\(assessment.onError)"), "on_lapse": .string("\(assessment.onLapse)"), "reasons": .array(assessment.reasons.map(JSONValue.string)),
            "unauthorised_replay": .bool(replayAuthorization == .none),
        ]
    }
}

extension ConfigurationDiagnostic {
    fileprivate var document: JSONValue {
        var place: (file: JSONValue, line: JSONValue, column: JSONValue, variable: JSONValue) = (.null, .null, .null, .null)
        switch self.place {
        case .file(let name): place.file = .string(name)
        case .position(let name, let line, let column): place = (.string(name), JSONValue(line), JSONValue(column), .null)
        case .environment(let variable): place.variable = .string(variable)
        }
        return [
            "severity": .string(severity.rawValue), "file": place.file, "line": place.line, "column": place.column, "variable": place.variable,
            "setting": .string(path), "problem": .string(problem), "remedy": .string(remedy),
        ]
    }
}
