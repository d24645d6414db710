#pragma once

/// What MariaDB itself can do with one row per statement and transaction: INSERT IGNORE of fresh random keys by a prepared
/// statement, from so many connections at once. A key has 52 bytes, a value 200.
///
/// Makes the table `baseline` anew. Returns the seconds it took, or a negative number when the server reported an error.
double baseline_insert_ignore(const char *host, int port, const char *database, int connections, int rows);
