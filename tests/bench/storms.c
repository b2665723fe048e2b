/* Makes processes, as a workload for whoever counts them.
 *
 *   storm fork N W EVERY TRUTH        fork N children, W at a time, that exit at once; each EVERYth with 1, others 0
 *   storm spawn N W PREFIX K TRUTH    posix_spawn the programs PREFIX0 and on, K of them in turn, N in all, W at a time;
 *                                     the k-th gets k as argument
 *   storm chain N W PREFIX K TRUTH WRAPPER ...    as spawn, but each executes the wrappers before, one after the other
 *   storm threads N W                 this process starts N threads, W at a time, that exit at once
 *   storm last SECONDS W              as fork, for a time
 *   storm pace PER_SECOND SECONDS     fork children one by one, evenly spread
 *   storm rename N CODES              N children that take a comm of their own, r000000 and on, and exit with n % CODES
 *   storm crowd N                     N programs with a name of 15 odd bytes each, one after the other: each forks a child,
 *                                     changes its effective uid and fails, as does the child; needs root
 *   storm hold N SECONDS              keep N children alive until stdin ends, at most SECONDS; prints their pids, one
 *                                     per line, and an empty line when all are there; the time is from their release
 *
 * When all is over it prints "processes nanoseconds" (or threads), from the first fork to the last wait. TRUTH is a file for
 * "pid k" of each child in order of birth, or "-". Ends when whoever started it does.
 */
#define _GNU_SOURCE
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <spawn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define MOST_WRAPPERS 14
#define MOST_THREADS 256

extern char **environ;

static void die(const char *what)
{
	perror(what);
	_exit(1);
}

static int64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * INT64_C(1000000000) + t.tv_nsec;
}

static void sleep_until_ns(int64_t deadline)
{
	struct timespec t = {deadline / 1000000000, deadline % 1000000000};

	while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, NULL))
		;
}

static void wait_for_one(void)
{
	if (wait(NULL) < 0)
		die("wait");
}

static pid_t fork_child(int code)
{
	pid_t pid = fork();

	if (pid < 0)
		die("fork");
	if (pid == 0)
		_exit(code);
	return pid;
}

static pid_t spawn_child(const char *prefix, int k, char **wrappers)
{
	char argument[] = {(char)('0' + k), 0};
	char program[256];
	char *argv[MOST_WRAPPERS + 3];
	int n = 0;
	pid_t pid;

	snprintf(program, sizeof(program), "%s%d", prefix, k);
	for (; n < MOST_WRAPPERS && wrappers[n]; n++)
		argv[n] = wrappers[n];
	argv[n] = program;
	argv[n + 1] = argument;
	argv[n + 2] = NULL;
	if (posix_spawn(&pid, argv[0], NULL, NULL, argv, environ))
		die("posix_spawn");
	return pid;
}

static void write_truth(const char *path, const pid_t *pids, long n, int kinds)
{
	FILE *file;

	if (!strcmp(path, "-"))
		return;
	file = fopen(path, "w");
	if (!file)
		die(path);
	for (long i = 0; i < n; i++)
		fprintf(file, "%d %ld\n", pids[i], i % kinds);
	if (fclose(file))
		die(path);
}

/* Children of fork_child if there is no prefix, otherwise of spawn_child. */
static void storm(long n, long width, long every, const char *prefix, int kinds, const char *truth, char **wrappers)
{
	pid_t *pids = calloc(n, sizeof(*pids));
	int64_t start;

	if (!pids)
		die("calloc");
	memset(pids, 1, n * sizeof(*pids)); /* page faults belong to nobody's figures */
	start = now_ns();
	for (long done = 0; done < n;) {
		long begin = done;

		for (; done < n && done < begin + width; done++) {
			if (prefix)
				pids[done] = spawn_child(prefix, done % kinds, wrappers);
			else
				pids[done] = fork_child(every && done % every == every - 1);
		}
		for (; begin < done; begin++)
			wait_for_one();
	}
	printf("%ld %lld\n", n, (long long)(now_ns() - start));
	write_truth(truth, pids, n, kinds);
}

static void *exit_at_once(void *unused)
{
	return unused;
}

static void threads(long n, long width)
{
	pthread_t started[MOST_THREADS];
	int64_t start = now_ns();

	if (width > MOST_THREADS)
		width = MOST_THREADS;
	for (long done = 0; done < n;) {
		long count = n - done < width ? n - done : width;

		for (long i = 0; i < count; i++)
			if (pthread_create(&started[i], NULL, exit_at_once, NULL))
				die("pthread_create");
		for (long i = 0; i < count; i++)
			pthread_join(started[i], NULL);
		done += count;
	}
	printf("%ld %lld\n", n, (long long)(now_ns() - start));
}

