#include "include/baseline.h"

#include <sqlite3.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { key_size = 52, outcome_size = 200 };

static double seconds(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + (double)time.tv_nsec * 1e-9;
}

static uint64_t next_random(uint64_t *state) {
    uint64_t value = (*state += 0x9E3779B97F4A7C15u);
    value = (value ^ (value >> 30)) * 0xBF58476D1CE4E5B9u;
    value = (value ^ (value >> 27)) * 0x94D049BB133111EBu;
    return value ^ (value >> 31);
}

static int run(sqlite3_stmt *statement) {
    int code = sqlite3_step(statement);
    sqlite3_reset(statement);
    return code == SQLITE_DONE || code == SQLITE_ROW;
}

double baseline_claim_and_complete(const char *path, int pairs, int batch) {
    sqlite3 *database = NULL;
    sqlite3_stmt *begin = NULL, *commit = NULL, *claim = NULL, *complete = NULL;
    unsigned char *keys = malloc((size_t)batch * key_size);
    unsigned char filler[outcome_size];
    uint64_t random = 1;
    double result = -1;
    memset(filler, 'x', sizeof filler);

    if (sqlite3_open(path, &database) != SQLITE_OK) goto end;
    if (sqlite3_exec(database,
            "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;"
            "CREATE TABLE operation (id INTEGER PRIMARY KEY, key BLOB NOT NULL UNIQUE, state INTEGER NOT NULL, epoch INTEGER NOT NULL,"
            " owner BLOB NOT NULL, fingerprint BLOB NOT NULL, lease INTEGER NOT NULL, changed INTEGER NOT NULL, outcome BLOB)",
            NULL, NULL, NULL) != SQLITE_OK) goto end;
    if (sqlite3_prepare_v2(database, "BEGIN", -1, &begin, NULL) != SQLITE_OK) goto end;
    if (sqlite3_prepare_v2(database, "COMMIT", -1, &commit, NULL) != SQLITE_OK) goto end;
    if (sqlite3_prepare_v2(database,
            "INSERT INTO operation (key, state, epoch, owner, fingerprint, lease, changed) VALUES (?1, 1, ?2, ?3, ?4, ?5, ?5)",
            -1, &claim, NULL) != SQLITE_OK) goto end;
    if (sqlite3_prepare_v2(database,
            "UPDATE operation SET state = 5, outcome = ?1, changed = ?2 WHERE key = ?3 AND epoch = ?4",
            -1, &complete, NULL) != SQLITE_OK) goto end;

    const sqlite3_int64 time = 1767225600000000;
    double start = seconds();
    for (int done = 0; done < pairs; done += batch) {
        for (int i = 0; i < batch * key_size; i++) keys[i] = (unsigned char)next_random(&random);
        if (!run(begin)) goto end;
        for (int i = 0; i < batch; i++) {
            sqlite3_bind_blob(claim, 1, keys + i * key_size, key_size, SQLITE_STATIC);
            sqlite3_bind_int64(claim, 2, time + done + i);
            sqlite3_bind_blob(claim, 3, filler, 16, SQLITE_STATIC);
            sqlite3_bind_blob(claim, 4, filler, 32, SQLITE_STATIC);
            sqlite3_bind_int64(claim, 5, time);
            if (!run(claim)) goto end;
        }
        if (!run(commit)) goto end;
        if (!run(begin)) goto end;
        for (int i = 0; i < batch; i++) {
            sqlite3_bind_blob(complete, 1, filler, outcome_size, SQLITE_STATIC);
            sqlite3_bind_int64(complete, 2, time);
            sqlite3_bind_blob(complete, 3, keys + i * key_size, key_size, SQLITE_STATIC);
            sqlite3_bind_int64(complete, 4, time + done + i);
            if (!run(complete) || sqlite3_changes(database) != 1) goto end;
        }
        if (!run(commit)) goto end;
    }
    result = seconds() - start;

end:
    sqlite3_finalize(begin);
    sqlite3_finalize(commit);
    sqlite3_finalize(claim);
    sqlite3_finalize(complete);
    sqlite3_close(database);
    free(keys);
    return result;
}
