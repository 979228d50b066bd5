/* An HTTP/1.1 load generator for the benchmarks: one thread, epoll, kept-alive
 * connections, every answer checked.
 *
 *   load --connect 127.0.0.1:8080 --requests FILE --expect '200:"allow"' [options]
 *
 * FILE holds records of (u32 length, u32 kind, u32 own length, bytes, own text),
 * little-endian; the bytes are sent round-robin, exactly as they are, but for sixteen
 * '@' in a row, which become a number never used before (a trace header that is new
 * each time). The n-th --expect is what an answer to a request of kind n must have: a
 * status and a text within its body ('200*32:TEXT': 32 times); the own text of the
 * record must be there too, unless it is empty, and the text of --never must not. A closed loop by default; with --rate an open one with Poisson arrivals, where
 * latency counts from the moment a request was due, not from when it could be sent.
 * Prints one JSON object. Latencies are in microseconds.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <glob.h>
#include <math.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sched.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#define MARK "@@@@@@@@@@@@@@@@"
#define MARK_LENGTH 16
#define KINDS 32
#define BUSY 2000
#define SECOND 1000000000ull
#define GRACE (5 * SECOND)

typedef struct { char *bytes, *mark, *own; uint32_t length, kind, own_length; } Request;
typedef struct { int status, times; const char *text; size_t length; uint64_t answers, mismatches; } Expected;
typedef struct {
    int fd, busy, waits_to_write;
    const Request *request;
    size_t sent, filled, room;
    char *answer;
    uint64_t since;
} Connection;

static const char *target, *never = "";
static Request *requests;
static size_t request_count, next_request;
static Expected expected[KINDS];
static int kinds, once, poller, watched[64], watched_count;
static double rate, seconds = 3, warmup = 1;
static Connection *connections;
static int connection_count = 32;
static int *idle, idle_head, idle_count;
static uint32_t *latencies;
static size_t latency_count, latency_room;
static uint64_t begin_at, measure_at, end_at, due, stamps, errors, reconnects, given_up;
static char sample[400];

static void fail(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    vfprintf(stderr, format, arguments);
    va_end(arguments);
    fputc('\n', stderr);
    exit(2);
}

static uint64_t now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (uint64_t)time.tv_sec * SECOND + (uint64_t)time.tv_nsec;
}

/* Processor time of the watched processes, all threads, in ns: the scheduler's own count. */
static uint64_t watched_cpu(void)
{
    uint64_t total = 0;
    for (int i = 0; i < watched_count; i++) {
        char pattern[64];
        glob_t found;
        snprintf(pattern, sizeof pattern, "/proc/%d/task/*/schedstat", watched[i]);
        if (glob(pattern, 0, NULL, &found) != 0)
            continue;
        for (size_t j = 0; j < found.gl_pathc; j++) {
            FILE *file = fopen(found.gl_pathv[j], "r");
            unsigned long long used = 0;
            if (file != NULL) {
                if (fscanf(file, "%llu", &used) == 1)
                    total += used;
                fclose(file);
            }
        }
        globfree(&found);
    }
    return total;
}

static uint64_t own_cpu(void)
{
    struct rusage use;
    getrusage(RUSAGE_SELF, &use);
    return (uint64_t)(use.ru_utime.tv_sec + use.ru_stime.tv_sec) * 1000000 + (uint64_t)(use.ru_utime.tv_usec + use.ru_stime.tv_usec);
}

static void read_requests(const char *path)
{
    struct stat about;
    int fd = open(path, O_RDONLY);
    if (fd < 0 || fstat(fd, &about) < 0 || about.st_size < 13)
        fail("%s: no requests in it", path);
    char *all = mmap(NULL, (size_t)about.st_size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_POPULATE, fd, 0);
    if (all == MAP_FAILED)
        fail("%s: %s", path, strerror(errno));
    size_t room = 0;
    for (char *at = all; at < all + about.st_size;) {
        uint32_t head[3];
        memcpy(head, at, sizeof head);
        if (head[1] >= KINDS || at + sizeof head + head[0] + head[2] > all + about.st_size)
            fail("%s: a broken record", path);
        if (request_count == room) {
            room = room ? room * 2 : 1024;
            requests = realloc(requests, room * sizeof *requests);
        }
        char *bytes = at + sizeof head;
        requests[request_count++] = (Request){bytes, memmem(bytes, head[0], MARK, MARK_LENGTH), bytes + head[0], head[0], head[1], head[2]};
        at = bytes + head[0] + head[2];
    }
}

