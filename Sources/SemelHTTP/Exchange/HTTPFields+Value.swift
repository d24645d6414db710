package import HTTPTypes

extension HTTPFields {
    /// What the subscript gives, sooner where a field has one line, or none: joining lines takes longer than all else that
    /// the rules do with a field.
    package func value(of name: HTTPField.Name) -> String? {
        guard contains(name) else { return nil }
        var found: String?
        for field in self where field.name == name {
            guard found == nil else { return self[name] }
            found = field.value
        }
        return found
    }
}
