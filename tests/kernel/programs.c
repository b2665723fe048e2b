/* Every process that the kernel tests start: one static program, hard-linked under a fresh name per case.
 *
 *     NAME COMMAND ARGUMENTS...
 *
 * Commands that wait for children print what wait4 said, one line per child, so that the tests have a truth
 * that owes nothing to the exporter. A command that cannot do its job exits with 99, which no case expects.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <linux/io_uring.h>
#include <linux/sched.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <spawn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))

extern char **environ;

static void die(const char *what)
{
	perror(what);
	_exit(99);
}

/* Not inlined: gcc fears for its variables around vfork. */
__attribute__((noinline)) static int number(const char *text)
{
	char *end;
	long value = strtol(text, &end, 0);

	if (*text == '\0' || *end != '\0')
		die(text);
	return value;
}

static int64_t now_us(clockid_t clock)
{
	struct timespec t;

	clock_gettime(clock, &t);
	return t.tv_sec * 1000000LL + t.tv_nsec / 1000;
}

static void sleep_ms(int ms)
{
	struct timespec t = { ms / 1000, ms % 1000 * 1000000 };

	while (nanosleep(&t, &t) && errno == EINTR)
		;
}

static void start_thread(void *(*run)(void *), void *argument)
{
	pthread_t thread;

	if (pthread_create(&thread, NULL, run, argument))
		die("pthread_create");
}

static pid_t reap(pid_t pid, int *status, struct rusage *usage)
{
	pid_t got;

	while ((got = wait4(pid, status, 0, usage)) < 0 && errno == EINTR)
		;
	return got;
}

static void wait_for_end_of_input(void)
{
	char byte;
	ssize_t got;

	while ((got = read(STDIN_FILENO, &byte, 1)) > 0 || (got < 0 && errno == EINTR))
		;
	if (got < 0)
		die("read");
}

static void pause_for_ever(void)
{
	for (;;)
		pause();
}

/* exit CODE */
static int cmd_exit(char **argv)
{
	_exit(number(argv[0]));
}

/* signal NUMBER CORE_BYTES: die by the signal, whatever the parent had ignored or blocked */
static void die_by(int number, int core_bytes)
{
	struct rlimit core = { core_bytes < 0 ? RLIM_INFINITY : (rlim_t)core_bytes, RLIM_INFINITY };
	sigset_t all;

	if (setrlimit(RLIMIT_CORE, &core)) {
		core.rlim_max = core.rlim_cur;
		if (setrlimit(RLIMIT_CORE, &core))
			die("setrlimit");
	}
	signal(number, SIG_DFL);
	sigfillset(&all);
	sigprocmask(SIG_UNBLOCK, &all, NULL);
	raise(number);
	pause_for_ever();
}

static int cmd_signal(char **argv)
{
	die_by(number(argv[0]), number(argv[1]));
	return 99;
}

/* threads COUNT SIGNAL CORE_BYTES: COUNT threads in all; the last to start raises the signal for the group */
static pthread_barrier_t barrier;
static int thread_signal, thread_core;

static void *wait_at_barrier(void *last)
{
	prctl(PR_SET_NAME, "some-thread");
	pthread_barrier_wait(&barrier);
	if (last)
		die_by(thread_signal, thread_core);
	pause_for_ever();
	return NULL;
}

static int cmd_threads(char **argv)
{
	int count = number(argv[0]);

	thread_signal = number(argv[1]);
	thread_core = number(argv[2]);
	pthread_barrier_init(&barrier, NULL, count);
	for (int i = 1; i < count; i++)
		start_thread(wait_at_barrier, i == 1 ? "last" : NULL);
	pthread_barrier_wait(&barrier);
	pause_for_ever();
	return 99;
}

/* leader_first HOW LEADER_CODE HOW CODE: main ends when its input does, then another thread ends, and the process.
 * HOW is pthread (no code), thread (the bare system call for this thread) or group (for all threads).
 */
static void end_by(char **how_and_code)
{
	if (!strcmp(how_and_code[0], "pthread"))
		pthread_exit(NULL);
	syscall(strcmp(how_and_code[0], "group") ? SYS_exit : SYS_exit_group, number(how_and_code[1]));
}

