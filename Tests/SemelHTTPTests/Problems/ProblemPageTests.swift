import HTTPTypes
import Hummingbird
import SemelHTTP
import Testing
#if canImport(Glibc)
import Glibc
#endif

@Suite("Pages of problems")
struct ProblemPageTests {
    @Test("the page in docs/problems is the one that is served", arguments: ProblemCode.allCases)
    func documented(_ code: ProblemCode) throws {
        let root = #filePath.split(separator: "/").dropLast(4).joined(separator: "/")
        let path = "/\(root)/docs/problems/\(code.rawValue).md"
        let page = ProblemPage(code).markdown
        // SEMEL_WRITE_DOCS=1 writes the pages instead, after a text was changed.
        if getenv("SEMEL_WRITE_DOCS") != nil {
            let file = fopen(path, "w")
            #expect(file != nil)
            fputs(page, file)
            fclose(file)
        }
        #expect(try contents(of: path) == page)
    }

    private func contents(of path: String) throws -> String {
        let file = try #require(fopen(path, "r"), "\(path) is missing")
        defer { fclose(file) }
        var bytes = [UInt8](repeating: 0, count: 1 << 16)
        let count = fread(&bytes, 1, bytes.count, file)
        return String(decoding: bytes[..<count], as: UTF8.self)
    }

    @Test("the link of a problem leads to its page")
    func links() async throws {
        try await TestService.run { service async throws in
            let problem = try await service.send(key: nil)
            let link = try #require(problem["Link"]?.split(separator: ">").first?.dropFirst())
            let page = try await service.send(.get, String(link), key: nil, body: "")
            #expect(page.status == 200 && page["Content-Type"] == "text/markdown; charset=utf-8" && page.text == ProblemPage(.keyMissing).markdown)
            #expect(try await service.send(.get, "/.well-known/semel/problems/nonsense", key: nil, body: "").status == 404)
        }
    }

    @Test("a policy may point elsewhere")
    func elsewhere() async throws {
        try await TestService.run(.test { $0.problemPages = "https://example.com/problems/" }) { service async throws in
            #expect(try await service.send(key: nil)["Link"] == "<https://example.com/problems/key-missing>; rel=\"describedby\"")
        }
    }
}
