"""Whatever comes from outside: no input ends a process, holds a place for good, or is a bug."""
