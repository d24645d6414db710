import HTTPTypes
import NIOCore

#if canImport(FoundationEssentials)
import FoundationEssentials
#else
import Foundation
#endif

/// What a client asks for. The amount counts the currency's smallest unit.
struct PaymentRequest: Codable, Sendable {
    let orderID: String
    let amount: Int
    let currency: String

    private enum CodingKeys: String, CodingKey {
        case orderID = "order_id"
        case amount, currency
    }

    /// Reads and checks a body.
    ///
    /// - Throws: ``Problem``: 400 when the body is no JSON object, 422 when a field is missing, of another type or out of its range.
    init(body: ByteBuffer) throws {
        do {
            self = try JSONDecoder().decode(PaymentRequest.self, from: Data(body.readableBytesView))
        } catch DecodingError.keyNotFound(let key, _) {
            throw Problem(.unprocessableContent, code: "field-missing", detail: "\"\(key.stringValue)\" is missing.")
        } catch let error as DecodingError {
            guard let field = error.context.codingPath.first else {
                let detail = "The body is no payment in JSON: \(error.context.debugDescription)"
                throw Problem(.badRequest, code: "body-malformed", detail: detail)
            }
            throw Self.invalid(field.stringValue, "has the wrong type.")
        }
        guard !orderID.isEmpty else { throw Self.invalid("order_id", "is empty.") }
        guard amount > 0 else { throw Self.invalid("amount", "must be more than 0.") }
        guard currency.count == 3, currency.allSatisfy({ $0.isASCII && $0.isUppercase }) else {
            throw Self.invalid("currency", "must be three capital letters, such as EUR.")
        }
    }

    private static func invalid(_ field: String, _ reason: String) -> Problem {
        Problem(.unprocessableContent, code: "field-invalid", detail: "\"\(field)\" \(reason)")
    }
}

/// A payment that was made: the effect.
struct Payment: Codable, Sendable {
    let id: String
    let orderID: String
    let amount: Int
    let currency: String
    let status: String

    private enum CodingKeys: String, CodingKey {
        case id
        case orderID = "order_id"
        case amount, currency, status
    }

    /// A new payment, with an id that no other payment ever has: a second effect shows as a second id.
    init(_ request: PaymentRequest) {
        id = "pay_" + UUID().uuidString.filter { $0 != "-" }.lowercased()
        orderID = request.orderID
        amount = request.amount
        currency = request.currency
        status = "captured"
    }
}

extension DecodingError {
    fileprivate var context: Context {
        switch self {
        case .typeMismatch(_, let context), .valueNotFound(_, let context), .keyNotFound(_, let context), .dataCorrupted(let context):
            context
        @unknown default: Context(codingPath: [], debugDescription: "\(self)")
        }
    }
}
