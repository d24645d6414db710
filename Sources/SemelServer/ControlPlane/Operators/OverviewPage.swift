internal import HTTPTypes
internal import Semel

/// The page at `/`: whether the parts are ready, and which operations wait for a person. Plain HTML with no script and
/// nothing from anywhere else.
struct OverviewPage: Sendable {
    var readiness: Readiness
    var waiting: OperationPage
    var scenes: [SceneReport]

    var response: APIResponse {
        var response = APIResponse("text/html; charset=utf-8", Array(html.utf8))
        response.fields[.contentSecurityPolicy] = "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'; base-uri 'none'"
        return response
    }

    private var html: String {
        """
        <!doctype html>
        <html lang="en">
        <head>
        <meta charset="utf-8">
        <meta name="viewport" content="width=device-width, initial-scale=1">
        <title>Semel</title>
        <style>
        body { font: 16px/1.5 system-ui, sans-serif; max-width: 72rem; margin: 2rem auto; padding: 0 1rem; color-scheme: light dark; }
        table { border-collapse: collapse; width: 100%; } th, td { text-align: left; padding: .25rem .75rem .25rem 0; border-bottom: 1px solid #8886; }
        td { overflow-wrap: anywhere; } code { font-size: .9em; }
        </style>
        </head>
        <body>
        <h1>Semel</h1>
        <p>\(readiness.isReady ? "Ready." : "<strong>Not ready.</strong>")</p>
        <table><caption>Parts</caption><tr><th scope="col">Part</th><th scope="col">State</th><th scope="col">Detail</th></tr>
        \(rows(readiness.components.map { [text($0.name), $0.state == .ready ? "ready" : "<strong>\($0.state.rawValue)</strong>", text($0.detail)] }))
        </table>
        <h2>Operations that wait for a decision</h2>
        \(waitingTable)
        <h2>Scenes</h2>
        <table><tr><th scope="col">Scene</th><th scope="col">Level</th><th scope="col">Horizon</th><th scope="col">Basis</th></tr>
        \(rows(scenes.map { [text($0.name), text($0.level.name), text(DurationText.format($0.horizon)), $0.isDeclared ? "declared" : "verified"] }))
        </table>
        <h2>More</h2>
        <ul>
        <li><a href="/v1/operations?state=uncertain">/v1/operations</a></li>
        <li><a href="/v1/scenes">/v1/scenes</a></li>
        <li><a href="/v1/audit">/v1/audit</a>, <a href="/v1/audit/verify">/v1/audit/verify</a></li>
        <li><a href="/metrics">/metrics</a>, <a href="/readyz">/readyz</a>, <a href="/healthz">/healthz</a></li>
        <li><a href="/openapi.json">/openapi.json</a></li>
        </ul>
        </body>
        </html>

        """
    }

    private var waitingTable: String {
        guard !waiting.operations.isEmpty else { return "<p>None.</p>" }
        let cells = waiting.operations.map { operation in
            [
                "<a href=\"/v1/operations/\(operation.reference)\"><code>\(operation.reference)</code></a>", text(operation.scene),
                text(operation.id.scope.description), text(operation.id.key.text), text(operation.record.reason ?? ""),
                text(operation.record.changedAt.rfc3339),
            ]
        }
        let more = waiting.cursor == nil ? "" : "<p>There are more.</p>"
        return """
            <table><tr><th scope="col">Operation</th><th scope="col">Scene</th><th scope="col">Scope</th><th scope="col">Key</th><th scope="col">Why</th><th scope="col">Since</th></tr>
            \(rows(cells))
            </table>
            \(more)
            """
    }

    private func rows(_ cells: [[String]]) -> String {
        cells.map { "<tr>" + $0.map { "<td>\($0)</td>" }.joined() + "</tr>" }.joined(separator: "\n")
    }

    /// Keys and scopes come from strangers: every character that HTML reads is written as a reference.
    private func text(_ raw: String) -> String {
        var escaped = ""
        for scalar in raw.unicodeScalars {
            switch scalar {
            case "&": escaped += "&amp;"
            case "<": escaped += "&lt;"
            case ">": escaped += "&gt;"
            case "\"": escaped += "&quot;"
            case "'": escaped += "&#39;"
            default: escaped.unicodeScalars.append(scalar)
            }
        }
        return escaped
    }
}
