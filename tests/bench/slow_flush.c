/* Lets each flush of a file take longer, by the microseconds that POLLY_FLUSH_US names: what a disk of another machine may take.
   Loaded before the C library, so that a program's own calls come here first. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <time.h>

static int later(const char *name, int fd)
{
    int (*flush)(int) = (int (*)(int))dlsym(RTLD_NEXT, name);
    int answer = flush(fd);
    long us = atol(getenv("POLLY_FLUSH_US"));
    struct timespec span = {us / 1000000, us % 1000000 * 1000};
    nanosleep(&span, NULL);
    return answer;
}

int fsync(int fd) { return later("fsync", fd); }
int fdatasync(int fd) { return later("fdatasync", fd); }
