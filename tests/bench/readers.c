/* The least that a program can do to hear of processes: what others are measured against.
 *
 *   reader blocking    count the process connector's datagrams, asleep in recvmmsg until one comes
 *   reader floor       the same, but look every 100 ms
 *   reader pidfd       pids on stdin, one per line: a pidfd for each, and epoll until all have ended
 *   reader scan        list /proc and read every process's stat, once
 *   reader guard CMD   become CMD, and end when whoever started it does
 *   reader keep FILE   write back what FILE says now when stdin ends, however that comes about
 *
 * blocking and floor print "ready", and "datagrams drops" when SIGTERM comes. pidfd prints "ready nanoseconds" when it
 * watches, then "processes nanoseconds cpu_nanoseconds", both of handling the ends: from the first one, and from
 * "ready". scan prints "processes nanoseconds cpu_nanoseconds".
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/cn_proc.h>
#include <linux/connector.h>
#include <linux/netlink.h>
#include <linux/sock_diag.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum { SLOTS = 256, DATAGRAM_BYTES = 128, RECEIVE_BUFFER_BYTES = 32 << 20, DRAIN_EVERY_NS = 100000000 };

static volatile sig_atomic_t stopped;

static void stop(int number)
{
	(void)number;
	stopped = 1;
}

static void die(const char *what)
{
	perror(what);
	exit(1);
}

static int64_t clock_ns(clockid_t clock)
{
	struct timespec t;

	clock_gettime(clock, &t);
	return t.tv_sec * INT64_C(1000000000) + t.tv_nsec;
}

static int subscribe(void)
{
	struct sockaddr_nl address = {.nl_family = AF_NETLINK, .nl_groups = CN_IDX_PROC};
	struct sockaddr_nl kernel = {.nl_family = AF_NETLINK};
	struct {
		struct nlmsghdr header;
		struct cn_msg message;
		uint32_t op;
	} __attribute__((packed)) request = {
		.header = {.nlmsg_len = sizeof(request), .nlmsg_type = NLMSG_DONE},
		.message = {.id = {CN_IDX_PROC, CN_VAL_PROC}, .len = sizeof(request.op)},
		.op = PROC_CN_MCAST_LISTEN,
	};
	int size = RECEIVE_BUFFER_BYTES, on = 1;
	int fd = socket(AF_NETLINK, SOCK_DGRAM, NETLINK_CONNECTOR);

	if (fd < 0)
		die("socket");
	if (setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &size, sizeof(size)))
		die("SO_RCVBUFFORCE");
	if (setsockopt(fd, SOL_NETLINK, NETLINK_NO_ENOBUFS, &on, sizeof(on)))
		die("NETLINK_NO_ENOBUFS");
	if (bind(fd, (struct sockaddr *)&address, sizeof(address)))
		die("bind");
	if (sendto(fd, &request, sizeof(request), 0, (struct sockaddr *)&kernel, sizeof(kernel)) < 0)
		die("sendto");
	return fd;
}

static uint32_t drops(int fd)
{
	uint32_t info[SK_MEMINFO_VARS];
	socklen_t size = sizeof(info);

	if (getsockopt(fd, SOL_SOCKET, SO_MEMINFO, info, &size))
		die("SO_MEMINFO");
	return info[SK_MEMINFO_DROPS];
}

static void count(int block)
{
	static char data[SLOTS][DATAGRAM_BYTES];
	static struct iovec vectors[SLOTS];
	static struct mmsghdr headers[SLOTS];
	struct sigaction action = {.sa_handler = stop};
	struct timespec pause = {0, DRAIN_EVERY_NS};
	long long datagrams = 0;
	int fd = subscribe();

	sigaction(SIGTERM, &action, NULL);
	for (int i = 0; i < SLOTS; i++) {
		vectors[i] = (struct iovec){data[i], DATAGRAM_BYTES};
		headers[i].msg_hdr = (struct msghdr){.msg_iov = &vectors[i], .msg_iovlen = 1};
	}
	puts("ready");
	fflush(stdout);
	while (!stopped) {
		int n = recvmmsg(fd, headers, SLOTS, block ? MSG_WAITFORONE : MSG_DONTWAIT, NULL);

		if (n > 0)
			datagrams += n;
		else if (errno != EAGAIN && errno != EINTR)
			die("recvmmsg");
		if (!block && n < SLOTS)
			nanosleep(&pause, NULL);
	}
	printf("%lld %u\n", datagrams, drops(fd));
}

static void pidfds(void)
{
	static struct epoll_event events[SLOTS];
	struct rlimit files;
	int64_t start, first = 0, start_cpu;
	int pid, n = 0, left, epoll = epoll_create1(EPOLL_CLOEXEC);

	if (epoll < 0)
		die("epoll_create1");
	getrlimit(RLIMIT_NOFILE, &files);
	files.rlim_cur = files.rlim_max;
	setrlimit(RLIMIT_NOFILE, &files);
	start = clock_ns(CLOCK_MONOTONIC);
	while (scanf("%d", &pid) == 1) {
		int fd = syscall(SYS_pidfd_open, pid, 0);
		struct epoll_event event = {.events = EPOLLIN, .data.fd = fd};

		if (fd < 0 || epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event))
			die("pidfd");
		n++;
	}
	printf("ready %lld\n", (long long)(clock_ns(CLOCK_MONOTONIC) - start));
	fflush(stdout);
	start_cpu = clock_ns(CLOCK_PROCESS_CPUTIME_ID);
	for (left = n; left > 0;) {
		int ready = epoll_wait(epoll, events, SLOTS, -1);

		if (!first)
			first = clock_ns(CLOCK_MONOTONIC);
		for (int i = 0; i < ready; i++)
			close(events[i].data.fd);
		left -= ready > 0 ? ready : 0;
	}
	printf("%d %lld %lld\n", n, (long long)(clock_ns(CLOCK_MONOTONIC) - first),
	       (long long)(clock_ns(CLOCK_PROCESS_CPUTIME_ID) - start_cpu));
}

static void keep(const char *path)
{
	char text[256];
	int fd = open(path, O_RDWR);
	ssize_t size = fd < 0 ? -1 : read(fd, text, sizeof(text));

	if (size < 0)
		die(path);
	signal(SIGINT, SIG_IGN);
	signal(SIGTERM, SIG_IGN);
	signal(SIGHUP, SIG_IGN);
	puts("ready");
	fflush(stdout);
	while (getchar() != EOF)
		;
	if (pwrite(fd, text, size, 0) != size)
		die(path);
}

static void scan(void)
{
	int64_t start = clock_ns(CLOCK_MONOTONIC), start_cpu = clock_ns(CLOCK_PROCESS_CPUTIME_ID);
	DIR *directory = opendir("/proc");
	struct dirent *entry;
	char text[1024], path[64];
	int n = 0;

	if (!directory)
		die("/proc");
	while ((entry = readdir(directory))) {
		int fd;

		if (entry->d_name[0] < '1' || entry->d_name[0] > '9')
			continue;
		snprintf(path, sizeof(path), "/proc/%.20s/stat", entry->d_name);
		fd = open(path, O_RDONLY);
		if (fd < 0)
			continue;
		n += read(fd, text, sizeof(text)) > 0;
		close(fd);
	}
	closedir(directory);
	printf("%d %lld %lld\n", n, (long long)(clock_ns(CLOCK_MONOTONIC) - start),
	       (long long)(clock_ns(CLOCK_PROCESS_CPUTIME_ID) - start_cpu));
}

int main(int argc, char **argv)
{
	const char *what = argc > 1 ? argv[1] : "";

	if (!strcmp(what, "keep") && argc == 3) {
		keep(argv[2]);
		return 0;
	}
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (!strcmp(what, "blocking"))
		count(1);
	else if (!strcmp(what, "floor"))
		count(0);
	else if (!strcmp(what, "pidfd"))
		pidfds();
	else if (!strcmp(what, "scan"))
		scan();
	else if (!strcmp(what, "guard") && argc > 2) {
		execvp(argv[2], argv + 2);
		die(argv[2]);
	} else
		return 2;
	return 0;
}