static void *outlive_the_leader(void *how_and_code)
{
	char path[64], stat[256] = "", *state = NULL;

	prctl(PR_SET_NAME, "survivor");
	snprintf(path, sizeof(path), "/proc/self/task/%d/stat", getpid());
	do {
		FILE *file = fopen(path, "r");

		if (!file || !fgets(stat, sizeof(stat), file))
			die(path);
		fclose(file);
		state = strrchr(stat, ')');
		sleep_ms(1);
	} while (state[2] != 'Z');
	end_by(how_and_code);
	return NULL;
}

static int cmd_leader_first(char **argv)
{
	start_thread(outlive_the_leader, argv + 2);
	wait_for_end_of_input();
	end_by(argv);
	return 99;
}

/* thread_exec PATH ARGUMENTS...: a thread that is not the leader execs */
static void *exec_it(void *argv)
{
	execv(((char **)argv)[0], argv);
	die("execv");
	return NULL;
}

static int cmd_thread_exec(char **argv)
{
	start_thread(exec_it, argv);
	pause_for_ever();
	return 99;
}

/* thread_fork COMM CODE: a thread takes a name of its own and forks; the child exits with CODE */
static void *fork_in_thread(void *arguments)
{
	char **argv = arguments;
	int status;
	pid_t pid;

	prctl(PR_SET_NAME, argv[0]);
	pid = fork();
	if (pid == 0)
		_exit(number(argv[1]));
	if (pid < 0 || reap(pid, &status, NULL) != pid)
		die("fork");
	_exit(0);
}

static int cmd_thread_fork(char **argv)
{
	start_thread(fork_in_thread, argv);
	pause_for_ever();
	return 99;
}

/* fork COUNT CODE, vfork COUNT CODE: children that never exec, one after the other */
static int make_children(char **argv, int with_vfork)
{
	int code = number(argv[1]), status;

	for (int i = number(argv[0]); i > 0; i--) {
		/* Called right here: a child of vfork runs on this very stack, so the frame must not be left. */
		pid_t pid = with_vfork ? vfork() : fork();

		if (pid == 0)
			_exit(code);
		if (pid < 0 || reap(pid, &status, NULL) != pid)
			die("fork");
	}
	return 0;
}

static int cmd_fork(char **argv)
{
	return make_children(argv, 0);
}

static int cmd_vfork(char **argv)
{
	return make_children(argv, 1);
}

/* failed_exec: a child that cannot exec gives up with 127, as a shell's would */
static int cmd_failed_exec(char **argv)
{
	int status;
	pid_t pid = fork();

	if (pid == 0) {
		execv("/nonexistent/program", argv);
		_exit(127);
	}
	if (pid < 0 || reap(pid, &status, NULL) != pid)
		die("fork");
	return 0;
}

/* orphan CODE GRANDCHILD_CODE: the grandchild ends after its parent, as somebody else's child */
static int cmd_orphan(char **argv)
{
	int status;
	pid_t child = fork();

	if (child == 0) {
		pid_t parent = getpid();

		if (fork() == 0) {
			while (getppid() == parent)
				sleep_ms(1);
			_exit(number(argv[1]));
		}
		_exit(number(argv[0]));
	}
	if (child < 0 || reap(child, &status, NULL) != child)
		die("fork");
	return 0;
}

/* ignore_sigchld COUNT CODE: the kernel reaps the children itself */
static int cmd_ignore_sigchld(char **argv)
{
	signal(SIGCHLD, SIG_IGN);
	for (int i = number(argv[0]); i > 0; i--)
		if (fork() == 0)
			_exit(number(argv[1]));
	while (waitpid(-1, NULL, 0) >= 0 || errno == EINTR)
		;
	return errno == ECHILD ? 0 : 99;
}

/* setuid UID CODE */
static int cmd_setuid(char **argv)
{
	if (setuid(number(argv[0])))
		die("setuid");
	_exit(number(argv[1]));
}

/* euid EUID CODE: succeeds only where the file's setuid bit made that the effective uid */
static int cmd_euid(char **argv)
{
	_exit(geteuid() == (uid_t)number(argv[0]) ? number(argv[1]) : 99);
}

/* rename HEX CODE: the bytes become the comm */
static int cmd_rename(char **argv)
{
	char comm[16] = "";
	size_t length = strlen(argv[0]) / 2;

	for (size_t i = 0; i < length && i < sizeof(comm) - 1; i++)
		if (sscanf(argv[0] + 2 * i, "%2hhx", (unsigned char *)&comm[i]) != 1)
			die("hex");
	if (prctl(PR_SET_NAME, comm))
		die("prctl");
	_exit(number(argv[1]));
}

