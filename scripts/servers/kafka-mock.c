/* librdkafka's mock Kafka cluster as a process of its own.
 *   kafka-mock BROKERS BOOTSTRAP_FILE COMMAND_FIFO
 * Commands, one a line:
 *   down BROKER · up BROKER · rtt BROKER MILLISECONDS · errors API_KEY CODE COUNT
 *   topic NAME PARTITIONS REPLICAS · leader TOPIC PARTITION BROKER */
#include <librdkafka/rdkafka.h>
#include <librdkafka/rdkafka_mock.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static int run(rd_kafka_mock_cluster_t *cluster, const char *line) {
    char topic[200];
    int a, b, c;
    if (sscanf(line, "down %d", &a) == 1) return rd_kafka_mock_broker_set_down(cluster, a) == 0;
    if (sscanf(line, "up %d", &a) == 1) return rd_kafka_mock_broker_set_up(cluster, a) == 0;
    if (sscanf(line, "rtt %d %d", &a, &b) == 2) return rd_kafka_mock_broker_set_rtt(cluster, a, b) == 0;
    if (sscanf(line, "topic %199s %d %d", topic, &a, &b) == 3) return rd_kafka_mock_topic_create(cluster, topic, a, b) == 0;
    if (sscanf(line, "leader %199s %d %d", topic, &a, &b) == 3)
        return rd_kafka_mock_partition_set_leader(cluster, topic, a, b) == 0;
    if (sscanf(line, "errors %d %d %d", &a, &b, &c) == 3) {
        while (c-- > 0) rd_kafka_mock_push_request_errors(cluster, a, 1, (rd_kafka_resp_err_t)b);
        return 1;
    }
    return 0;
}

int main(int count, char **arguments) {
    char text[4096];
    if (count != 4) {
        fprintf(stderr, "usage: %s BROKERS BOOTSTRAP_FILE COMMAND_FIFO\n", arguments[0]);
        return 2;
    }
    rd_kafka_t *handle = rd_kafka_new(RD_KAFKA_PRODUCER, rd_kafka_conf_new(), text, sizeof text);
    if (!handle) {
        fprintf(stderr, "%s\n", text);
        return 1;
    }
    rd_kafka_mock_cluster_t *cluster = rd_kafka_mock_cluster_new(handle, atoi(arguments[1]));
    if (!cluster) {
        fprintf(stderr, "no cluster of %s brokers\n", arguments[1]);
        return 1;
    }
    if (mkfifo(arguments[3], 0600) != 0) perror(arguments[3]);

    /* Written aside and moved, so that nobody reads half of it. */
    snprintf(text, sizeof text, "%s.new", arguments[2]);
    FILE *file = fopen(text, "w");
    if (!file) {
        perror(text);
        return 1;
    }
    fprintf(file, "%s\n", rd_kafka_mock_cluster_bootstraps(cluster));
    fclose(file);
    if (rename(text, arguments[2]) != 0) {
        perror(arguments[2]);
        return 1;
    }

    for (;;) {
        char line[256];
        FILE *commands = fopen(arguments[3], "r");
        if (!commands) {
            perror(arguments[3]);
            return 1;
        }
        while (fgets(line, sizeof line, commands)) {
            printf("%s %s", run(cluster, line) ? "did" : "refused", line);
            fflush(stdout);
        }
        fclose(commands);
    }
}
