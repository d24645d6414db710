/// One command as it goes over the wire: an array of strings.
package struct RedisCommand: Hashable, Sendable {
    package private(set) var bytes: [UInt8]

    /// Begins a command of so many arguments, its name included; exactly so many must be added.
    package init(arguments count: Int, reserving capacity: Int = 64) {
        bytes = []
        bytes.reserveCapacity(capacity + 16)
        bytes.append(UInt8(ascii: "*"))
        endLine(with: count)
    }

    package init(_ arguments: String...) {
        self.init(arguments)
    }

    package init(_ arguments: [String]) {
        self.init(arguments: arguments.count)
        for argument in arguments { add(argument) }
    }

    package init(_ name: String, _ arguments: [[UInt8]]) {
        self.init(arguments: arguments.count + 1, reserving: arguments.reduce(32) { $0 + $1.count + 16 })
        add(name)
        for argument in arguments { add(argument) }
    }

    package mutating func add(_ argument: [UInt8]) {
        bytes.append(UInt8(ascii: "$"))
        endLine(with: argument.count)
        bytes.append(contentsOf: argument)
        bytes.append(0x0D)
        bytes.append(0x0A)
    }

    package mutating func add(_ argument: String) {
        var argument = argument
        argument.withUTF8 { text in
            bytes.append(UInt8(ascii: "$"))
            endLine(with: text.count)
            bytes.append(contentsOf: text)
            bytes.append(0x0D)
            bytes.append(0x0A)
        }
    }

    private mutating func endLine(with number: Int) {
        if number < 10 {
            bytes.append(UInt8(0x30 + number))
        } else {
            var rest = number
            let start = bytes.count
            while rest > 0 {
                bytes.append(UInt8(0x30 + rest % 10))
                rest /= 10
            }
            bytes[start...].reverse()
        }
        bytes.append(0x0D)
        bytes.append(0x0A)
    }
}
