/// The configuration that INTERFACE.md and the README show.
let exampleConfiguration = """
    listen: 127.0.0.1:8080
    admin:  127.0.0.1:8081
    store:  sqlite:./semel.db
    upstreams:
      payments: http://127.0.0.1:9000
    scenes:
      - name: payment.capture
        match: { methods: [POST], path: /v1/payments/** }
        upstream: payments
        key: { header: Idempotency-Key, required: true, syntax: strict }
        scope: { header: X-Tenant, missing: 403 }
        fingerprint: { body: raw }
        mode: enforce
        effect: unknown
        guarantee: atMostOnce
        authorize: { url: http://127.0.0.1:9000/authorize }
        onError: uncertain
        onConcurrent: conflict
        onStoreFailure: closed
        lease: 30s
        retention: { response: 24h, key: 30d }
        limits: { request: 1MiB, response: 256KiB, liveKeys: 1000000 }

    """

/// One scene with the given lines in it; they begin on line 10.
func configuration(scene lines: String...) -> String {
    var text = """
        store: sqlite:./semel.db
        upstreams:
          payments: http://127.0.0.1:9000
        scenes:
          - name: payment.capture
            match: { methods: [POST], path: /v1/payments/** }
            upstream: payments
            scope: none
            authorize: http://127.0.0.1:9000/authorize

        """
    for line in lines { text += "    \(line)\n" }
    return text
}
