/* Makes one system call: its number, then its arguments, numbers or paths. Prints the number of the error, or 0. */
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static long words[7];

static void trapped(int signal) {
    (void)signal;
    _exit(77);
}

static void *call(void *unused) {
    (void)unused;
    long result = syscall(words[0], words[1], words[2], words[3], words[4], words[5], words[6]);
    printf("%d\n", result < 0 ? errno : 0);
    fflush(stdout);
    return NULL;
}

int main(int count, char **arguments) {
    int first = 1;
    int threaded = count > 1 && strcmp(arguments[1], "thread") == 0;
    first += threaded;
    for (int i = 0; i < 7 && first + i < count; i++) {
        char *word = arguments[first + i];
        words[i] = word[0] == '/' ? (long)word : strtol(word, NULL, 0);
    }
    signal(SIGSYS, trapped);
    if (!threaded) {
        call(NULL);
        return 0;
    }
    pthread_t thread;
    pthread_create(&thread, NULL, call, NULL);
    pthread_join(thread, NULL);
    puts("alive");
    return 0;
}
