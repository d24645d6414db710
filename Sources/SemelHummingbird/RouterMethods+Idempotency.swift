public import Hummingbird
internal import HTTPTypes
public import SemelHTTP

extension RouterMethods {
    /// Serves the page of each problem code, where ``HTTPPolicy/problemPages`` points by default.
    @discardableResult
    public func addIdempotencyProblemPages() -> Self {
        get("\(ProblemPage.defaultPrefix):code") { request, _ in
            guard let answer = ProblemPage.answer(to: request.head) else { throw HTTPError(.notFound) }
            return Response(answer)
        }
    }

    /// Answers requests for tokens with which a form can be submitted twice; see ``HTTPPolicy/Tokens``. Needed only where no
    /// middleware with this scene sees requests for that path.
    @discardableResult
    public func addIdempotencyTokens(of scene: HTTPScene) -> Self {
        guard let tokens = scene.policy.tokens else { return self }
        return post("\(tokens.path)") { request, _ in
            guard let answer = scene.ownAnswer(to: request.head) else { throw HTTPError(.notFound) }
            return Response(answer)
        }
    }
}