/* exec PATH ARGUMENTS... */
static int cmd_exec(char **argv)
{
	exec_it(argv);
	return 99;
}

/* rss MIB CODE */
static int cmd_rss(char **argv)
{
	size_t size = (size_t)number(argv[0]) << 20;

	if (mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0) == MAP_FAILED)
		die("mmap");
	_exit(number(argv[1]));
}

/* eat FILE: join the cgroup of this cgroup.procs, then take memory until it is killed for that */
static int cmd_eat(char **argv)
{
	FILE *procs = fopen(argv[0], "w");

	if (!procs || fputs("0\n", procs) < 0 || fclose(procs))
		die("cgroup.procs");
	for (;;)
		if (mmap(NULL, 1 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0) ==
		    MAP_FAILED)
			sleep_ms(1);
}

/* join FILE MS: join the cgroup of this cgroup.procs, say so on stdout, then sleep */
static int cmd_join(char **argv)
{
	FILE *procs = fopen(argv[0], "w");

	if (!procs || fputs("0\n", procs) < 0 || fclose(procs))
		die("cgroup.procs");
	if (puts("joined") < 0 || fflush(stdout))
		die("stdout");
	sleep_ms(number(argv[1]));
	return 0;
}

/* late MS PATH ARGUMENTS...: run a program whose death takes so long after its signal */
static int cmd_late(char **argv)
{
	int status;
	pid_t child = fork();

	if (child == 0) {
		if (ptrace(PTRACE_TRACEME, 0, 0, 0))
			_exit(99);
		execv(argv[1], argv + 1);
		_exit(99);
	}
	if (child < 0 || waitpid(child, &status, 0) != child || !WIFSTOPPED(status))
		die("late");
	if (ptrace(PTRACE_SETOPTIONS, child, 0, PTRACE_O_TRACEEXIT) || ptrace(PTRACE_CONT, child, 0, 0))
		die("options");
	while (waitpid(child, &status, 0) == child && WIFSTOPPED(status)) {
		/* Its last stop comes after the signal and before its memory goes. */
		if (status >> 8 == (SIGTRAP | PTRACE_EVENT_EXIT << 8))
			sleep_ms(number(argv[0]));
		ptrace(PTRACE_CONT, child, 0, 0);
	}
	return WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL ? 0 : 98;
}

/* sleep MS CODE */
static int cmd_sleep(char **argv)
{
	sleep_ms(number(argv[0]));
	_exit(number(argv[1]));
}

/* burn MS THREADS: that much CPU time in all, an equal part in every thread; threads end before the leader */
static int64_t burn_us;

static void *burn(void *unused)
{
	while (now_us(CLOCK_THREAD_CPUTIME_ID) < burn_us)
		;
	return unused;
}

static int cmd_burn(char **argv)
{
	int threads = number(argv[1]);
	pthread_t others[64];

	burn_us = number(argv[0]) * 1000LL / threads;
	for (int i = 1; i < threads; i++)
		if (pthread_create(&others[i], NULL, burn, NULL))
			die("pthread_create");
	burn(NULL);
	for (int i = 1; i < threads; i++)
		pthread_join(others[i], NULL);
	return 0;
}

/* attach: ptrace a child of one's own, let it go again and end it */
static int cmd_attach(char **argv)
{
	int status;
	pid_t child = fork();

	if (child == 0)
		pause_for_ever();
	if (child < 0 || ptrace(PTRACE_ATTACH, child, 0, 0) || waitpid(child, &status, 0) != child || !WIFSTOPPED(status))
		die("attach");
	if (ptrace(PTRACE_DETACH, child, 0, 0) || kill(child, SIGTERM) || reap(child, &status, NULL) != child)
		die("detach");
	return argv[0] ? 99 : 0;
}

/* traced: a child that asks to be traced, is let go at its exec of nothing, and exits */
static int cmd_traced(char **argv)
{
	int status;
	pid_t child = fork();

	(void)argv;
	if (child == 0) {
		if (ptrace(PTRACE_TRACEME, 0, 0, 0))
			_exit(99);
		raise(SIGSTOP);
		_exit(5);
	}
	if (child < 0 || waitpid(child, &status, 0) != child || !WIFSTOPPED(status))
		die("traced");
	if (ptrace(PTRACE_DETACH, child, 0, 0) || reap(child, &status, NULL) != child || status != 5 << 8)
		die("detach");
	return 0;
}

