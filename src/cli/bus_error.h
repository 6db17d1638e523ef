// cli/bus_error.h - a mapped file that shrinks, or that the disk cannot give, ends the program with a line.
#pragma once

// From now on: one line on stderr that names the file, and exit status 1, instead of a death by SIGBUS. A fault in
// memory that maps no file stays what it is.
void bus_errors_catch(void);
