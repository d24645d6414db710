// mallopt; Swift's Glibc module leaves it out.
#if defined(__linux__)
#include <malloc.h>
#endif
