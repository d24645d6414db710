import Foundation
import SemelServer

/// A certificate for localhost that nobody else trusts, valid from 2020 to 2120. The key is no secret: it is used here only.
enum TestCertificate {
    static let certificate = """
        -----BEGIN CERTIFICATE-----
        MIIBZzCCAQ2gAwIBAgIBATAKBggqhkjOPQQDAjAUMRIwEAYDVQQDDAlsb2NhbGhv
        c3QwIBcNMjAwMTAxMDAwMDAwWhgPMjEyMDAxMDEwMDAwMDBaMBQxEjAQBgNVBAMM
        CWxvY2FsaG9zdDBZMBMGByqGSM49AgEGCCqGSM49AwEHA0IABLzrI5qoiVi0xqMW
        7tSL+Xmvazp7Z67sIkxjCu4pqkWiC6RH09kO/YHNjjzZWi1kVyw1/BY53AAoLx+P
        wJKRZjqjTjBMMA8GA1UdEwEB/wQFMAMBAf8wGgYDVR0RBBMwEYIJbG9jYWxob3N0
        hwR/AAABMB0GA1UdDgQWBBRB6TIKYSO03HTQHaE4ge3VetBXWTAKBggqhkjOPQQD
        AgNIADBFAiB+IfcXRgtOl7GCi4s/0erCn7+Vq7mRGu0pesBgxQyycQIhAOPk3021
        HVu996woUcCNPVYTMTdFFfLNadl9BKKc5x34
        -----END CERTIFICATE-----

        """
    private static let key = """
        -----BEGIN PRIVATE KEY-----
        MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgI7c5VARaJqCysHDa
        dYh6eaXdlJo6KBxbzhPzfmCK+syhRANCAAS86yOaqIlYtMajFu7Ui/l5r2s6e2eu
        7CJMYwruKapFogukR9PZDv2BzY482VotZFcsNfwWOdwAKC8fj8CSkWY6
        -----END PRIVATE KEY-----

        """

    static func write(to folder: String) throws -> TLSFiles {
        let files = TLSFiles(certificate: "\(folder)/certificate.pem", key: "\(folder)/key.pem")
        try certificate.write(toFile: files.certificate, atomically: true, encoding: .utf8)
        try key.write(toFile: files.key, atomically: true, encoding: .utf8)
        return files
    }
}
