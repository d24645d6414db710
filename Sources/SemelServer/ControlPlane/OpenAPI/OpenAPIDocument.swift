internal import HTTPTypes
internal import Semel

/// The OpenAPI 3.1 description of the control plane, made from the routes that are served.
enum OpenAPIDocument {
    static func document(of routes: [Route]) -> JSONValue {
        var paths: JSONObject = JSONObject()
        for route in routes {
            var item = paths[route.path]?.object ?? JSONObject()
            item[route.method.rawValue.lowercased()] = operation(route)
            paths[route.path] = .object(item)
        }
        return [
            "openapi": "3.1.0",
            "info": [
                "title": "Semel control plane",
                "version": "1",
                "description":
                    "Claims for workers in any language, and what operators need. Durations are text with a unit, such as 250ms, 30s, 10m, 24h, 30d. Every error is a problem document (RFC 9457); branch on its code.",
                "license": ["name": "Apache-2.0", "identifier": "Apache-2.0"],
            ],
            "paths": .object(paths),
            "components": [
                "schemas": OpenAPISchemas.components,
                "securitySchemes": [
                    "controlPlane": [
                        "type": "http", "scheme": "bearer",
                        "description": "A token of the role viewer, or operator where it says so. None is needed on loopback when none is configured.",
                    ],
                    "claims": [
                        "type": "http", "scheme": "bearer",
                        "description": "A token of the claims API, bound to scopes. None is needed on loopback when none is configured.",
                    ],
                ],
            ],
        ]
    }

    private static func operation(_ route: Route) -> JSONValue {
        let documentation = route.documentation
        var operation: JSONObject = JSONObject()
        operation["operationId"] = .string(documentation.name)
        operation["summary"] = .string(documentation.summary)
        operation["description"] = documentation.text.map(JSONValue.string)
        switch route.access {
        case .open: operation["security"] = []
        case .viewer: operation["security"] = [["controlPlane": []]]
        case .operator:
            operation["security"] = [["controlPlane": []]]
            operation["x-semel-role"] = "operator"
        case .claims: operation["security"] = [["claims": []]]
        }
        if !documentation.parameters.isEmpty { operation["parameters"] = .array(documentation.parameters.map(parameter)) }
        if let request = documentation.request {
            operation["requestBody"] = ["required": true, "content": ["application/json": ["schema": request]]]
        }
        operation["responses"] = responses(of: route)
        return .object(operation)
    }

    private static func parameter(_ parameter: RouteDocumentation.Parameter) -> JSONValue {
        var document: JSONObject = JSONObject()
        document["name"] = .string(parameter.name)
        document["in"] = parameter.isInPath ? "path" : "query"
        document["required"] = .bool(parameter.isInPath)
        document["description"] = .string(parameter.text)
        document["schema"] = parameter.mayRepeat ? ["type": "array", "items": parameter.schema] : parameter.schema
        return .object(document)
    }

    private static func responses(of route: Route) -> JSONValue {
        var responses: JSONObject = JSONObject()
        for answer in route.documentation.answers {
            let content: JSONValue = .object(
                {
                    var types: JSONObject = JSONObject()
                    types[answer.contentType] = ["schema": answer.schema ?? ["type": "string"]]
                    return types
                }())
            responses[String(answer.status)] = ["description": .string(answer.text), "content": content]
        }
        for (status, codes) in Dictionary(grouping: problems(of: route), by: \.status).sorted(by: { $0.key < $1.key }) {
            let names = codes.map(\.rawValue).sorted()
            responses[String(status)] = [
                "description": .string("Problem: \(names.joined(separator: ", "))."),
                "content": [
                    "application/problem+json": [
                        "schema": [
                            "allOf": [
                                ["$ref": "#/components/schemas/Problem"],
                                ["properties": ["code": ["enum": .array(names.map(JSONValue.string))]]],
                            ]
                        ]
                    ]
                ],
            ]
        }
        return .object(responses)
    }

    /// What this route may answer besides its results.
    private static func problems(of route: Route) -> Set<APIProblem.Code> {
        var codes: Set<APIProblem.Code> = [.invalidRequest, .hostMissing, .hostRefused, .internalError]
        switch route.access {
        case .open: break
        case .viewer: codes.insert(.unauthenticated)
        case .operator: codes.formUnion([.unauthenticated, .forbidden])
        case .claims: codes.formUnion([.unauthenticated, .forbidden, .scopeForbidden])
        }
        if route.documentation.request != nil {
            codes.formUnion([.malformedJSON, .requestTooLarge, .contentTypeUnsupported])
        }
        return codes.union(route.documentation.problems)
    }
}