static int open_socket(void)
{
    int fd, one = 1;
    if (strncmp(target, "unix:", 5) == 0) {
        struct sockaddr_un address = {.sun_family = AF_UNIX};
        snprintf(address.sun_path, sizeof address.sun_path, "%s", target + 5);
        fd = socket(AF_UNIX, SOCK_STREAM, 0);
        if (connect(fd, (struct sockaddr *)&address, sizeof address) < 0)
            fail("%s: %s", target, strerror(errno));
    } else {
        struct sockaddr_in address = {.sin_family = AF_INET};
        char host[64];
        int port = 0;
        if (sscanf(target, "%63[^:]:%d", host, &port) != 2 || inet_pton(AF_INET, host, &address.sin_addr) != 1)
            fail("%s: not an address", target);
        address.sin_port = htons((uint16_t)port);
        fd = socket(AF_INET, SOCK_STREAM, 0);
        if (connect(fd, (struct sockaddr *)&address, sizeof address) < 0)
            fail("%s: %s", target, strerror(errno));
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    }
    fcntl(fd, F_SETFL, O_NONBLOCK);
    return fd;
}

static void attach(Connection *connection)
{
    connection->fd = open_socket();
    connection->filled = 0;
    connection->waits_to_write = 0;
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = connection};
    epoll_ctl(poller, EPOLL_CTL_ADD, connection->fd, &event);
}

static void rest(Connection *connection)
{
    connection->busy = 0;
    idle[(idle_head + idle_count++) % connection_count] = (int)(connection - connections);
}

/* The connection went away: an error when an answer was owed, and a new one takes its place. */
static void replace(Connection *connection)
{
    errors += (uint64_t)connection->busy;
    reconnects++;
    close(connection->fd);
    attach(connection);
    if (connection->busy)
        rest(connection);
}

static void want(Connection *connection, int write)
{
    if (connection->waits_to_write == write)
        return;
    connection->waits_to_write = write;
    struct epoll_event event = {.events = EPOLLIN | (write ? EPOLLOUT : 0u), .data.ptr = connection};
    epoll_ctl(poller, EPOLL_CTL_MOD, connection->fd, &event);
}

static void push(Connection *connection)
{
    const Request *request = connection->request;
    ssize_t sent = send(connection->fd, request->bytes + connection->sent, request->length - connection->sent, MSG_NOSIGNAL);
    if (sent < 0 && errno != EAGAIN) {
        replace(connection);
        return;
    }
    connection->sent += sent > 0 ? (size_t)sent : 0;
    want(connection, connection->sent < request->length);
}

static void stamp(char *mark)
{
    static const char digits[] = "0123456789abcdef";
    uint64_t number = ++stamps * 0x9e3779b97f4a7c15ull;
    for (int i = 0; i < MARK_LENGTH; i++, number >>= 4)
        mark[i] = digits[number & 15];
}

static int ask(Connection *connection, uint64_t since)
{
    if (once && next_request == request_count)
        return 0;
    const Request *request = &requests[next_request++ % request_count];
    if (request->mark != NULL)
        stamp(request->mark);
    connection->busy = 1;
    connection->request = request;
    connection->sent = 0;
    connection->since = since;
    push(connection);
    return 1;
}

static void record(uint64_t taken)
{
    if (latency_count == latency_room) {
        latency_room = latency_room ? latency_room * 2 : 1 << 20;
        latencies = realloc(latencies, latency_room * sizeof *latencies);
        if (latencies == NULL)
            fail("out of memory");
    }
    latencies[latency_count++] = taken > UINT32_MAX ? UINT32_MAX : (uint32_t)taken;
}

