import ArgumentParser
import SemelCore
import SemelServer

struct VersionCommand: ParsableCommand {
    static let configuration = CommandConfiguration(commandName: "version", abstract: "Which program this is, and what was built in.")

    @OptionGroup var output: OutputOptions

    func run() {
        switch output.format {
        case .text:
            Terminal.standardOutput.write("semel \(Version.number) (\(Version.configuration), \(Version.platform); \(Version.parts.joined(separator: ", ")))\n")
        case .json:
            let document: JSONValue = [
                "version": .string(Version.number), "configuration": .string(Version.configuration), "platform": .string(Version.platform),
                "parts": .array(Version.parts.map(JSONValue.string)),
            ]
            Terminal.standardOutput.write("\(document)\n")
        }
    }
}
