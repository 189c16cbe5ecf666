// bad_plugin.c in C++, for an exception that leaves a method.
#include "bad_plugin.c"