/* sqpoll HOW CODE: with a kernel thread that polls for it (io_uring), exit by the code or die by the signal */
static int cmd_sqpoll(char **argv)
{
	struct io_uring_params parameters = { .flags = IORING_SETUP_SQPOLL, .sq_thread_idle = 1000 };

	if (syscall(SYS_io_uring_setup, 4, &parameters) < 0)
		_exit(98);
	if (!strcmp(argv[0], "signal"))
		die_by(number(argv[1]), 0);
	syscall(SYS_exit_group, number(argv[1]));
	return 99;
}

/* reuse COUNT PATH0 PATH1 ...: COUNT processes, one after the other, all with the pid of the first.
 * In turn they exec one of the programs (exit code 10 + i % 100) or end under a name of their own ("own-I").
 */
static int cmd_reuse(char **argv)
{
	int count = number(argv[0]), programs = 0;
	int status;
	pid_t pid = fork();

	while (argv[1 + programs])
		programs++;
	if (pid == 0)
		_exit(9);
	if (pid < 0 || reap(pid, &status, NULL) != pid)
		die("fork");
	for (int i = 0; i < count; i++) {
		struct clone_args args = {
			.exit_signal = SIGCHLD, .set_tid = (uintptr_t)&pid, .set_tid_size = 1,
		};
		int which = i % (programs + 1);
		char code[16], comm[16];
		long got = syscall(SYS_clone3, &args, sizeof(args));

		snprintf(code, sizeof(code), "%d", 10 + i % 100);
		snprintf(comm, sizeof(comm), "own-%d", i);
		if (got == 0) {
			if (which < programs)
				execl(argv[1 + which], argv[1 + which], "exit", code, NULL);
			else
				prctl(PR_SET_NAME, comm);
			_exit(number(code));
		}
		if (got != pid || reap(pid, &status, NULL) != pid)
			die("clone3");
		printf("%s %d\n", which < programs ? strrchr(argv[1 + which], '/') + 1 : comm, status);
	}
	return 0;
}

/* flood: events as fast as anybody without a right can make them, until it is killed. */
static int cmd_flood(char **argv)
{
	(void)argv;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	for (;;)
		prctl(PR_SET_NAME, "flood");
}

/* with_pid PID COUNT CODE: so many processes, one after the other, with that pid. */
static int cmd_with_pid(char **argv)
{
	pid_t pid = number(argv[0]);

	for (int i = number(argv[1]); i > 0; i--) {
		struct clone_args args = {
			.exit_signal = SIGCHLD, .set_tid = (uintptr_t)&pid, .set_tid_size = 1,
		};
		long got = syscall(SYS_clone3, &args, sizeof(args));
		int status;

		if (got == 0)
			_exit(number(argv[2]));
		if (got != pid || reap(pid, &status, NULL) != pid)
			die("clone3");
	}
	return 0;
}

/* sibling COUNT CODE: a child clones COUNT siblings, which are children of this process (CLONE_PARENT) and exit with
 * CODE. It ends when the last of them is there, after it took the name "stage". Prints nothing; fails if any ends
 * with another code.
 */
static int cmd_sibling(char **argv)
{
	int count = number(argv[0]), code = number(argv[1]), status;
	pid_t stage = fork();

	if (stage == 0) {
		prctl(PR_SET_NAME, "stage");
		for (int i = 0; i < count; i++) {
			struct clone_args args = { .flags = CLONE_PARENT };
			long got = syscall(SYS_clone3, &args, sizeof(args));

			if (got == 0)
				_exit(code);
			if (got < 0)
				die("clone3");
		}
		_exit(0);
	}
	if (stage < 0)
		die("fork");
	for (int i = 0; i <= count; i++) {
		pid_t pid = reap(-1, &status, NULL);

		if (pid < 0 || status != (pid == stage ? 0 : code << 8))
			die("wait4");
	}
	return 0;
}

/* live COUNT: so many children that live until the input ends; prints a line when all of them do. */
static int cmd_live(char **argv)
{
	int count = number(argv[0]), status;
	pid_t group = 0;
	char byte;

	for (int i = 0; i < count; i++) {
		pid_t pid = fork();

		if (pid == 0) {
			setpgid(0, group);
			prctl(PR_SET_PDEATHSIG, SIGKILL);
			pause();
			_exit(1);
		}
		if (pid < 0)
			die("fork");
		setpgid(pid, group);
		group = group ? group : pid;
	}
	printf("%d\n", count);
	fflush(stdout);
	while (read(0, &byte, 1) > 0)
		;
	if (kill(-group, SIGTERM))
		die("kill");
	for (int i = 0; i < count; i++)
		if (reap(-1, &status, NULL) < 0 || status != SIGTERM)
			die("wait4");
	return 0;
}

