/* A paced /generate server: streams sglang-style SSE at exact times and stamps every send.
 *
 *   cc -O2 -o paced_server paced_server.c
 *   ./paced_server ITL_US TOKENS TTFT_MS > stamps      prints "port N" on stderr, stops on SIGTERM
 *
 * A request's prompt holds "#k#", its number. On SIGTERM every stream that was asked for since the
 * start leaves one line on stdout:
 *   k received_ns send_ns send_ns ...                  CLOCK_MONOTONIC, taken just before send()
 * One thread: epoll, with the timeout taken from a heap of deadlines by a timerfd. The k-th stream's
 * tokens are shifted by a golden-ratio share of ITL_US, so that streams do not tick together.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

typedef struct {
    int fd, number, sent, asked_bytes;
    long long received_ns, due_ns, *stamps;
    char *asked, *out; /* the request so far; the next event, made before it is due */
    int out_bytes;
} Stream;

static Stream **heap;
static int waiting, heap_room;
static Stream **served;
static int served_count;
static long long itl_ns, ttft_ns;
static int tokens;
static volatile sig_atomic_t stopping;

static void stop(int signal_number) { (void)signal_number; stopping = 1; }

static long long now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000LL + t.tv_nsec;
}

static void heap_push(Stream *s) {
    if (waiting == heap_room) heap = realloc(heap, (heap_room = heap_room * 2 + 64) * sizeof *heap);
    int at = waiting++;
    for (; at && heap[(at - 1) / 2]->due_ns > s->due_ns; at = (at - 1) / 2) heap[at] = heap[(at - 1) / 2];
    heap[at] = s;
}

static Stream *heap_pop(void) {
    Stream *first = heap[0], *last = heap[--waiting];
    int at = 0;
    for (int child = 1; child < waiting; at = child, child = 2 * at + 1) {
        if (child + 1 < waiting && heap[child + 1]->due_ns < heap[child]->due_ns) child++;
        if (heap[child]->due_ns >= last->due_ns) break;
        heap[at] = heap[child];
    }
    heap[at] = last;
    return first;
}

/* " word word ..." and "11000,11001,...", and where the n-th token ends in each. */
static char *text, *ids;
static int *text_end, *ids_end;

static void make_texts(void) {
    text = malloc(tokens * 5 + 1), ids = malloc(tokens * 12 + 1);
    text_end = calloc(tokens + 1, sizeof(int)), ids_end = calloc(tokens + 1, sizeof(int));
    for (int n = 0; n < tokens; n++) {
        text_end[n + 1] = text_end[n] + sprintf(text + text_end[n], " word");
        ids_end[n + 1] = ids_end[n] + sprintf(ids + ids_end[n], n ? ",%d" : "%d", 11000 + n);
    }
}

static char *put(char *to, const char *from, int size) { return (char *)memcpy(to, from, size) + size; }
#define PUT(to, literal) put(to, literal, sizeof literal - 1)

/* The next event as one HTTP chunk, with the fields that sglang 0.5 sends; the last one ends all. */
static void make_event(Stream *s) {
    int n = s->sent + 1, last = n == tokens;
    char tail[512], size_line[16];
    int tail_bytes = sprintf(tail,
                             "],\"meta_info\":{\"id\":\"0123456789abcdef0123456789abcdef\",\"finish_reason\":%s,"
                             "\"prompt_tokens\":64,\"weight_version\":\"default\",\"total_retractions\":0,"
                             "\"completion_tokens\":%d,\"cached_tokens\":1,\"e2e_latency\":1.2345}}\n\n",
                             last ? "{\"type\":\"length\",\"length\":0}" : "null", n);
    int size = 15 + text_end[n] + 16 + ids_end[n] + tail_bytes;
    int line_bytes = sprintf(size_line, "%x\r\n", size);
    if (!s->out) s->out = malloc(text_end[tokens] + ids_end[tokens] + 1024);
    char *p = put(s->out, size_line, line_bytes);
    p = put(PUT(p, "data: {\"text\":\""), text, text_end[n]);
    p = put(PUT(p, "\",\"output_ids\":["), ids, ids_end[n]);
    p = PUT(put(p, tail, tail_bytes), "\r\n");
    if (last) p = PUT(p, "e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n");
    s->out_bytes = (int)(p - s->out);
}

static void drop(Stream *s) {
    close(s->fd);
    s->fd = -1;
    free(s->asked), free(s->out);
    s->asked = s->out = NULL;
}