static void last(double seconds, long width)
{
	int64_t start = now_ns(), deadline = start + (int64_t)(seconds * 1e9);
	long n = 0;

	while (now_ns() < deadline) {
		for (long i = 0; i < width; i++)
			fork_child(0);
		for (long i = 0; i < width; i++)
			wait_for_one();
		n += width;
	}
	printf("%ld %lld\n", n, (long long)(now_ns() - start));
}

static void pace(double per_second, double seconds)
{
	int64_t start = now_ns();
	long n = (long)(per_second * seconds);

	for (long i = 0; i < n; i++) {
		sleep_until_ns(start + (int64_t)(i * 1e9 / per_second));
		fork_child(0);
		wait_for_one();
	}
	sleep_until_ns(start + (int64_t)(seconds * 1e9));
	printf("%ld %lld\n", n, (long long)(now_ns() - start));
}

static void rename_and_exit(long i, long codes)
{
	char name[32];

	snprintf(name, sizeof(name), "r%06ld", i); /* the kernel takes the first 15 characters */
	prctl(PR_SET_NAME, name);
	_exit((int)(i % codes));
}

static void renamed(long n, long codes)
{
	int64_t start = now_ns();

	for (long i = 0; i < n; i++) {
		pid_t pid = fork();

		if (pid < 0)
			die("fork");
		if (pid == 0)
			rename_and_exit(i, codes);
		wait_for_one();
	}
	printf("%ld %lld\n", n, (long long)(now_ns() - start));
}

/* One of the programs of a crowd. */
static int member(int code)
{
	fork_child(code);
	wait_for_one();
	if (seteuid(1))
		die("seteuid");
	return code;
}

static void crowd(char *self, long n)
{
	uint64_t state = 0x9E3779B97F4A7C15u;
	int64_t start = now_ns();

	for (long i = 0; i < n; i++) {
		char name[18] = "./", code[8];
		pid_t pid;

		for (int at = 2; at < 17; at++) {
			state ^= state << 13;
			state ^= state >> 7;
			state ^= state << 17;
			name[at] = (char)(state % 255 + 1);
			if (name[at] == '/')
				name[at] = 'x';
		}
		snprintf(code, sizeof(code), "%ld", i % 200 + 1);
		if (link(self, name))
			die("link");
		pid = fork();
		if (pid < 0)
			die("fork");
		if (pid == 0) {
			execl(name, name, "member", code, NULL);
			_exit(127);
		}
		wait_for_one();
		unlink(name);
	}
	printf("%ld %lld\n", n, (long long)(now_ns() - start));
}

static void hold(long n, int seconds)
{
	struct pollfd input = {.fd = 0, .events = POLLIN};
	int release[2];
	int64_t start;
	char byte;

	if (pipe(release))
		die("pipe");
	for (long i = 0; i < n; i++) {
		pid_t pid = fork();

		if (pid < 0)
			die("fork");
		if (pid == 0) {
			prctl(PR_SET_PDEATHSIG, SIGKILL);
			close(release[1]);
			while (read(release[0], &byte, 1) > 0)
				;
			_exit(0);
		}
		printf("%d\n", pid);
		fflush(stdout);
	}
	puts("");
	fflush(stdout);
	poll(&input, 1, seconds * 1000);
	start = now_ns();
	close(release[1]);
	for (long i = 0; i < n; i++)
		wait_for_one();
	printf("%ld %lld\n", n, (long long)(now_ns() - start));
}

int main(int argc, char **argv)
{
	const char *what = argc > 1 ? argv[1] : "";

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (!strcmp(what, "fork") && argc == 6)
		storm(atol(argv[2]), atol(argv[3]), atol(argv[4]), NULL, 1, argv[5], NULL);
	else if (!strcmp(what, "spawn") && argc == 7)
		storm(atol(argv[2]), atol(argv[3]), 0, argv[4], atoi(argv[5]), argv[6], argv + argc);
	else if (!strcmp(what, "chain") && argc > 7)
		storm(atol(argv[2]), atol(argv[3]), 0, argv[4], atoi(argv[5]), argv[6], argv + 7);
	else if (!strcmp(what, "threads") && argc == 4)
		threads(atol(argv[2]), atol(argv[3]));
	else if (!strcmp(what, "last") && argc == 4)
		last(atof(argv[2]), atol(argv[3]));
	else if (!strcmp(what, "pace") && argc == 4)
		pace(atof(argv[2]), atof(argv[3]));
	else if (!strcmp(what, "rename") && argc == 4)
		renamed(atol(argv[2]), atol(argv[3]));
	else if (!strcmp(what, "crowd") && argc == 3)
		crowd(argv[0], atol(argv[2]));
	else if (!strcmp(what, "member") && argc == 3)
		return member(atoi(argv[2]));
	else if (!strcmp(what, "hold") && argc == 4)
		hold(atol(argv[2]), atoi(argv[3]));
	else
		return 2;
	return 0;
}
