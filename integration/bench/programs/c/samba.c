/*
 * samba runs check password scripts in the way of a Samba AD DC (lib/util/tfork.c and util_runcmd.c), and says what each run took.
 *
 * Why: the price of a script on a DC is mostly that of two forks of a large process, which a benchmark with a small parent does not
 * see. One run is: three pipes for the script's streams; a fork, from a process that has touched 50 MB in small pieces, of a waiter;
 * the waiter's fork of a worker; once both are ready, the worker's /bin/sh -c COMMAND; the password to its stdin, and the end of it;
 * the waiter's message when the worker has ended; the end of the waiter. It is timed from the first pipe to the last wait.
 *
 * Usage: samba ROUNDS SEED DEADLINE-SECONDS LIBRARIES COMMAND... <PASSWORD. Each round runs every command once, in an order drawn anew.
 * With LIBRARIES other than 0 the process looks like a DC's worker more closely: 31 MB of its own, most of them in the heap, and as many libraries as are said, of five
 * pieces each, two of which have been written to. Its forks cost more then.
 * The environment is handed on, as it is. For each run a line goes to stdout: number of the command, nanoseconds, microseconds of CPU
 * of all processes of the run but this one, their page faults that needed no disk and those that did, exit status as wait(2) has it.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { touched = 50 << 20, touched_worker = 24 << 20, piece = 500, mapped = 16 << 10 };

static void die(const char *what)
{
	perror(what);
	exit(1);
}

static int64_t now(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * INT64_C(1000000000) + t.tv_nsec;
}

static uint64_t state;

/* below draws a number below n (xorshift64). */
static unsigned below(unsigned n)
{
	state ^= state << 13;
	state ^= state >> 7;
	state ^= state << 17;
	return (state >> 11) % n;
}

static void pipes(int p[2], int flags)
{
	if (pipe2(p, flags) != 0)
		die("pipe");
}

static void byte(int fd)
{
	if (write(fd, "", 1) != 1)
		die("write");
}

static char await(int fd)
{
	char c;
	ssize_t n;
	while ((n = read(fd, &c, 1)) == -1 && errno == EINTR)
		;
	return n == 1;
}

/* waiter is the process between the caller and the worker. It ends when the caller says so. */
static void waiter(pid_t worker, int status_fd, int event_fd)
{
	int status;
	if (dup2(event_fd, 0) == -1 || dup2(status_fd, 1) == -1)
		_exit(1);
	closefrom(2);
	byte(1);
	while (waitpid(worker, &status, 0) == -1 && errno == EINTR)
		;
	if (write(1, &status, sizeof status) != sizeof status)
		_exit(1);
	byte(0);
	await(1);
	_exit(0);
}

/* run runs the command once and returns its status. */
static int run(const char *command, const char *password, size_t length, int deadline)
{
	int out[2], err[2], in[2], status_pair[2], event[2], ready[2], status = -1;
	pid_t pid;

	pipes(out, 0);
	pipes(err, 0);
	pipes(in, 0);
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, status_pair) != 0)
		die("socketpair");
	pipes(event, O_CLOEXEC);
	pipes(ready, O_CLOEXEC);

	if ((pid = fork()) == -1)
		die("fork");
	if (pid == 0) {
		pid_t worker;
		close(status_pair[0]);
		close(event[0]);
		close(ready[1]);
		if ((worker = fork()) == -1)
			_exit(1);
		if (worker != 0) {
			close(ready[0]);
			waiter(worker, status_pair[1], event[1]);
		}
		close(status_pair[1]);
		close(event[1]);
		if (!await(ready[0]))
			_exit(1);
		close(ready[0]);
		close(out[0]);
		close(err[0]);
		close(in[1]);
		dup2(in[0], 0);
		dup2(out[1], 1);
		dup2(err[1], 2);
		close(in[0]);
		close(out[1]);
		close(err[1]);
		execl("/bin/sh", "/bin/sh", "-c", command, (char *)NULL);
		_exit(255);
	}
	close(status_pair[1]);
	close(event[1]);
	close(ready[0]);
	if (!await(status_pair[0]))
		die("waiter");
	byte(ready[1]);
	close(ready[1]);
	close(out[1]);
	close(err[1]);
	close(in[0]);

	/* A program that does not read may be gone already. Samba would refuse the password then; here that is not measured. */
	if (write(in[1], password, length) != (ssize_t)length && errno != EPIPE)
		die("writing the password");
	close(in[1]);

	struct pollfd fds[] = {{event[0], POLLIN, 0}, {out[0], POLLIN, 0}, {err[0], POLLIN, 0}};
	int64_t end = now() + deadline * INT64_C(1000000000);
	while (status == -1) {
		int n = poll(fds, 3, deadline * 1000);
		if ((n == -1 && errno != EINTR) || now() > end)
			die("a command does not end: poll");
		for (int i = 1; i < 3; i++) {
			char text[4096];
			if (fds[i].revents && read(fds[i].fd, text, sizeof text) <= 0)
				fds[i].fd = -1;
		}
		if (fds[0].revents && read(status_pair[0], &status, sizeof status) != sizeof status)
			die("waiter's message");
	}
	byte(status_pair[0]);
	close(status_pair[0]);
	while (waitpid(pid, NULL, 0) == -1 && errno == EINTR)
		;
	close(event[0]);
	close(out[0]);
	close(err[0]);
	return status;
}