/* churn COUNT PARALLEL SEED: children that call themselves 15 bytes of anything and end with any code.
 * Prints how many ended, and how many of them well.
 */
static int cmd_churn(char **argv)
{
	int count = number(argv[0]), parallel = number(argv[1]);
	uint64_t state = number(argv[2]) * 0x9E3779B97F4A7C15u + 1;
	int started = 0, ended = 0, well = 0;

	while (ended < count) {
		int status;

		if (started < count && started - ended < parallel) {
			char comm[16] = { 0 };
			pid_t pid;

			for (int i = 0; i < 15; i++) {
				state ^= state << 13;
				state ^= state >> 7;
				state ^= state << 17;
				comm[i] = state % 255 + 1;
			}
			pid = fork();
			if (pid == 0) {
				prctl(PR_SET_NAME, comm);
				_exit(state >> 8 & 0xff);
			}
			if (pid < 0)
				die("fork");
			started++;
			continue;
		}
		if (reap(-1, &status, NULL) < 0)
			die("wait4");
		ended++;
		well += status == 0;
	}
	printf("%d %d\n", ended, well);
	return 0;
}

static int run_command(int argc, char **argv);

/* when_told COMMAND ARGUMENTS...: once the input ends */
static int cmd_when_told(char **argv)
{
	int argc = 0;

	while (argv[argc])
		argc++;
	wait_for_end_of_input();
	return run_command(argc, argv);
}

/* spawn PATH ARGUMENTS... ";" PATH ARGUMENTS... ";" ...: one after the other.
 * Prints per child: pid, wait status, us from before its birth until after its end, CPU us, peak RSS in KiB.
 */
static int cmd_spawn(char **argv)
{
	while (*argv) {
		char **child = argv;
		struct rusage usage;
		int64_t born, ended, cpu;
		int status;
		pid_t pid;

		while (strcmp(*argv, ";"))
			argv++;
		*argv++ = NULL;
		born = now_us(CLOCK_MONOTONIC);
		if (posix_spawn(&pid, child[0], NULL, NULL, child, environ) || reap(pid, &status, &usage) != pid)
			die(child[0]);
		ended = now_us(CLOCK_MONOTONIC);
		cpu = (usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) * 1000000LL;
		cpu += usage.ru_utime.tv_usec + usage.ru_stime.tv_usec;
		printf("%d %d %lld %lld %ld\n", pid, status, (long long)(ended - born), (long long)cpu, usage.ru_maxrss);
	}
	return 0;
}

/* storm COUNT PARALLEL CODES PATH0 PATH1 ...: children that exit at once, PARALLEL of them alive at a time.
 * Program k ends with codes k * CODES + 1 ... (k + 1) * CODES, so a wrong name is seen from the code.
 * Prints per program and code: index, wait status, number of children.
 */
#define MAX_PROGRAMS 8
#define MAX_PARALLEL 256
static int seen[MAX_PROGRAMS][256];

static int cmd_storm(char **argv)
{
	int count = number(argv[0]), parallel = number(argv[1]), codes = number(argv[2]);
	int programs = 0, started = 0, alive = 0;
	struct { pid_t pid; int program; } slots[MAX_PARALLEL] = { 0 };

	while (argv[3 + programs])
		programs++;
	if (programs > MAX_PROGRAMS || parallel > MAX_PARALLEL || programs * codes > 255)
		die("storm");
	while (started < count || alive) {
		pid_t pid;
		int status;

		if (started < count && alive < parallel) {
			int k = started % programs, slot = 0;
			char code[16], *child[] = { argv[3 + k], "exit", code, NULL };

			snprintf(code, sizeof(code), "%d", k * codes + started / programs % codes + 1);
			if (posix_spawn(&pid, child[0], NULL, NULL, child, environ))
				die(child[0]);
			while (slots[slot].pid)
				slot++;
			slots[slot].pid = pid;
			slots[slot].program = k;
			started++;
			alive++;
			continue;
		}
		pid = reap(-1, &status, NULL);
		if (pid < 0 || !WIFEXITED(status))
			die("wait4");
		for (int slot = 0; slot < parallel; slot++)
			if (slots[slot].pid == pid) {
				slots[slot].pid = 0;
				seen[slots[slot].program][WEXITSTATUS(status)]++;
			}
		alive--;
	}
	for (int k = 0; k < programs; k++)
		for (int code = 0; code < 256; code++)
			if (seen[k][code])
				printf("%d %d %d\n", k, code << 8, seen[k][code]);
	return 0;
}

