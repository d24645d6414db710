#include "mysql_baseline.h"

#include <mysql.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

struct worker {
    const char *host, *database;
    int port, rows, failed;
    unsigned long long seed;
    pthread_barrier_t *start;
};

static unsigned long long next(unsigned long long *state) {
    unsigned long long value = *state += 0x9E3779B97F4A7C15ull;
    value = (value ^ (value >> 30)) * 0xBF58476D1CE4E5B9ull;
    value = (value ^ (value >> 27)) * 0x94D049BB133111EBull;
    return value ^ (value >> 31);
}

static MYSQL *connect_to(const char *host, int port, const char *database) {
    MYSQL *mysql = mysql_init(NULL);
    if (mysql && mysql_real_connect(mysql, host, "root", "", database, (unsigned)port, NULL, 0)) return mysql;
    fprintf(stderr, "baseline: %s\n", mysql ? mysql_error(mysql) : "no memory");
    return NULL;
}

static void *insert(void *argument) {
    struct worker *worker = argument;
    char key[52], value[200];
    memset(key, 'k', sizeof key);
    memset(value, 'x', sizeof value);
    const char *sql = "INSERT IGNORE INTO baseline VALUES (?, ?)";
    MYSQL *mysql = connect_to(worker->host, worker->port, worker->database);
    MYSQL_STMT *statement = mysql ? mysql_stmt_init(mysql) : NULL;
    MYSQL_BIND bind[2];
    memset(bind, 0, sizeof bind);
    bind[0].buffer_type = bind[1].buffer_type = MYSQL_TYPE_BLOB;
    bind[0].buffer = key;
    bind[0].buffer_length = sizeof key;
    bind[1].buffer = value;
    bind[1].buffer_length = sizeof value;
    worker->failed = !statement || mysql_stmt_prepare(statement, sql, strlen(sql)) || mysql_stmt_bind_param(statement, bind);
    pthread_barrier_wait(worker->start);
    for (int row = 0; row < worker->rows && !worker->failed; row++) {
        for (int word = 0; word < 4; word++) {
            unsigned long long number = next(&worker->seed);
            memcpy(key + 16 + 8 * word, &number, 8);
        }
        worker->failed = mysql_stmt_execute(statement) || mysql_stmt_affected_rows(statement) != 1;
    }
    if (worker->failed && mysql) fprintf(stderr, "baseline: %s\n", mysql_error(mysql));
    if (statement) mysql_stmt_close(statement);
    if (mysql) mysql_close(mysql);
    return NULL;
}

double baseline_insert_ignore(const char *host, int port, const char *database, int connections, int rows) {
    MYSQL *mysql = connect_to(host, port, database);
    if (!mysql) return -1;
    int failed = mysql_query(mysql, "DROP TABLE IF EXISTS baseline") ||
        mysql_query(mysql, "CREATE TABLE baseline (id VARBINARY(64) PRIMARY KEY, value VARBINARY(255) NOT NULL) ENGINE=InnoDB");
    mysql_close(mysql);
    if (failed) return -1;

    pthread_barrier_t start;
    pthread_barrier_init(&start, NULL, (unsigned)connections + 1);
    pthread_t threads[connections];
    struct worker workers[connections];
    for (int index = 0; index < connections; index++) {
        workers[index] = (struct worker){host, database, port, rows / connections, 0, (unsigned long long)time(NULL) * 1000 + (unsigned)index * 7919u, &start};
        pthread_create(&threads[index], NULL, insert, &workers[index]);
    }
    struct timespec from, to;
    pthread_barrier_wait(&start);
    clock_gettime(CLOCK_MONOTONIC, &from);
    for (int index = 0; index < connections; index++) {
        pthread_join(threads[index], NULL);
        failed |= workers[index].failed;
    }
    clock_gettime(CLOCK_MONOTONIC, &to);
    pthread_barrier_destroy(&start);
    return failed ? -1 : (double)(to.tv_sec - from.tv_sec) + (double)(to.tv_nsec - from.tv_nsec) * 1e-9;
}