/* library maps a file five times, as the loader maps a library: two pieces are written to, and get memory of their own. */
static void library(int file)
{
	static const int protection[] = {PROT_READ, PROT_READ | PROT_EXEC, PROT_READ, PROT_READ | PROT_WRITE, PROT_READ | PROT_WRITE};
	for (int i = 0; i < 5; i++) {
		char *p = mmap(NULL, mapped, protection[i], MAP_PRIVATE, file, 0);
		if (p == MAP_FAILED)
			die("mmap");
		for (int at = 0; at < mapped; at += 4096) {
			volatile char *c = p + at;
			if (protection[i] & PROT_WRITE)
				*c = 1;
			else
				(void)*c;
		}
		if (i == 3 && mprotect(p, mapped, PROT_READ) != 0)
			die("mprotect");
	}
}

static long microseconds(struct timeval t) { return t.tv_sec * 1000000L + t.tv_usec; }

int main(int argc, char **argv)
{
	static char password[4096];
	ssize_t length;
	if (argc < 6 || (length = read(0, password, sizeof password)) <= 0) {
		fprintf(stderr, "usage: samba ROUNDS SEED DEADLINE-SECONDS LIBRARIES COMMAND... <PASSWORD\n");
		return 2;
	}
	int rounds = atoi(argv[1]), deadline = atoi(argv[3]), libraries = atoi(argv[4]), commands = argc - 5;
	state = strtoull(argv[2], NULL, 10) | 1;
	signal(SIGPIPE, SIG_IGN); /* as in Samba, whose scripts inherit that */

	/* As talloc does, many small pieces: they lie in the heap, on small pages. They are never freed. */
	for (size_t i = 0; i < (libraries ? touched_worker : touched) / piece; i++) {
		char *p = malloc(piece - 16); /* malloc's own bytes are touched too */
		if (p == NULL)
			die("malloc");
		memset(p, (int)i, piece - 16);
	}

	int self = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
	if (self == -1)
		die("open");
	for (int i = 0; i < libraries; i++)
		library(self);

	int *order = calloc(commands, sizeof *order);
	for (int i = 0; i < commands; i++)
		order[i] = i;
	for (int round = 0; round < rounds; round++) {
		for (int i = commands - 1; i > 0; i--) {
			int j = below(i + 1), other = order[i];
			order[i] = order[j];
			order[j] = other;
		}
		for (int i = 0; i < commands; i++) {
			struct rusage before, after;
			getrusage(RUSAGE_CHILDREN, &before);
			int64_t start = now();
			int status = run(argv[5 + order[i]], password, length, deadline);
			int64_t took = now() - start;
			getrusage(RUSAGE_CHILDREN, &after);
			printf("%d %lld %ld %ld %ld %d\n", order[i], (long long)took,
			       microseconds(after.ru_utime) + microseconds(after.ru_stime) - microseconds(before.ru_utime) - microseconds(before.ru_stime),
			       after.ru_minflt - before.ru_minflt, after.ru_majflt - before.ru_majflt, status);
		}
	}
	return fflush(stdout) == 0 ? 0 : 1;
}
