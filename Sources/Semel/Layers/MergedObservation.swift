extension Observation {
    /// A watch on the same key in several stores: signalled when one of them is.
    convenience init(of observations: [Observation], in environment: Environment) {
        let (stream, continuation) = AsyncStream<Void>.makeStream(bufferingPolicy: .bufferingNewest(1))
        let tasks = observations.map { observation in
            environment.detach {
                while !Task.isCancelled {
                    await observation.signalled()
                    if Task.isCancelled { return }
                    continuation.yield()
                }
            }
        }
        self.init(stream: stream) {
            for task in tasks { task.cancel() }
            continuation.finish()
        }
    }
}
