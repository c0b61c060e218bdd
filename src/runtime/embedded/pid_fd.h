// glibc 2.36 declares these without regard to C++.
#pragma once

extern "C" {
#include <sys/pidfd.h>
}
