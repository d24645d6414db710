#pragma once

/// What SQLite itself can do: claims and completes `pairs` fresh keys in a table with a unique key, `batch` claims per
/// transaction, then their completions in another, with WAL and synchronous=FULL.
///
/// A key has 52 bytes (16 of scope, 36 of key), an outcome 200. Returns the seconds it took, or a negative number when
/// SQLite reported an error.
double baseline_claim_and_complete(const char *path, int pairs, int batch);
