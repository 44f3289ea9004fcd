"""A catalogue's photos -> rows of verdicts, on one machine or a fleet; resumable, each row once.

`options` is all that a command line needs to import; the rest wants the extra `scan`. Knows no service.
"""
