internal import SemelCore

extension ConfigurationReader {
    func scenes(_ root: Section, _ upstreams: [String: Upstream], store: StoreCapabilities, pair: StoreCapabilities?, derivation: Secret?) -> [SceneConfiguration] {
        guard let node = root["scenes"] else { return [] }
        guard let elements = node.elements else {
            if !node.isEmpty { mistake(node.place, "scenes", "\(node.kind) stands where a list of scenes is expected", "write each scene as `- name: …`") }
            return []
        }
        var scenes: [(scene: SceneConfiguration, section: Section)] = []
        var names: [String: Node.Place] = [:]
        var tokensPaths: Set<String> = []
        for (index, element) in elements.enumerated() {
            guard let section = section(element, path: "scenes.\(element["name"]?.scalar ?? "[\(index)]")") else { continue }
            let name = sceneName(section)
            if let name, names.updateValue(section["name"]?.place ?? section.place, forKey: name) != nil {
                mistake(section["name"]?.place ?? section.place, section.path, "two scenes have this name", "give each scene its own name")
            }
            if let path = section["tokens"]?["path"]?.scalar ?? section["tokens"]?.scalar, !tokensPaths.insert(path).inserted {
                mistake(section["tokens"]?.place ?? section.place, section.path("tokens"), "another scene issues tokens at \(path)", "give each scene its own path")
            }
            let reader = SceneReader(reader: self, root: root, section: section, upstreams: upstreams, plainStore: store, pair: pair, derivation: derivation)
            if let scene = reader.scene(named: name ?? "?") { scenes.append((scene, section)) }
        }
        warnAboutHidden(scenes)
        return scenes.map(\.scene)
    }

    private func sceneName(_ section: Section) -> String? {
        guard let node = section["name"] else {
            mistake(section.place, section.path, "the scene has no `name`", "write `name: payment.capture`")
            return nil
        }
        guard let name = text(node, path: section.path("name"), example: "payment.capture") else { return nil }
        let isPlain = name.utf8.allSatisfy { (0x30...0x39).contains($0) || (0x41...0x5A).contains($0) || (0x61...0x7A).contains($0) || [0x2D, 0x2E, 0x5F].contains($0) }
        guard isPlain, name.utf8.count <= 64 else {
            mistake(node.place, section.path("name"), "`\(name.prefix(80))` cannot name a scene", "use up to 64 letters, digits, dots, hyphens and underscores")
            return nil
        }
        return name
    }

    private func warnAboutHidden(_ scenes: [(scene: SceneConfiguration, section: Section)]) {
        for (index, later) in scenes.enumerated() {
            if let earlier = scenes[..<index].first(where: { $0.scene.match.covers(later.scene.match) }) {
                warning(
                    later.section["match"]?.place ?? later.section.place, later.section.path("match"),
                    "no request ever reaches this scene: `\(earlier.scene.name)` stands before it and matches all of its requests", "move it before `\(earlier.scene.name)`, or remove it")
            }
        }
    }
}
