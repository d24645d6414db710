extension Environment {
    /// Returns when `event` does, or when the time is over, or when the task is cancelled.
    package func firstOf(sleeping limit: Duration, _ event: @escaping @Sendable () async -> Void) async {
        await withTaskGroup(of: Void.self) { group in
            group.addTask(executorPreference: executor) { [clock] in _ = try? await clock.sleep(for: limit) }
            group.addTask(executorPreference: executor) { await event() }
            await group.next()
            group.cancelAll()
        }
    }
}
