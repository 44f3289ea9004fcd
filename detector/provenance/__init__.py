"""What a photo's file says of itself: offline, bounded in time and memory, apart from the pixels.

`reading` reads, `judge` sums up, `policy` decides what it does to a label, `compliance` checks marking rules.
Every statement is a claim; only a signature that is intact and trusted makes it more than that.
"""