static int holds(const char *body, size_t length, const char *text, size_t text_length, int times)
{
    const char *end = body + length;
    for (; text_length > 0 && times > 0; times--, body += text_length)
        if ((body = memmem(body, (size_t)(end - body), text, text_length)) == NULL)
            return 0;
    return 1;
}

static void judge(Connection *connection, int status, const char *body, size_t length)
{
    uint64_t at = now();
    Expected *wanted = &expected[connection->request->kind];
    const Request *asked = connection->request;
    int right = status == wanted->status && holds(body, length, wanted->text, wanted->length, wanted->times)
                && holds(body, length, asked->own, asked->own_length, 1) && !(*never && holds(body, length, never, strlen(never), 1));
    if (!right && sample[0] == 0)
        snprintf(sample, sizeof sample, "kind %u: %d %.*s", connection->request->kind, status, length > 300 ? 300 : (int)length, body);
    wanted->mismatches += !right;
    if ((rate > 0 ? connection->since : at) < measure_at || (!once && rate == 0 && at > end_at))
        return;
    wanted->answers++;
    record(at - connection->since);
}

/* Take one whole answer off the buffer; 0 when more must come first, -1 when it makes no sense. */
static int take_answer(Connection *connection)
{
    char *answer = connection->answer, *end = memmem(answer, connection->filled, "\r\n\r\n", 4);
    if (end == NULL)
        return 0;
    size_t head = (size_t)(end - answer) + 4, body = 0;
    *end = 0;
    int status = head > 13 ? atoi(answer + 9) : 0;
    const char *length = strcasestr(answer, "\r\nContent-Length:");
    int closes = strcasestr(answer, "\r\nConnection: close") != NULL;
    if (length != NULL)
        body = strtoul(length + 17, NULL, 10);
    else if (status != 204 && status != 100)
        return -1;
    *end = '\r';
    if (connection->filled < head + body)
        return 0;
    if (status != 100) {
        judge(connection, status, answer + head, body);
        connection->busy = 0;
    }
    connection->filled -= head + body;
    memmove(answer, answer + head + body, connection->filled);
    if (status == 100)
        return take_answer(connection);
    if (closes)
        replace(connection);
    rest(connection);
    return 1;
}

static void pull(Connection *connection)
{
    if (connection->room - connection->filled < 4096) {
        connection->room += 65536;
        connection->answer = realloc(connection->answer, connection->room);
    }
    ssize_t got = recv(connection->fd, connection->answer + connection->filled, connection->room - connection->filled - 1, 0);
    if (got < 0 && errno == EAGAIN)
        return;
    if (got <= 0) {
        replace(connection);
        return;
    }
    connection->filled += (size_t)got;
    connection->answer[connection->filled] = 0;
    if (!connection->busy || take_answer(connection) < 0)
        replace(connection);
}

static double exponential(void)
{
    return -log(1.0 - drand48()) / rate;
}

/* Give the connections at rest what is due; returns whether there will be more to send. */
static int dispatch(void)
{
    uint64_t at = now();
    while (idle_count > 0) {
        if (rate > 0 ? due > at || due > end_at : !once && at > end_at)
            break;
        Connection *connection = &connections[idle[idle_head]];
        idle_head = (idle_head + 1) % connection_count;
        idle_count--;
        if (!ask(connection, rate > 0 ? due : now())) {
            rest(connection);
            return 0;
        }
        if (rate > 0)
            due += (uint64_t)(exponential() * 1e9);
    }
    return rate > 0 ? due <= end_at : once ? next_request < request_count : at <= end_at;
}

/* At a low rate, what is late here would be counted as the server's: go before the stores on this core, where that is allowed. */
static void hurry(void)
{
    struct sched_param first = {.sched_priority = 1};
    if (rate > 0 && rate < BUSY)
        sched_setscheduler(0, SCHED_FIFO, &first);
}

