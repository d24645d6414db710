/// Who pays what, how often each request is repeated, and what goes wrong: all of it decided by the seed.
struct Plan: Sendable {
    /// A payment that a client wants to be made once.
    struct Payment: Sendable {
        let key: String
        let body: String
    }

    /// One client's request, which it repeats with the same key until it is answered.
    struct Request: Sendable {
        let payment: Int
        /// After how long the client hangs up for the first time; nil for a patient one.
        let hangsUpAfter: Duration?
        /// The misbehaviour asked of the service at the first attempt.
        let fault: Fault?
    }

    /// A misbehaviour of the service.
    struct Fault: Sendable {
        let field: String
        let value: String

        /// Those that leave the gateway without knowing whether the payment was made: the connection drops after the effect,
        /// or before it, or the answer is an error after it, or before it.
        static let uncertain = [
            Fault(field: "Demo-Drop", value: "after"), Fault(field: "Demo-Drop", value: "before"),
            Fault(field: "Demo-Fail", value: "after"), Fault(field: "Demo-Fail", value: "before"),
        ]

        /// Those that hold a request long enough to kill the gateway meanwhile: the effect happened already, or happens
        /// when the gateway that asked for it is dead.
        static let slow = [
            Fault(field: "Demo-Latency", value: "800ms"), Fault(field: "Demo-Latency-Before", value: "800ms"),
        ]
    }

    let payments: [Payment]
    /// What is sent together, in this order.
    let bursts: [[Request]]
    /// The burst of slow requests, amid which the gateway is killed.
    let surge: Int

    /// How many requests the surge has.
    static let surgeSize = 48

    var requests: Int { bursts.reduce(0) { $0 + $1.count } }

    init(requests: Int, keys: Int, seed: UInt64) {
        var random = SeededGenerator(seed: seed)
        payments = (0..<keys).map { number in
            let order = "order-\(seed)-\(number)"
            let amount = Int.random(in: 100...99_999, using: &random)
            return Payment(key: order + "/capture", body: #"{"order_id":"\#(order)","amount":\#(amount),"currency":"EUR"}"#)
        }

        var repeats = Array(repeating: 1, count: keys)
        for _ in keys..<max(keys, requests) { repeats[Int.random(in: 0..<keys, using: &random)] += 1 }

        let surgeTime = 0.45
        let surging = Set(payments.indices.shuffled(using: &random).prefix(Self.surgeSize))
        var timed = [
            (
                time: surgeTime,
                burst: surging.sorted().map { Request(payment: $0, hangsUpAfter: nil, fault: Fault.slow.randomElement(using: &random)) }
            )
        ]
        for payment in payments.indices {
            var bursts: [[Request]] = []
            var left = repeats[payment]
            if surging.contains(payment) {
                left -= 1
            } else if Int.random(in: 0..<20, using: &random) < 2 {
                // Two payments in twenty meet a fault, always the first to come: nobody else has claimed their key yet.
                bursts.append([Request(payment: payment, hangsUpAfter: nil, fault: Fault.uncertain.randomElement(using: &random))])
                left -= 1
            }
            while left > 0 {
                let size = min(left, Int.random(in: 1...6, using: &random))
                bursts.append(
                    (0..<size).map { _ in
                        let hangsUp = Int.random(in: 0..<100, using: &random) < 8
                        let moment = Int.random(in: 1...30, using: &random)
                        return Request(payment: payment, hangsUpAfter: hangsUp ? .milliseconds(moment) : nil, fault: nil)
                    })
                left -= size
            }
            let earliest = surging.contains(payment) ? surgeTime.nextUp : 0
            let times = bursts.map { _ in Double.random(in: earliest..<1, using: &random) }.sorted()
            timed += zip(times, bursts).map { (time: $0, burst: $1) }
        }
        timed.sort { $0.time < $1.time }
        bursts = timed.map(\.burst)
        surge = timed.firstIndex { $0.time == surgeTime }!
    }
}

/// SplitMix64: small, and the same on every machine.
struct SeededGenerator: RandomNumberGenerator {
    private var state: UInt64

    init(seed: UInt64) { state = seed }

    mutating func next() -> UInt64 {
        state &+= 0x9E37_79B9_7F4A_7C15
        var mixed = state
        mixed = (mixed ^ (mixed >> 30)) &* 0xBF58_476D_1CE4_E5B9
        mixed = (mixed ^ (mixed >> 27)) &* 0x94D0_49BB_1331_11EB
        return mixed ^ (mixed >> 31)
    }
}