static int send_all(Stream *s, const char *data, int size) {
    while (size > 0) {
        ssize_t n = send(s->fd, data, size, MSG_NOSIGNAL);
        if (n < 0 && errno == EAGAIN) { usleep(50); continue; }
        if (n < 0) return -1;
        data += n, size -= (int)n;
    }
    return 0;
}

static void send_next(Stream *s) {
    s->stamps[s->sent++] = now_ns();
    if (send_all(s, s->out, s->out_bytes) || s->sent == tokens) { drop(s); return; }
    s->due_ns += itl_ns;
    make_event(s);
    heap_push(s);
}

/* Reads a request; once it is whole, answers the head and puts the stream into the heap. */
static void read_request(Stream *s) {
    static const char head[] = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\n"
                               "transfer-encoding: chunked\r\n\r\n";
    static const char other[] = "HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
    s->asked = realloc(s->asked, s->asked_bytes + 65537);
    ssize_t n = recv(s->fd, s->asked + s->asked_bytes, 65536, 0);
    if (n < 0 && errno == EAGAIN) return;
    if (n <= 0) { drop(s); return; }
    s->asked[s->asked_bytes += (int)n] = 0;
    char *body = strstr(s->asked, "\r\n\r\n"), *length = strcasestr(s->asked, "content-length:");
    if (!body) return;
    if (strncmp(s->asked, "POST /generate", 14)) { send_all(s, other, sizeof other - 1); drop(s); return; }
    if (!length || s->asked + s->asked_bytes - (body + 4) < atoi(length + 15)) return;
    char *number = strchr(body, '#');
    s->number = number ? atoi(number + 1) : -1;
    s->received_ns = now_ns();
    s->stamps = calloc(tokens, sizeof *s->stamps);
    served = realloc(served, (served_count + 1) * sizeof *served);
    served[served_count++] = s;
    double turn = s->number * 0.6180339887498949;
    s->due_ns = s->received_ns + ttft_ns + (long long)((turn - (long long)turn) * itl_ns);
    if (send_all(s, head, sizeof head - 1)) { drop(s); return; }
    make_event(s);
    heap_push(s);
}

int main(int argc, char **argv) {
    if (argc != 4) { fprintf(stderr, "usage: paced_server ITL_US TOKENS TTFT_MS\n"); return 2; }
    itl_ns = atoll(argv[1]) * 1000, tokens = atoi(argv[2]), ttft_ns = atoll(argv[3]) * 1000000;
    make_texts();
    struct rlimit files;
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    signal(SIGTERM, stop), signal(SIGINT, stop);
    int on = 1, listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof address;
    if (bind(listener, (void *)&address, size) || listen(listener, 4096)) { perror("listen"); return 1; }
    getsockname(listener, (void *)&address, &size);
    fprintf(stderr, "port %d\n", ntohs(address.sin_port));
    int poller = epoll_create1(0), timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK);
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = NULL}, events[256];
    epoll_ctl(poller, EPOLL_CTL_ADD, listener, &event);
    event.data.ptr = &timer;
    epoll_ctl(poller, EPOLL_CTL_ADD, timer, &event);
    while (!stopping) {
        struct itimerspec next = {0};
        if (waiting) {
            next.it_value.tv_sec = heap[0]->due_ns / 1000000000, next.it_value.tv_nsec = heap[0]->due_ns % 1000000000;
        }
        timerfd_settime(timer, TFD_TIMER_ABSTIME, &next, NULL);
        int ready = epoll_wait(poller, events, 256, -1);
        while (waiting && heap[0]->due_ns <= now_ns()) send_next(heap_pop());
        for (int i = 0; i < ready; i++) {
            if (events[i].data.ptr == &timer) continue;
            if (events[i].data.ptr) {
                Stream *s = events[i].data.ptr;
                if (!s->stamps && s->fd >= 0) read_request(s);
                else if (s->fd >= 0) epoll_ctl(poller, EPOLL_CTL_DEL, s->fd, NULL); /* it hung up */
                continue;
            }
            int fd;
            while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK)) >= 0) {
                Stream *s = calloc(1, sizeof *s);
                s->fd = fd;
                setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
                event.data.ptr = s;
                epoll_ctl(poller, EPOLL_CTL_ADD, fd, &event);
            }
        }
    }
    for (int i = 0; i < served_count; i++) {
        printf("%d %lld", served[i]->number, served[i]->received_ns);
        for (int t = 0; t < served[i]->sent; t++) printf(" %lld", served[i]->stamps[t]);
        putchar('\n');
    }
    return 0;
}
