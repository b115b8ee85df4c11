/* bench-clock COMMAND…: runs it once and writes to descriptor 3 how long that took, in microseconds, from before the process is made until it has
 * ended, the most memory that it or a process it waited for had resident, in KiB, and the time all of them had on a processor, in
 * microseconds. Its own status is the command's. */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static long microseconds(struct timeval time) { return time.tv_sec * 1000000 + time.tv_usec; }

int main(int count, char **arguments) {
    struct timespec start, end;
    struct rusage used;
    int status;
    if (count < 2)
        return 2;
    clock_gettime(CLOCK_MONOTONIC, &start);
    pid_t child = vfork();
    if (child == 0) {
        execvp(arguments[1], arguments + 1);
        _exit(127);
    }
    if (child < 0 || wait4(child, &status, 0, &used) < 0)
        return 126;
    clock_gettime(CLOCK_MONOTONIC, &end);
    dprintf(3, "%ld %ld %ld\n", (end.tv_sec - start.tv_sec) * 1000000 + (end.tv_nsec - start.tv_nsec) / 1000, used.ru_maxrss,
            microseconds(used.ru_utime) + microseconds(used.ru_stime));
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}
