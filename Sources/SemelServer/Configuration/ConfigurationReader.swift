internal import Foundation
internal import SemelCore

/// Reads a configuration from YAML and the environment, and collects every mistake on the way.
///
/// Reading does nothing else: it opens no store, binds no port and asks no upstream. It reads the files that the
/// configuration names for secrets and keys, so that a missing one is a mistake with a line.
package final class ConfigurationReader {
    typealias Place = ConfigurationDiagnostic.Place
    typealias Node = ConfigurationNode

    private(set) var diagnostics: [ConfigurationDiagnostic] = []
    private let environment: [String: String]
    let file: String

    private init(file: String, environment: [String: String]) {
        self.file = file
        self.environment = environment
    }

    /// Reads a file. One that is missing or no text is a mistake like any other.
    package static func read(file: String, environment: [String: String]) -> ConfigurationReading {
        let contents: [UInt8]
        do {
            contents = try FileContents.read(file, limit: YAMLConfiguration.sizeLimit)
        } catch {
            let diagnostic = ConfigurationDiagnostic(
                severity: .mistake, place: .file(file), path: "", problem: error.problem, remedy: "name a readable configuration file")
            return ConfigurationReading(configuration: nil, diagnostics: [diagnostic])
        }
        guard let text = String(validating: contents, as: UTF8.self) else {
            let diagnostic = ConfigurationDiagnostic(
                severity: .mistake, place: .file(file), path: "", problem: "the file is not UTF-8 text", remedy: "save it as UTF-8")
            return ConfigurationReading(configuration: nil, diagnostics: [diagnostic])
        }
        return read(text: text, file: file, environment: environment)
    }

    /// Reads a text, called `file` in the diagnostics.
    package static func read(text: String, file: String, environment: [String: String] = [:]) -> ConfigurationReading {
        let reader = ConfigurationReader(file: file, environment: environment)
        let configuration = reader.configuration(text)
        // What comes of an alias is said once, however often it is used.
        var seen: Set<ConfigurationDiagnostic> = []
        let diagnostics = reader.diagnostics.filter { seen.insert($0).inserted }.enumerated()
            .sorted { ConfigurationDiagnostic.precedes($0.element, $1.element) || (!ConfigurationDiagnostic.precedes($1.element, $0.element) && $0.offset < $1.offset) }
            .map(\.element)
        let isUsable = !diagnostics.contains { $0.severity == .mistake }
        return ConfigurationReading(configuration: isUsable ? configuration : nil, diagnostics: diagnostics)
    }

    private func configuration(_ text: String) -> ServerConfiguration? {
        var yaml = YAMLConfiguration(file: file)
        var root: Node
        do {
            root = try yaml.read(text)
        } catch {
            mistake(.position(file, line: error.line, column: error.column), "", error.problem, error.remedy)
            return nil
        }
        for repetition in yaml.repetitions {
            mistake(repetition.place, repetition.name, "it is given twice here, first on line \(repetition.firstLine)", "keep one of the two")
        }
        guard root.members != nil || root.isEmpty else {
            mistake(root.place, "", "the configuration is \(root.kind), not a mapping of names to values", "begin with `listen: 127.0.0.1:8080`")
            return nil
        }
        let overlay = EnvironmentOverlay.apply(environment, to: &root)
        for variable in overlay.unknown {
            warning(.environment(variable: variable), "", "the variable names no key of the configuration, and is ignored", "correct or remove it")
        }
        for (variable, error) in overlay.malformed {
            mistake(.environment(variable: variable), "", error.problem, error.remedy)
        }
        checkNames(root, .server, path: "")
        return server(Section(node: root, path: ""))
    }

    // MARK: Saying what is wrong

    func mistake(_ place: Place, _ path: String, _ problem: String, _ remedy: String) {
        diagnostics.append(ConfigurationDiagnostic(severity: .mistake, place: place, path: path, problem: problem, remedy: remedy))
    }

    func warning(_ place: Place, _ path: String, _ problem: String, _ remedy: String) {
        diagnostics.append(ConfigurationDiagnostic(severity: .warning, place: place, path: path, problem: problem, remedy: remedy))
    }

    private func checkNames(_ node: Node, _ schema: ConfigurationSchema, path: String) {
        func join(_ name: String) -> String { path.isEmpty ? name : "\(path).\(name)" }
        switch schema {
        case .value: break
        case .mapping(let names, _):
            for member in node.members ?? [] {
                if let inner = names[member.name] {
                    checkNames(member.value, inner, path: join(member.name))
                } else if let meant = Spelling.suggestion(for: member.name, among: names.keys) ?? ConfigurationSchema.synonyms[member.name].flatMap({ names[$0] == nil ? nil : $0 }) {
                    mistake(member.place, join(member.name), "there is no such key", "did you mean `\(meant)`?")
                } else {
                    mistake(member.place, join(member.name), "there is no such key", "use one of \(names.keys.sorted().joined(separator: ", "))")
                }
            }
        case .byName(let inner):
            for member in node.members ?? [] { checkNames(member.value, inner, path: join(member.name)) }
        case .listByName(let inner):
            for (index, element) in (node.elements ?? []).enumerated() {
                checkNames(element, inner, path: join(element["name"]?.scalar ?? "[\(index)]"))
            }
        }
    }
}

/// A mapping that is being read, and the path to it.
struct Section {
    var node: ConfigurationNode
    var path: String

    var place: ConfigurationNode.Place { node.place }

    /// The value of a key; `nil` when it is not given.
    subscript(name: String) -> ConfigurationNode? { node[name] }

    func path(_ name: String) -> String { path.isEmpty ? name : "\(path).\(name)" }
}
