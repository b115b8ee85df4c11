/* The kernel's own price of a container: all namespaces, an overlay as root, a veth pair on a bridge, and exec. Nothing else: no limits, no
 * seccomp, no capabilities dropped, no address. scripts/bench compares everything with it.
 *
 * bench-floor BRIDGE-INDEX LOWER UPPER WORK MOUNTPOINT COMMAND…
 * UPPER and WORK are made; MOUNTPOINT must exist. */
#define _GNU_SOURCE
#include <errno.h>
#include <linux/if_link.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <linux/sched.h>
#include <linux/veth.h>
#include <net/if.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static void check(long result, const char *what) {
    if (result < 0) {
        perror(what);
        _exit(1);
    }
}

static char message[1024];
static struct nlmsghdr *const header = (struct nlmsghdr *)message;

static struct rtattr *begin(unsigned short kind) {
    struct rtattr *attribute = (struct rtattr *)(message + NLMSG_ALIGN(header->nlmsg_len));
    attribute->rta_type = kind;
    attribute->rta_len = RTA_LENGTH(0);
    header->nlmsg_len = NLMSG_ALIGN(header->nlmsg_len) + attribute->rta_len;
    return attribute;
}

static void end(struct rtattr *attribute) {
    attribute->rta_len = message + header->nlmsg_len - (char *)attribute;
}

static void put(unsigned short kind, const void *value, size_t length) {
    struct rtattr *attribute = begin(kind);
    memcpy(RTA_DATA(attribute), value, length);
    header->nlmsg_len = (char *)RTA_DATA(attribute) - message + RTA_ALIGN(length);
    attribute->rta_len = RTA_LENGTH(length);
}

/* veth pair: one end on the bridge, up; the other, eth0, in the network namespace of `child`. */
static void make_veth(unsigned bridge, pid_t child) {
    char name[IFNAMSIZ];
    snprintf(name, sizeof name, "fl%d", child);
    header->nlmsg_len = NLMSG_LENGTH(sizeof(struct ifinfomsg));
    header->nlmsg_type = RTM_NEWLINK;
    header->nlmsg_flags = NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL;
    struct ifinfomsg *link = NLMSG_DATA(header);
    link->ifi_flags = link->ifi_change = IFF_UP;
    put(IFLA_IFNAME, name, strlen(name) + 1);
    put(IFLA_MASTER, &bridge, sizeof bridge);
    struct rtattr *info = begin(IFLA_LINKINFO);
    put(IFLA_INFO_KIND, "veth", 4);
    struct rtattr *data = begin(IFLA_INFO_DATA);
    struct rtattr *peer = begin(VETH_INFO_PEER);
    memset(message + header->nlmsg_len, 0, sizeof(struct ifinfomsg));
    header->nlmsg_len += sizeof(struct ifinfomsg);
    put(IFLA_IFNAME, "eth0", 5);
    put(IFLA_NET_NS_PID, &child, sizeof child);
    end(peer);
    end(data);
    end(info);

    int netlink = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);
    check(netlink, "netlink");
    struct sockaddr_nl kernel = {.nl_family = AF_NETLINK};
    check(sendto(netlink, message, header->nlmsg_len, 0, (struct sockaddr *)&kernel, sizeof kernel), "make veth");
    check(recv(netlink, message, sizeof message, 0), "make veth");
    errno = -((struct nlmsgerr *)NLMSG_DATA(header))->error;
    check(errno ? -1 : 0, "make veth");
}

int main(int count, char **arguments) {
    if (count < 7) {
        fprintf(stderr, "usage: bench-floor BRIDGE-INDEX LOWER UPPER WORK MOUNTPOINT COMMAND...\n");
        return 2;
    }
    char options[4096];
    const char *upper = arguments[3], *work = arguments[4], *root = arguments[5];
    snprintf(options, sizeof options, "lowerdir=%s,upperdir=%s,workdir=%s", arguments[2], upper, work);
    check(mkdir(upper, 0755), upper);
    check(mkdir(work, 0755), work);

    int ready[2];
    check(pipe(ready), "pipe");
    struct clone_args how = {
        .flags = CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWNET | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWCGROUP,
        .exit_signal = SIGCHLD,
    };
    pid_t child = syscall(SYS_clone3, &how, sizeof how);
    check(child, "clone3");
    if (child == 0) {
        char byte;
        close(ready[1]);
        check(mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL), "make mounts private");
        check(mount("overlay", root, "overlay", 0, options), "mount overlay");
        check(chdir(root), root);
        check(syscall(SYS_pivot_root, ".", "."), "pivot_root");
        check(umount2(".", MNT_DETACH), "unmount the old root");
        check(mount("proc", "/proc", "proc", 0, NULL), "mount proc");
        check(read(ready[0], &byte, 1), "wait");
        execv(arguments[6], arguments + 6);
        check(-1, arguments[6]);
    }
    make_veth(strtoul(arguments[1], NULL, 10), child);
    check(write(ready[1], "", 1), "release");
    int status;
    check(waitpid(child, &status, 0), "wait");
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}
