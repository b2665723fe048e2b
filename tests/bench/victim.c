/* The program that storms execute. Given a program and its arguments it executes that; given a digit alone it exits at
 * once with it.
 */
#include <unistd.h>

int main(int argc, char **argv)
{
	if (argc > 2) {
		execv(argv[1], argv + 1);
		_exit(127);
	}
	_exit(argc > 1 ? argv[1][0] - '0' : 0);
}
