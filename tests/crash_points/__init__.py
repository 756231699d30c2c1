"""Every writer of the program, stopped at each of its system calls; see docs/reliability.md."""
