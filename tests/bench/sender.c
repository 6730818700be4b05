/* Sends small vsock frames out of an interface as fast as it can, or at a given rate.
 *
 *     sender IFACE PACKETS [PACKETS_PER_SECOND]
 *
 * 1,000 connections take turns, with a REQUEST first, then RW packets of one byte; what was
 * sent is printed as packets and nanoseconds.  Little-endian machines only.
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

enum { BATCH = 64, CONNECTIONS = 1000, FRAME = 77 };

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

static int make(unsigned char *frame, uint64_t number)
{
    uint64_t round = number / CONNECTIONS, port = 1024 + number % CONNECTIONS;
    int request = round == 0, at;
    memset(frame, 0, FRAME);
    for (at = 0; at <= 32; at += 32) { /* both headers begin with the same addresses */
        put(frame, at, 3, 8);
        put(frame, at + 8, 2, 8);
        put(frame, at + 16, port, 4);
        put(frame, at + 20, 5000, 4);
    }
    put(frame, 24, request ? 1 : 4, 2); /* CONNECT, PAYLOAD */
    put(frame, 26, 2, 2);               /* virtio */
    put(frame, 28, 44, 2);
    put(frame, 56, !request, 4);
    put(frame, 60, 1, 2);               /* STREAM */
    put(frame, 62, request ? 1 : 5, 2); /* REQUEST, RW */
    put(frame, 68, 262144, 4);
    return FRAME - request;
}

int main(int argc, char **argv)
{
    static unsigned char frames[BATCH][FRAME];
    static struct mmsghdr messages[BATCH];
    static struct iovec parts[BATCH];
    struct sockaddr_ll to = {.sll_family = AF_PACKET};
    uint64_t total, rate, number = 0, began;
    int fd = socket(AF_PACKET, SOCK_RAW, 0), i;

    if (argc < 3)
        return 2;
    total = strtoull(argv[2], 0, 10);
    rate = argc > 3 ? strtoull(argv[3], 0, 10) : 0;
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
            parts[i].iov_len = make(frames[i], number + i);
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
