/* What a hostile process does, as root of a container may: NAME COMMAND NUMBER...
 *
 *     execs COUNT           executes itself so often
 *     uids THREADS COUNT    so many threads, each with a uid of its own; then so many changes of them
 *     groups COUNT CODE     is in so many groups, prints a line, and ends with the code when its input ends
 */
#define _GNU_SOURCE
#include <grp.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#define FIRST_UID 2110000000
#define FIRST_GID 4000000000

static pthread_barrier_t all_have_changed;
static int changes_of_each;

static void die(const char *what)
{
	perror(what);
	_exit(99);
}

static void execs(char *path, int count)
{
	char left[16];
	char *argv[] = { path, "execs", left, NULL };

	if (count <= 0)
		_exit(0);
	snprintf(left, sizeof(left), "%d", count - 1);
	execv(path, argv);
	die("execv");
}

/* The system call changes the uid of the calling thread alone; the C library's function changes that of all. */
static void change(uid_t uid)
{
	if (syscall(SYS_setresuid, uid, -1, -1))
		die("setresuid");
}

static void *change_uids(void *number)
{
	uid_t uid = FIRST_UID + (uintptr_t)number;

	change(uid);
	pthread_barrier_wait(&all_have_changed);
	for (int i = 0; i < changes_of_each; i++)
		change(uid + (i % 2 ? 0 : 1000000));
	pthread_barrier_wait(&all_have_changed);
	return NULL;
}

static void uids(int threads, int count)
{
	pthread_attr_t small;
	pthread_t thread;

	changes_of_each = count / threads;
	pthread_attr_init(&small);
	pthread_attr_setstacksize(&small, 16 << 10);
	pthread_barrier_init(&all_have_changed, NULL, threads + 1);
	for (uintptr_t i = 0; i < (uintptr_t)threads; i++)
		if (pthread_create(&thread, &small, change_uids, (void *)i))
			die("pthread_create");
	pthread_barrier_wait(&all_have_changed);
	pthread_barrier_wait(&all_have_changed);
	exit(0);
}

static void groups(int count, int code)
{
	gid_t *gids = calloc(count, sizeof(*gids));
	char byte;

	for (int i = 0; i < count; i++)
		gids[i] = FIRST_GID + i;
	if (setgroups(count, gids))
		die("setgroups");
	puts("ready");
	fflush(stdout);
	while (read(0, &byte, 1) > 0)
		;
	exit(code);
}

int main(int argc, char **argv)
{
	if (argc == 3 && !strcmp(argv[1], "execs"))
		execs(argv[0], atoi(argv[2]));
	if (argc == 4 && !strcmp(argv[1], "uids"))
		uids(atoi(argv[2]), atoi(argv[3]));
	if (argc == 4 && !strcmp(argv[1], "groups"))
		groups(atoi(argv[2]), atoi(argv[3]));
	return 99;
}