/* Wait for answers, at a rate no longer than until the next request is due. At a high one without sleep, but after everybody
 * else on this core: to wake a sleeping peer costs the server as much as to answer, which a busy platform does not make it pay. */
static int await_events(struct epoll_event *events, int room, int due_next)
{
    int count = 0;
    if (rate >= BUSY) {
        if ((count = epoll_wait(poller, events, room, 0)) == 0)
            sched_yield();
        return count;
    }
    uint64_t at = now(), wait = due_next ? (due > at ? due - at : 0) : SECOND / 10;
    struct timespec left = {.tv_sec = (time_t)(wait / SECOND), .tv_nsec = (long)(wait % SECOND)};
    if ((count = epoll_pwait2(poller, events, room, &left, NULL)) < 0 && errno != EINTR)
        fail("epoll: %s", strerror(errno));
    return count;
}

static void handle(const struct epoll_event *event)
{
    Connection *connection = event->data.ptr;
    if (event->events & EPOLLOUT)
        push(connection);
    if (event->events & (EPOLLIN | EPOLLHUP | EPOLLERR))
        pull(connection);
}

/* A server that is far behind would be waited for without end: what was due and has not been sent is late by now, and by
 * no less, so that is what it is charged with; what it owes an answer for is still waited for. */
static void give_up(uint64_t at)
{
    for (; due <= end_at; due += (uint64_t)(exponential() * 1e9))
        if (due >= measure_at) {
            record(at - due);
            given_up++;
        }
}

static void run(uint64_t *server_cpu, uint64_t *generator_cpu)
{
    struct epoll_event events[256];
    int measuring = 0, more = 1;
    while (more || idle_count < connection_count) {
        uint64_t at = now();
        if (!measuring && at >= measure_at) {
            measuring = 1;
            *server_cpu = watched_cpu();
            *generator_cpu = own_cpu();
        }
        if (!once && at > end_at + (rate > 0 ? 2 : 1) * GRACE)
            break;
        if (!once && rate > 0 && at > end_at + GRACE)
            give_up(at);
        more = dispatch();
        if (!more && idle_count == connection_count)
            break;
        int count = await_events(events, 256, rate > 0 && more && idle_count > 0);
        for (int i = 0; i < count; i++) {
            handle(&events[i]);
            dispatch();
        }
    }
    if (once || rate > 0)
        end_at = now();
    *server_cpu = watched_cpu() - *server_cpu;
    *generator_cpu = own_cpu() - *generator_cpu;
}

static int compare(const void *a, const void *b)
{
    uint32_t left = *(const uint32_t *)a, right = *(const uint32_t *)b;
    return (left > right) - (left < right);
}

static double percentile(double share)
{
    if (latency_count == 0)
        return 0;
    size_t rank = (size_t)ceil(share * (double)latency_count);
    return latencies[rank > 0 ? rank - 1 : 0] / 1000.0;
}

static void print_text(const char *text)
{
    putchar('"');
    for (; *text != 0; text++) {
        unsigned char c = (unsigned char)*text;
        if (c == '"' || c == '\\')
            printf("\\%c", c);
        else if (c < 32 || c > 126)
            printf("\\u%04x", c);
        else
            putchar(c);
    }
    putchar('"');
}

static void print_counts(const char *name, int mismatches)
{
    printf(",\"%s\":[", name);
    for (int i = 0; i < kinds; i++)
        printf("%s%llu", i ? "," : "", (unsigned long long)(mismatches ? expected[i].mismatches : expected[i].answers));
    printf("]");
}

