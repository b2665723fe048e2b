/* The program that storms execute: exits at once with the digit that it is given. */
#include <unistd.h>

int main(int argc, char **argv)
{
	_exit(argc > 1 ? argv[1][0] - '0' : 0);
}