/* crowd COUNT FIRST_CODE CODES: children, each with a name that no other has, exiting with one of CODES codes.
 * Prints per code: wait status, number of children.
 */
static int cmd_crowd(char **argv)
{
	int count = number(argv[0]), first = number(argv[1]), codes = number(argv[2]);
	static int ended[0x10000];

	for (int i = 0; i < count; i++) {
		int status;
		pid_t pid = fork();

		if (pid == 0) {
			char comm[16];

			snprintf(comm, sizeof(comm), "crowd-%d", i);
			if (prctl(PR_SET_NAME, comm))
				die("prctl");
			_exit(first + i % codes);
		}
		if (pid < 0 || reap(pid, &status, NULL) != pid)
			die("fork");
		ended[status & 0xffff]++;
	}
	for (int status = 0; status < 0x10000; status++)
		if (ended[status])
			printf("%d %d\n", status, ended[status]);
	return 0;
}

/* crash_as COUNT: children that crash, each with a name that no other has. */
static int cmd_crash_as(char **argv)
{
	struct rlimit no_core = { 0, 0 };
	int count = number(argv[0]);

	setrlimit(RLIMIT_CORE, &no_core);
	for (int i = 0; i < count; i++) {
		int status;
		pid_t pid = fork();

		if (pid == 0) {
			char comm[16];

			snprintf(comm, sizeof(comm), "burst-%d", i);
			if (prctl(PR_SET_NAME, comm))
				die("prctl");
			raise(SIGSEGV);
		}
		if (pid < 0 || reap(pid, &status, NULL) != pid)
			die("fork");
	}
	return 0;
}

static const struct {
	const char *name;
	int arguments; /* at least */
	int (*run)(char **argv);
} commands[] = {
	{ "exit", 1, cmd_exit },
	{ "signal", 2, cmd_signal },
	{ "threads", 3, cmd_threads },
	{ "leader_first", 4, cmd_leader_first },
	{ "thread_exec", 1, cmd_thread_exec },
	{ "thread_fork", 2, cmd_thread_fork },
	{ "fork", 2, cmd_fork },
	{ "vfork", 2, cmd_vfork },
	{ "failed_exec", 0, cmd_failed_exec },
	{ "orphan", 2, cmd_orphan },
	{ "ignore_sigchld", 2, cmd_ignore_sigchld },
	{ "setuid", 2, cmd_setuid },
	{ "euid", 2, cmd_euid },
	{ "rename", 2, cmd_rename },
	{ "exec", 1, cmd_exec },
	{ "rss", 2, cmd_rss },
	{ "eat", 1, cmd_eat },
	{ "join", 2, cmd_join },
	{ "late", 2, cmd_late },
	{ "sleep", 2, cmd_sleep },
	{ "burn", 2, cmd_burn },
	{ "attach", 0, cmd_attach },
	{ "reuse", 2, cmd_reuse },
	{ "traced", 0, cmd_traced },
	{ "sqpoll", 2, cmd_sqpoll },
	{ "when_told", 1, cmd_when_told },
	{ "spawn", 2, cmd_spawn },
	{ "crowd", 3, cmd_crowd },
	{ "crash_as", 1, cmd_crash_as },
	{ "storm", 4, cmd_storm },
	{ "churn", 3, cmd_churn },
	{ "sibling", 2, cmd_sibling },
	{ "live", 1, cmd_live },
	{ "flood", 0, cmd_flood },
	{ "with_pid", 3, cmd_with_pid },
};

static int run_command(int argc, char **argv)
{
	for (size_t i = 0; argc >= 1 && i < ARRAY_SIZE(commands); i++)
		if (!strcmp(argv[0], commands[i].name) && argc - 1 >= commands[i].arguments)
			return commands[i].run(argv + 1);
	fprintf(stderr, "usage: NAME COMMAND ARGUMENTS...\n");
	return 99;
}

int main(int argc, char **argv)
{
	return run_command(argc - 1, argv + 1);
}
