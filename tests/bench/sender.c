/* Sends small vsock frames out of an interface as fast as it can, or at a given rate.
 *
 *     sender IFACE PACKETS [PACKETS_PER_SECOND [PAYLOAD]]
 *
 * 1,000 connections take turns, with REQUEST and RESPONSE first, then RW packets of one
 * byte, or of PAYLOAD and an empty line, with a CREDIT_UPDATE behind every 15 of them;
 * what was sent is printed as packets and nanoseconds.  Little-endian machines only.
 */
#define _GNU_SOURCE
#include <linux/if_packet.h>
#include <net/if.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

enum { BATCH = 64, CONNECTIONS = 1000, UPDATES = 16, HEADERS = 76, MOST = 1024 };

static uint64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000000000ull + now.tv_nsec;
}

static void put(unsigned char *frame, int at, uint64_t value, int size)
{
    memcpy(frame + at, &value, size);
}

static int make(unsigned char *frame, uint64_t number, const char *payload, int size)
{
    uint64_t round = number / CONNECTIONS, port = 1024 + number % CONNECTIONS;
    int update = round > 1 && round % UPDATES == 0, back = round == 1 || update, at;
    int data = round > 1 && !update;
    uint64_t sent = round > 1 ? size * (round - 2 - (round - 1) / UPDATES) : 0;
    memset(frame, 0, HEADERS);
    for (at = 0; at <= 32; at += 32) { /* both headers begin with the same addresses */
        put(frame, at + 8 * back, 3, 8);
        put(frame, at + 8 * !back, 2, 8);
        put(frame, at + 16 + 4 * back, port, 4);
        put(frame, at + 16 + 4 * !back, 5000, 4);
    }
    put(frame, 24, data ? 4 : update ? 3 : 1, 2); /* PAYLOAD, CONTROL, CONNECT */
    put(frame, 26, 2, 2);                         /* virtio */
    put(frame, 28, 44, 2);
    put(frame, 56, data ? size : 0, 4);
    put(frame, 60, 1, 2);                                          /* STREAM */
    put(frame, 62, data ? 5 : update ? 6 : round == 1 ? 2 : 1, 2); /* RW, CREDIT_UPDATE, ... */
    put(frame, 68, 262144, 4);
    put(frame, 72, update ? sent : 0, 4);
    memcpy(frame + HEADERS, payload, data ? size : 0);
    return HEADERS + (data ? size : 0);
}

int main(int argc, char **argv)
{
    static unsigned char frames[BATCH][HEADERS + MOST];
    static char payload[MOST];
    static struct mmsghdr messages[BATCH];
    static struct iovec parts[BATCH];
    struct sockaddr_ll to = {.sll_family = AF_PACKET};
    uint64_t total, rate, number = 0, began;
    int fd = socket(AF_PACKET, SOCK_RAW, 0), size = 1, i;

    if (argc < 3)
        return 2;
    total = strtoull(argv[2], 0, 10);
    rate = argc > 3 ? strtoull(argv[3], 0, 10) : 0;
    if (argc > 4 && *argv[4])
        size = snprintf(payload, sizeof payload, "%.900s\r\n\r\n", argv[4]);
    to.sll_ifindex = if_nametoindex(argv[1]);
    if (fd < 0 || bind(fd, (struct sockaddr *)&to, sizeof to)) {
        perror("sender");
        return 1;
    }
    began = now_ns();
    while (number < total) {
        int count = total - number < BATCH ? total - number : BATCH, sent;
        while (rate && (now_ns() - began) * (double)rate / 1e9 < number) {
            struct timespec pause = {0, 200000};
            nanosleep(&pause, 0);
        }
        for (i = 0; i < count; i++) {
            parts[i].iov_base = frames[i];
            parts[i].iov_len = make(frames[i], number + i, payload, size);
            messages[i].msg_hdr.msg_iov = &parts[i];
            messages[i].msg_hdr.msg_iovlen = 1;
        }
        sent = sendmmsg(fd, messages, count, 0);
        if (sent > 0)
            number += sent; /* else the device's queue is full: again */
    }
    printf("%llu %llu\n", (unsigned long long)number, (unsigned long long)(now_ns() - began));
    return 0;
}
