import FoundationEssentials

/// What the demonstration asks of the gateway's control plane.
struct ControlPlane: Sendable {
    let url: String

    func isReady(_ client: Client) async -> Bool { (try? await client.get(url + "/readyz"))?.status == 200 }

    /// The number of operations whose outcome is not known, or is being asked for; at most 1,000 are counted.
    func uncertain(_ client: Client) async throws -> Int {
        let answer = try await client.get(url + "/v1/operations?state=uncertain,verifying&limit=1000")
        guard answer.status == 200, let list = try? JSONDecoder().decode(OperationList.self, from: Data(answer.body)) else {
            let text = String(decoding: answer.body.prefix(300), as: UTF8.self)
            throw Failure("the control plane's list of operations is not understood: \(answer.status) \(text)")
        }
        return list.operations.count
    }

    private struct OperationList: Decodable {
        struct Operation: Decodable {}
        let operations: [Operation]
    }
}