static void report(uint64_t server_cpu, uint64_t generator_cpu)
{
    double span = (double)(end_at - measure_at) / 1e9;
    uint64_t wrong = 0, unsent = 0;
    for (int i = 0; i < kinds; i++)
        wrong += expected[i].mismatches;
    for (int i = 0; i < connection_count; i++)
        unsent += (uint64_t)connections[i].busy;
    qsort(latencies, latency_count, sizeof *latencies, compare);
    printf("{\"generator\":\"c\",\"requests\":%zu,\"seconds\":%.6f,\"rps\":%.1f", latency_count, span, (double)latency_count / span);
    printf(",\"errors\":%llu,\"unanswered\":%llu,\"mismatches\":%llu,\"reconnects\":%llu,\"given_up\":%llu", (unsigned long long)errors,
           (unsigned long long)unsent, (unsigned long long)wrong, (unsigned long long)reconnects, (unsigned long long)given_up);
    printf(",\"p50_us\":%.1f,\"p90_us\":%.1f,\"p99_us\":%.1f,\"p999_us\":%.1f,\"max_us\":%.1f", percentile(0.5), percentile(0.9),
           percentile(0.99), percentile(0.999), percentile(1));
    printf(",\"server_cpu_us\":%.1f,\"generator_cpu_us\":%.1f", (double)server_cpu / 1000, (double)generator_cpu);
    print_counts("answers_by_kind", 0);
    print_counts("mismatches_by_kind", 1);
    printf(",\"sample\":");
    print_text(sample);
    printf("}\n");
}

static void expect(char *text)
{
    char *colon = strchr(text, ':');
    if (colon == NULL || kinds == KINDS)
        fail("--expect STATUS:TEXT, at most %d times", KINDS);
    const char *star = strchr(text, '*');
    int times = star != NULL && star < colon ? atoi(star + 1) : 1;
    expected[kinds++] = (Expected){.status = atoi(text), .times = times, .text = colon + 1, .length = strlen(colon + 1)};
}

static void pin(int cpu)
{
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(cpu, &set);
    sched_setaffinity(0, sizeof set, &set);
}

static void read_options(int count, char **arguments)
{
    static const struct option options[] = {
        {"connect", 1, 0, 'a'}, {"requests", 1, 0, 'f'}, {"expect", 1, 0, 'e'}, {"connections", 1, 0, 'c'}, {"seconds", 1, 0, 's'}, {"warmup", 1, 0, 'w'},
        {"rate", 1, 0, 'r'},    {"once", 0, 0, 'o'},     {"cpu", 1, 0, 'p'},    {"watch", 1, 0, 'i'},       {"never", 1, 0, 'n'},  {0, 0, 0, 0},
    };
    for (int found; (found = getopt_long(count, arguments, "", options, NULL)) != -1;) {
        switch (found) {
        case 'a': target = optarg; break;
        case 'f': read_requests(optarg); break;
        case 'e': expect(optarg); break;
        case 'c': connection_count = atoi(optarg); break;
        case 's': seconds = atof(optarg); break;
        case 'w': warmup = atof(optarg); break;
        case 'r': rate = atof(optarg); break;
        case 'n': never = optarg; break;
        case 'o': once = 1; break;
        case 'p': pin(atoi(optarg)); break;
        case 'i': watched[watched_count < 63 ? watched_count++ : 63] = atoi(optarg); break;
        default: fail("see the top of load.c for the options");
        }
    }
    if (target == NULL || request_count == 0 || kinds == 0 || connection_count < 1)
        fail("--connect, --requests and --expect are required");
    for (size_t i = 0; i < request_count; i++)
        if ((int)requests[i].kind >= kinds)
            fail("a request of kind %u, but %d times --expect", requests[i].kind, kinds);
}

int main(int count, char **arguments)
{
    uint64_t server_cpu = 0, generator_cpu = 0;
    read_options(count, arguments);
    hurry();
    poller = epoll_create1(0);
    connections = calloc((size_t)connection_count, sizeof *connections);
    idle = calloc((size_t)connection_count, sizeof *idle);
    srand48((long)now());
    stamps = now();
    for (int i = 0; i < connection_count; i++) {
        attach(&connections[i]);
        rest(&connections[i]);
    }
    begin_at = due = now();
    measure_at = begin_at + (once ? 0 : (uint64_t)(warmup * 1e9));
    end_at = measure_at + (uint64_t)(seconds * 1e9);
    run(&server_cpu, &generator_cpu);
    report(server_cpu, generator_cpu);
    return 0;
}
